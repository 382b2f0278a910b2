"""The doctor's look at checkpoints: those that rows promise, read and compared with their manifests."""

from collections.abc import Iterator
from pathlib import Path

from orchestrator.domain.ids import spell
from orchestrator.services import retention
from orchestrator.services.checkpoint_files import damage_of, is_at_home, is_own, manifest_sha256
from orchestrator.services.doctor_findings import (
    Finding,
    MarkDamaged,
    MarkSound,
    Patient,
    RemoveFolder,
    Rows,
    Severity,
)
from orchestrator.services.fall_back import GONE
from orchestrator.services.retention import RunFiles
from orchestrator.store import checkpoints
from orchestrator.store.records import CheckpointRow

AREA = "checkpoints"
MISSING = "is missing"
GOES_ON = "nothing is to be done: a run that is resumed passes it over for an older one"
RESTORE = "mount its disk, or restore it from a backup; else a run that is resumed takes an older one"


def look_at_checkpoints(patient: Patient, rows: Rows) -> Iterator[Finding]:
    """Damaged, missing and left over."""
    with patient.database.read() as connection:
        found = retention.load(connection, sorted(rows.runs))
        removed = checkpoints.removed(connection)
    for files in found:
        yield from _of_run(patient, files)
    directories = {attempt.id: attempt.directory for attempt in rows.attempts}
    for row in removed:
        path = Path(row.path)
        own = is_at_home(directories.get(row.attempt_id, ""), row.step, row.path)
        if own and is_own(patient.home, path) and path.is_dir():
            what = f"retention removed the checkpoint of step {row.step}, and its folder is still there"
            fix = "--repair removes it"
            yield Finding(Severity.WARNING, AREA, what, row.path, fix, RemoveFolder(path))


def _of_run(patient: Patient, files: RunFiles) -> Iterator[Finding]:
    pruned = {row.id for row in retention.pruned(files, retention.look(files))}
    newest = max((row.step for row in files.rows if row.damage is None), default=0)
    for row in files.rows:
        if row.id in pruned or not files.is_at_home(row):
            continue  # what a trainer keeps elsewhere is its own affair
        problem = _problem(patient, row)
        needed = row.step == newest and not files.run.status.is_terminal
        if row.damage is not None and not (row.damage == GONE and problem == MISSING):
            yield _known(patient, row, row.damage, problem)
        elif problem is not None:
            yield _new(row, problem, Severity.ERROR if needed else Severity.WARNING)


def _known(patient: Patient, row: CheckpointRow, damage: str, problem: str | None) -> Finding:
    what = f"{_name(row)} is known as damaged ({damage})"
    if problem is None and not patient.quick and Path(row.path).is_dir():
        what = f"{what}, and its files are what its manifest says"
        mend = MarkSound(row.id)
        return Finding(Severity.WARNING, AREA, what, row.path, "--repair takes the mark away", mend)
    return Finding(Severity.NOTE, AREA, what, row.path, GOES_ON)


def _new(row: CheckpointRow, problem: str, severity: Severity) -> Finding:
    """What is there and damaged is marked; what is not there may come back with its disk."""
    what = f"{_name(row)} {problem}"
    if problem == MISSING:
        return Finding(severity, AREA, what, row.path, RESTORE)
    mend = MarkDamaged(row.run_id, row.path, problem)
    return Finding(severity, AREA, what, row.path, f"--repair marks it; {GOES_ON}", mend)


def _name(row: CheckpointRow) -> str:
    return f"{spell('run', row.run_id)}: the checkpoint of step {row.step}"


def _problem(patient: Patient, row: CheckpointRow) -> str | None:
    path = Path(row.path)
    if not path.is_dir():
        return MISSING
    problem = damage_of(path, hashes=not patient.quick)
    if problem is None and manifest_sha256(path) != row.manifest_sha256:
        problem = "its manifest is not the one that was reported"
    if problem is None:
        return None
    return f"is damaged: {problem}" if path.is_dir() else None  # its worker has pruned it meanwhile
