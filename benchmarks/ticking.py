"""A tick with 1,000 workers up and 10,000 finished runs behind it, one with nothing to do, and a restart.

The workers are claims of the local engine whose supervisor is this process: the engine looks at each of them
in /proc as it does at real ones.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import httpx
from real_service import SPEC
from sqlalchemy import Connection, Table, func, insert, select, update

from benchmarks.rigs import REPEATS, context_for
from orchestrator.bootstrap import utc_now
from orchestrator.engines import processes
from orchestrator.engines.claims import Claims
from orchestrator.engines.local import LocalEngine
from orchestrator.services.context import Context
from orchestrator.services.reconcile import tick
from orchestrator.services.submit import submit
from orchestrator.store import runs
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from orchestrator.store.tables import experiments, stages, variants
from orchestrator.store.tables import runs as runs_table
from trainer.facts import check

RUNNING, FINISHED, EACH = 1_000, 10_000, 20
NOW = utc_now()


def figures() -> dict[str, str]:
    """Milliseconds of processor time of a tick, seconds of a restart: the least of several."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        database = Database(f"sqlite:///{home / 'assay.sqlite3'}")
        upgrade(database)
        engine = LocalEngine(home / "engine", RUNNING, False, time.monotonic)
        context = replace(context_for(database, home, check), engine=engine, clock=lambda: NOW)
        _finished(context)
        idle = _least(lambda: tick(context))
        _running(context)
        busy = _least(lambda: tick(context))
        database.close()
        restart = min(_restart(home) for _ in range(REPEATS))
    return {
        "idle tick, 10,000 finished runs": f"{1e3 * idle:.1f} ms (limit 5)",
        "tick, 1,000 running runs as well": f"{1e3 * busy:.0f} ms (limit 150)",
        "restart with that state to ready": f"{restart:.2f} s (limit 3)",
    }


def _least(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS + 1):  # the first fills caches
        before = time.process_time()
        work()
        taken.append(time.process_time() - before)
    return min(taken[1:])


def _spec(number: int) -> dict[str, Any]:
    names = {f"v{i}": {"optimizer.lr": 0.001 + i / 1e4} for i in range(EACH)}
    return {
        "name": f"bench-{number}",
        "base": SPEC["base"],
        "control": "v0",
        "stages": [
            {"name": "screen", "steps": 1000, "variants": names},
            {"name": "long", "steps": 5000, "promote": {"best": 2}},
        ],
    }


def _finished(context: Context) -> None:
    """One experiment as it is submitted, ended, and its rows again until there are enough."""
    template = submit(context, _spec(0))
    with context.database.write() as connection:
        _end(connection, template)
        for _ in range(FINISHED // EACH - 1):
            _copy(connection, template)


def _end(connection: Connection, experiment: int) -> None:
    ended = {"status": "succeeded", "ended_at": NOW}
    connection.execute(update(experiments).where(experiments.c.id == experiment).values(**ended))
    connection.execute(update(stages).values(status="closed", closed_at=NOW))
    for run in runs.runs_of(connection, [experiment]):
        connection.execute(
            update(runs_table)
            .where(runs_table.c.id == run.id)
            .values(status="succeeded", reason="finished", step=5000, ended_at=NOW)
        )
        _attempt(connection, run.id, "ended", exit_code=0, ended_at=NOW, reason="finished")


def _copy(connection: Connection, template: int) -> None:
    new = {"experiment_id": _again(connection, experiments, experiments.c.id == template)[0]}
    _again(connection, stages, stages.c.experiment_id == template, **new)
    made = _again(connection, variants, variants.c.experiment_id == template, **new)
    of_run = runs_table.c.experiment_id == template
    for run, variant in zip(_again(connection, runs_table, of_run, **new), made, strict=True):
        connection.execute(update(runs_table).where(runs_table.c.id == run).values(variant_id=variant))
        _attempt(connection, run, "ended", exit_code=0, ended_at=NOW, reason="finished")


def _again(connection: Connection, table: Table, which: Any, **values: Any) -> list[int]:
    """Copies of these rows with other values; their new ids."""
    rows = connection.execute(select(table).where(which).order_by(table.c.id)).mappings().all()
    last = connection.execute(select(func.max(table.c.id))).scalar_one()
    copies = [{**row, **values, "id": last + 1 + i} for i, row in enumerate(rows)]
    if table is runs_table:
        copies = [{**copy, "seed": 10**6 + copy["id"]} for copy in copies]
    connection.execute(insert(table), copies)
    return [copy["id"] for copy in copies]


def _attempt(connection: Connection, run: int, status: str, **values: Any) -> None:
    key = f"run_{run}-1"
    runs.add_attempt(
        connection,
        **{
            "run_id": run,
            "number": 1,
            "epoch": 1,
            "status": status,
            "key": key,
            "slots": [],
            "directory": f"/nowhere/{key}",
            "token_hash": b"t",
            "handle": {"engine": "local", "key": key, "data": {}},
            "acknowledged": 1,
            "step": 500,
            "lease_expires_at": datetime(2100, 1, 1, tzinfo=UTC),
            "created_at": NOW,
        }
        | values,
    )


def _running(context: Context) -> None:
    """1,000 runs of 50 experiments, each with a worker that was heard a moment ago."""
    ids = [submit(context, _spec(number + 1)) for number in range(RUNNING // EACH)]
    claims = Claims(context.home / "engine")
    claim = f"{processes.boot_id()}\n{Path('/proc/self/stat').read_text().strip()}\n/nowhere\n"
    with context.database.write() as connection:
        for slot, run in enumerate(runs.runs_of(connection, ids)):
            runs.change_run(connection, run, status="starting", epoch=1)
            _attempt(connection, run.id, "launched", slots=[f"cpu:{slot}"], progress_at=NOW, phase="training")
            claims.claim_path(f"run_{run.id}-1").write_text(claim)


def _restart(home: Path) -> float:
    """Seconds from the command to the first `ok` of /readyz."""
    settings = {"ASSAY_HOME": str(home), "ASSAY_PORT": "0", "ASSAY_SLOTS": str(RUNNING)}
    (home / "service.json").unlink(missing_ok=True)
    began = time.perf_counter()
    with (home / "log").open("ab") as log:
        command = [sys.executable, "-m", "orchestrator.bootstrap"]
        service = subprocess.Popen(command, env=os.environ | settings, stderr=log)
    try:
        while not _is_ready(home):
            if service.poll() is not None or time.perf_counter() - began > 60:
                raise RuntimeError((home / "log").read_text())
            Event().wait(0.02)
        return time.perf_counter() - began
    finally:
        service.terminate()
        service.wait(30)


def _is_ready(home: Path) -> bool:
    try:
        url = json.loads((home / "service.json").read_text())["url"]
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except (OSError, ValueError, httpx.HTTPError):
        return False


if __name__ == "__main__":
    for name, figure in figures().items():
        print(f"{name:<42} {figure}", flush=True)
