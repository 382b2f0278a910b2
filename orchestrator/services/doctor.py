"""`assay doctor`: what is wrong with a home, found by reading; what is safe of it is mended when asked.

Each area has a reader of its own, which gives findings; nothing is changed while they read.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.services.checkpoint_files import is_own
from orchestrator.services.doctor_checkpoints import look_at_checkpoints
from orchestrator.services.doctor_files import (
    look_at_folders,
    look_at_permissions,
    look_at_spools,
    look_at_unfinished,
)
from orchestrator.services.doctor_findings import (
    Finding,
    MakePrivate,
    MarkDamaged,
    MarkSound,
    Patient,
    RemoveFile,
    Repair,
    Rows,
    Severity,
)
from orchestrator.services.doctor_home import (
    look_at_address,
    look_at_database,
    look_at_disk,
    look_at_workers,
)
from orchestrator.store import checkpoints, runs


def load_rows(connection: Connection) -> Rows:
    """Every run and attempt."""
    attempts = runs.every_attempt(connection)
    owners = sorted({attempt.run_id for attempt in attempts})
    return Rows(runs.runs_by_id(connection, owners), attempts)


def examine(patient: Patient, file: Path | None, free_bytes: int, min_free_bytes: int) -> list[Finding]:
    """Everything that is found, by area. Nothing is changed.

    `file` is that of a SQLite database. Where that is damaged, or of another version, its rows are not
    asked: only the home itself is looked at.
    """
    found = list(look_at_database(patient, file))
    found += [*look_at_disk(patient, free_bytes, min_free_bytes), *look_at_address(patient)]
    if any(finding.area == "database" for finding in found):
        return found
    with patient.database.read() as connection:
        rows = load_rows(connection)
    found += look_at_workers(patient, rows)
    for look in (look_at_checkpoints, look_at_folders, look_at_unfinished, look_at_spools):
        found += look(patient, rows)
    return [*found, *look_at_permissions(rows)]


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is left to do: notes are for reading."""
    return all(f.is_repaired or f.severity is Severity.NOTE for f in findings)


def repair(patient: Patient, findings: Sequence[Finding]) -> list[Finding]:
    """The same findings, marked where what is safe was done."""
    return [replace(f, is_repaired=True) if f.repair and _done(patient, f.repair) else f for f in findings]


def _done(patient: Patient, repair: Repair) -> bool:
    try:
        return _do(patient, repair)
    except OSError:
        return False


def _do(patient: Patient, repair: Repair) -> bool:
    if isinstance(repair, MarkDamaged):
        with patient.database.write() as connection:
            return checkpoints.mark_damaged(connection, [repair.run_id], repair.path, repair.problem)
    if isinstance(repair, MarkSound):
        with patient.database.write() as connection:
            checkpoints.mark_sound(connection, repair.checkpoint_id)
    elif isinstance(repair, RemoveFile):
        repair.path.unlink()
    elif isinstance(repair, MakePrivate):
        repair.path.chmod(0o600)
    elif is_own(patient.home, repair.path):
        shutil.rmtree(repair.path)
    else:
        return False
    return True
