"""Workers that ended without saying so, and leases that ran out. The engine's word is a hint: rows decide."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection

from orchestrator.domain.errors import AssayError
from orchestrator.domain.lifecycle import AttemptStatus, RunStatus
from orchestrator.engines.base import EngineError, Handle, StateKind, WorkerState
from orchestrator.protocol.exit import ExitRecord
from orchestrator.protocol.report import Report
from orchestrator.services.context import Context
from orchestrator.services.ending import end_attempt
from orchestrator.services.ingest import take_in
from orchestrator.store import journal, runs
from orchestrator.store.records import AttemptRecord

log = logging.getLogger(__name__)

EXIT_FILE = "exit.json"
SPOOL_FILE = "spool.jsonl"


def reap(context: Context) -> None:
    """Ends every attempt whose worker is gone, after taking in what its spool still holds."""
    with context.database.read() as connection:
        live = [a for a in runs.live_attempts(connection) if a.status is AttemptStatus.LAUNCHED]
        left_behind = runs.unseen_ends(connection)
    states = _poll(context, [*live, *left_behind])
    for look, attempts in ((_look_at, live), (_see_off, left_behind)):
        for attempt in attempts:
            try:
                look(context, attempt, states.get(attempt.key))
            except Exception:  # one attempt that cannot be dealt with must not hold up the others
                log.exception("attempt %s could not be looked at; the next tick tries again", attempt.key)


def _poll(context: Context, attempts: Sequence[AttemptRecord]) -> dict[str, WorkerState]:
    """Asked even of nobody: the engine also delivers the kills that are due when it is polled."""
    handles = [Handle.from_json(attempt.handle) for attempt in attempts if attempt.handle is not None]
    try:
        return context.engine.poll(handles)
    except EngineError:
        return {}


def _look_at(context: Context, attempt: AttemptRecord, state: WorkerState | None) -> None:
    if state is None:
        return
    if state.is_over:
        _bury(context, attempt, state)
        return
    with context.database.read() as connection:
        run = runs.get_run(connection, attempt.run_id)
    unwanted = run is not None and run.status is RunStatus.CANCELLED
    silent = context.clock() > attempt.lease_expires_at
    if unwanted or (silent and state.kind is StateKind.RUNNING):
        _cancel(context, attempt)


def _cancel(context: Context, attempt: AttemptRecord) -> None:
    if attempt.handle is None:
        return
    try:
        context.engine.cancel(Handle.from_json(attempt.handle), context.limits.cancel_grace_seconds)
    except EngineError as error:
        with context.database.write() as connection:
            text = f"the engine could not cancel attempt {attempt.number}: {error.detail}"
            journal.add_event(connection, "engine", text, now=context.clock(), run_id=attempt.run_id)


def _see_off(context: Context, attempt: AttemptRecord, state: WorkerState | None) -> None:
    """An attempt that the service ended: its process is made to go, and its going is noted.

    An engine that did not answer says nothing of it: it is asked again at the next tick.
    """
    if state is None:
        return
    if state.kind is StateKind.RUNNING:
        _cancel(context, attempt)
    elif state.is_over:
        code = state.code if state.code is not None else -1
        with context.database.write() as connection:
            runs.note_exit_code(connection, attempt.id, code)


def _bury(context: Context, attempt: AttemptRecord, state: WorkerState) -> None:
    record = read_exit(Path(attempt.directory))
    code = record.code if record is not None else state.code
    with context.database.write() as connection:
        backfill(connection, context, attempt)
        end_attempt(
            connection,
            context,
            attempt.id,
            code=code,
            message=record.message if record is not None else _killed(state),
            lost=code is None,
            now=context.clock(),
        )


def _killed(state: WorkerState) -> str:
    by_signal = state.code is not None and state.code < 0
    return f"the worker was killed: {state.reason or state.code}" if by_signal else ""


def read_exit(directory: Path) -> ExitRecord | None:
    """The worker's own account of its end, or None if it left none that can be read."""
    try:
        return ExitRecord.model_validate_json((directory / EXIT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def backfill(connection: Connection, context: Context, attempt: AttemptRecord) -> None:
    """Takes in the reports that the worker spooled and could not deliver. Torn lines are counted and said."""
    lines = _spool(Path(attempt.directory))
    torn = 0
    for line in lines:
        try:
            report = Report.model_validate_json(line)
        except ValidationError:
            torn += 1
            continue
        if report.sequence <= attempt.acknowledged:
            continue
        current = runs.get_attempt(connection, attempt.id)
        if current is None or current.status is AttemptStatus.ENDED:
            return
        _take_in(connection, context, current, report)
    if torn:
        _say(connection, attempt, f"{torn} torn lines in the spool were passed over", context.clock())


def _spool(directory: Path) -> list[bytes]:
    try:
        return [line for line in (directory / SPOOL_FILE).read_bytes().splitlines() if line.strip()]
    except OSError:
        return []


def _take_in(connection: Connection, context: Context, attempt: AttemptRecord, report: Report) -> None:
    try:
        with connection.begin_nested():
            take_in(connection, context, attempt, report)
    except AssayError as error:
        _say(connection, attempt, f"report {report.sequence} of the spool: {error.detail}", context.clock())


def _say(connection: Connection, attempt: AttemptRecord, text: str, now: datetime) -> None:
    journal.add_event(connection, "spool", text, now=now, run_id=attempt.run_id)
