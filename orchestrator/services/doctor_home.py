"""The doctor's look at the home itself: its database, its disk, its address file, its workers."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from orchestrator.domain.lifecycle import AttemptStatus
from orchestrator.services.doctor_findings import Finding, Patient, RemoveFile, Rows, Severity
from orchestrator.store.integrity import damage_of
from orchestrator.store.migrate import current_revision, newest_revision

ADDRESS_FILE = "service.json"


def look_at_database(patient: Patient, file: Path | None) -> Iterator[Finding]:
    """The SQLite file's integrity, where it is one, and the schema."""
    where = str(file or patient.home)
    if file is not None and (damage := _damage(file, quick=patient.quick)):
        fix = "stop the service and restore a backup: docs/operations.md, Backup"
        yield Finding(Severity.ERROR, "database", f"the database is damaged: {damage}", where, fix)
        return  # what it would answer means nothing
    revision, newest = current_revision(patient.database), newest_revision()
    if revision != newest:
        what = f"the database is at revision {revision or 'none'}, this version of Assay at {newest}"
        fix = "start the service, or run `assay db upgrade`: either migrates it, after a backup"
        yield Finding(Severity.ERROR, "database", what, where, fix)


def _damage(file: Path, *, quick: bool) -> str | None:
    try:
        return damage_of(file, thorough=not quick)
    except sqlite3.OperationalError as error:
        return f"it cannot be read ({error})"


def look_at_disk(patient: Patient, free_bytes: int, least: int) -> Iterator[Finding]:
    """Room on the disk of the home."""
    if free_bytes < least:
        what = (
            f"{free_bytes / 2**30:.2f} GiB are free, {least / 2**30:.2f} are asked for: no worker is started"
        )
        fix = "make room there, or lower ASSAY_MIN_FREE_BYTES"
        yield Finding(Severity.ERROR, "disk", what, str(patient.home), fix)


def look_at_address(patient: Patient) -> Iterator[Finding]:
    """`service.json` of a service that is gone sends workers and the command line to nobody."""
    file = patient.home / ADDRESS_FILE
    if patient.is_served or not file.is_file():
        return
    what = f"it names a service at {_url(file)}, and none works on this home"
    fix = "--repair removes it; the next service writes its own"
    yield Finding(Severity.WARNING, "address", what, str(file), fix, RemoveFile(file))


def _url(file: Path) -> str:
    try:
        return str(json.loads(file.read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return "an address that cannot be read"


def look_at_workers(patient: Patient, rows: Rows) -> Iterator[Finding]:
    """Workers that no live attempt asks for, and live attempts whose worker is gone."""
    by_key = {attempt.key: attempt for attempt in rows.attempts}
    handles = patient.engine.list_owned()
    states = patient.engine.poll(handles)
    for handle in handles:
        attempt = by_key.get(handle.key)
        if attempt is not None and attempt.status is not AttemptStatus.ENDED:
            continue
        if not states[handle.key].is_over and states[handle.key].kind != "unknown":
            asked = "no attempt is known by its key" if attempt is None else "its attempt has ended"
            ends = (
                "the service ends it within a minute"
                if patient.is_served
                else "start the service: it ends it"
            )
            what = f"worker {handle.key} is running, and {asked}"
            yield Finding(Severity.WARNING, "workers", what, _where(patient), ends)
    if not patient.is_served:
        yield from _left(patient, rows, {key for key, state in states.items() if not state.is_over})


def _left(patient: Patient, rows: Rows, alive: set[str]) -> Iterator[Finding]:
    for attempt in rows.attempts:
        if attempt.status is AttemptStatus.LAUNCHED and attempt.key not in alive:
            what = f"the worker of {attempt.key} is gone, and its attempt has not ended"
            fix = "start the service: it takes in what was spooled, and the run goes on from its checkpoint"
            yield Finding(Severity.NOTE, "workers", what, attempt.directory, fix)


def _where(patient: Patient) -> str:
    return str(patient.home / "engine")
