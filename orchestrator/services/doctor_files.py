"""The doctor's look at folders of attempts: unknown, gone, unfinished, with reports unsent, open to all."""

import stat
from collections.abc import Iterator
from pathlib import Path

from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import AttemptStatus
from orchestrator.engines.base import Handle, StateKind
from orchestrator.services.backfill import SPOOL_FILE
from orchestrator.services.checkpoint_files import FOLDER, is_own
from orchestrator.services.doctor_findings import Finding, MakePrivate, Patient, RemoveFolder, Rows, Severity
from orchestrator.services.launch import ASSIGNMENT_FILE
from orchestrator.store.records import AttemptRecord

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def look_at_folders(patient: Patient, rows: Rows) -> Iterator[Finding]:
    """Folders under `runs/` against the rows."""
    known = {attempt.directory for attempt in rows.attempts}
    for path in sorted((patient.home / "runs").glob("*/*")):
        if path.is_dir() and str(path) not in known:
            what = "no attempt is known that has this folder"
            fix = "move it away, once you know that nobody needs it: nothing here reads it"
            yield Finding(Severity.WARNING, "folders", what, str(path), fix)
    for attempt in rows.attempts:
        gone = attempt.directory and not Path(attempt.directory).is_dir()
        if gone and attempt.status is not AttemptStatus.INTENT:
            is_live = attempt.status is AttemptStatus.LAUNCHED
            what = f"the folder of {_name(attempt)} is not there: its log and checkpoints are gone"
            severity = Severity.ERROR if is_live else Severity.NOTE
            fix = "restore it from a backup, if there is one; its curve is in the database"
            yield Finding(severity, "folders", what, attempt.directory, fix)


def look_at_unfinished(patient: Patient, rows: Rows) -> Iterator[Finding]:
    """What a writer that was killed left in the folder of an attempt that is over."""
    for attempt in _over(patient, rows):
        for path in sorted((Path(attempt.directory) / FOLDER).glob(".step-*.tmp")):
            if is_own(patient.home, path):
                what = f"{_name(attempt)} left a checkpoint that it was writing or removing"
                repair = RemoveFolder(path)
                yield Finding(Severity.WARNING, "unfinished", what, str(path), "--repair removes it", repair)


def look_at_spools(patient: Patient, rows: Rows) -> Iterator[Finding]:
    """Reports that were spooled and never acknowledged, of attempts whose worker is gone."""
    for attempt in _gone(patient, rows):
        file = Path(attempt.directory) / SPOOL_FILE
        unsent = _lines(file) - attempt.acknowledged
        if unsent <= 0:
            continue
        what = f"{unsent} reports in the spool of {_name(attempt)} were not taken in"
        if attempt.status is AttemptStatus.ENDED:
            fix = "nothing is to be done: they came after it had lost its lease, and the run went on without"
            yield Finding(Severity.NOTE, "spools", what, str(file), fix)
        elif not patient.is_served:
            fix = "start the service: it takes them in before it decides anything"
            yield Finding(Severity.WARNING, "spools", what, str(file), fix)


def look_at_permissions(rows: Rows) -> Iterator[Finding]:
    """Assignments hold a worker's token: their owner's alone."""
    for attempt in rows.attempts:
        file = Path(attempt.directory) / ASSIGNMENT_FILE
        if attempt.directory and file.is_file() and file.stat().st_mode & OTHERS:
            mode = stat.filemode(file.stat().st_mode)
            what = f"others may read the token of {_name(attempt)} ({mode})"
            fix = "--repair makes it its owner's alone (chmod 600)"
            yield Finding(Severity.WARNING, "permissions", what, str(file), fix, MakePrivate(file))


def _over(patient: Patient, rows: Rows) -> list[AttemptRecord]:
    """Attempts that have ended, and of which no process is left that might be writing."""
    return [attempt for attempt in _gone(patient, rows) if attempt.status is AttemptStatus.ENDED]


def _gone(patient: Patient, rows: Rows) -> list[AttemptRecord]:
    """Attempts with a folder and without a worker: an engine that does not know is no answer."""
    handles = [Handle.from_json(a.handle) for a in rows.attempts if a.handle is not None]
    states = patient.engine.poll(handles)
    alive = {key for key, state in states.items() if state.kind in _MAY_LIVE}
    return [attempt for attempt in rows.attempts if attempt.directory and attempt.key not in alive]


_MAY_LIVE = frozenset({StateKind.PENDING, StateKind.RUNNING, StateKind.UNKNOWN})


def _lines(file: Path) -> int:
    """Whole lines; a torn one at the end is none."""
    try:
        with file.open("rb") as stream:
            return sum(line.endswith(b"\n") for line in stream)
    except OSError:
        return 0


def _name(attempt: AttemptRecord) -> str:
    return f"attempt {attempt.number} of {spell('run', attempt.run_id)}"
