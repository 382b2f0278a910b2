"""`assay doctor`: a home is examined where it lies, whether or not a service works on it."""

import logging
import shutil
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from orchestrator.bootstrap import LOCK_FILE, said
from orchestrator.cli import output
from orchestrator.cli.diagnosis import diagnosis
from orchestrator.domain.errors import Busy, Missing
from orchestrator.engines.local import LocalEngine
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.doctor import examine, is_healthy, repair
from orchestrator.services.doctor_findings import Finding, Patient, Severity
from orchestrator.settings import Settings
from orchestrator.store.backup import FOLDER as BACKUPS
from orchestrator.store.database import Database, locked_file
from orchestrator.store.opening import open_database, sqlite_file

UNHEALTHY = 1


class Unhealthy(Exception):
    """Something was found, and has been said."""


def checkup(settings: Settings, *, mend: bool, quick: bool, as_json: bool) -> None:
    """Says what is found. Raises `Unhealthy` when any of it is left, `Missing` when there is no home."""
    home = settings.home.resolve()
    if not home.is_dir():
        raise Missing(f"there is no data folder at {home}: set ASSAY_HOME or give --home, as for the service")
    with _service_locked_out(home, hold=mend) as is_served:
        findings = _findings(settings, home, is_served=is_served, mend=mend, quick=quick)
    document = _document(home, is_served, findings)
    if as_json:
        output.put_json(document)
    else:
        output.console().print(diagnosis(document), soft_wrap=True)
    if not is_healthy(findings):
        raise Unhealthy


@contextmanager
def _service_locked_out(home: Path, *, hold: bool) -> Iterator[bool]:
    """Whether a service works on the home. If none does, none begins while it is mended."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_file(home / LOCK_FILE, "a service works on it"))
        except Busy:
            yield True
            return
        if not hold:
            stack.close()
        yield False


def _findings(settings: Settings, home: Path, *, is_served: bool, mend: bool, quick: bool) -> list[Finding]:
    file = sqlite_file(settings.resolved_database_url)
    with ExitStack() as stack:
        try:
            database = stack.enter_context(closing(_open(settings, home, file)))
        except Busy as error:
            fix = "docs/operations.md says how a backup is restored"
            return [Finding(Severity.ERROR, "database", error.detail, str(file or home), fix)]
        engine = stack.enter_context(closing(LocalEngine(home / "engine", 1, False, time.monotonic)))
        patient = Patient(home, database, engine, is_served, quick)
        free = shutil.disk_usage(home).free
        found = examine(patient, file, free, settings.min_free_bytes)
        return repair(patient, found) if mend else found


def _open(settings: Settings, home: Path, file: Path | None) -> Database:
    """Opening a SQLite file would make it."""
    if file is not None and not file.exists():
        raise Busy(f"there is no database at {file}: `assay serve` makes one")
    return open_database(settings.resolved_database_url, home / BACKUPS)


def _document(home: Path, is_served: bool, findings: list[Finding]) -> JsonObject:
    """What `--json` prints."""
    return {
        "home": str(home),
        "served": is_served,
        "healthy": is_healthy(findings),
        "findings": [
            {
                **{name: asdict(f)[name] for name in ("severity", "area", "what", "where", "fix")},
                "can_be_repaired": f.repair is not None,
                "is_repaired": f.is_repaired,
            }
            for f in findings
        ],
    }


def _parsed() -> Namespace:
    parser = ArgumentParser(prog="assay doctor")
    for name in ("repair", "quick", "json"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def main() -> int:
    """The exit code: 0 healthy, 1 when something is found or it cannot be examined, 2 for bad settings."""
    given = _parsed()
    try:
        work = partial(checkup, mend=given.repair, quick=given.quick, as_json=given.json)
        return said(work)
    except Unhealthy:
        return UNHEALTHY


if __name__ == "__main__":
    logging.getLogger("alembic").setLevel(logging.WARNING)
    sys.exit(main())
