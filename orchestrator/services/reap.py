"""Workers that ended without saying so, and leases that ran out. The engine's word is a hint: rows decide."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from orchestrator.domain.lifecycle import AttemptStatus, Reason
from orchestrator.engines.base import EngineError, Handle, StateKind, WorkerState
from orchestrator.protocol.exit import ExitRecord
from orchestrator.rules.leases import Held, Overdue, is_given_up, overdue
from orchestrator.services.backfill import backfill
from orchestrator.services.context import Context
from orchestrator.services.ending import end_attempt
from orchestrator.services.parking import parking
from orchestrator.services.poison import guarded, is_news
from orchestrator.services.vigil import is_outdated, judged_at, put_off
from orchestrator.store import journal, runs
from orchestrator.store.records import AttemptRecord

EXIT_FILE = "exit.json"

UNASKED = WorkerState(StateKind.UNKNOWN, reason="the engine did not answer")


def reap(context: Context) -> None:
    """Ends every attempt whose worker is gone, after taking in what its spool still holds."""
    with context.database.read() as connection:
        live = [a for a in runs.live_attempts(connection) if a.status is AttemptStatus.LAUNCHED]
        left_behind = runs.unseen_ends(connection)
        unwanted = runs.cancelled_with_worker(connection)
    states = _poll(context, [*live, *left_behind])
    for attempt in live:
        state = states.get(attempt.key, UNASKED)
        with parking(context, attempt):
            _look_at(context, attempt, state, unwanted=attempt.run_id in unwanted)
    for attempt in left_behind:
        with guarded(context, f"attempt {attempt.key}"):
            _see_off(context, attempt, states.get(attempt.key, UNASKED))
    put_off(context, [a for a in live if states.get(a.key, UNASKED).kind is StateKind.PENDING])


def _poll(context: Context, attempts: Sequence[AttemptRecord]) -> dict[str, WorkerState]:
    """Asked even of nobody: the engine also delivers the kills that are due when it is polled."""
    handles = [Handle.from_json(attempt.handle) for attempt in attempts if attempt.handle is not None]
    try:
        return context.engine.poll(handles)
    except EngineError:
        return {}


def _look_at(context: Context, attempt: AttemptRecord, state: WorkerState, *, unwanted: bool) -> None:
    """Writes only where something is due."""
    if state.is_over:
        _bury(context, attempt, state)
    elif state.kind is StateKind.UNKNOWN:
        given_up = is_given_up(_held(attempt), context.limits.deadlines, judged_at(context))
        if given_up and not is_outdated(context):
            _declare_lost(context, attempt, state)
    elif unwanted or attempt.detail is not None:
        _cancel(context, attempt)
    elif state.kind is StateKind.RUNNING:
        missed = overdue(_held(attempt), context.limits.deadlines, judged_at(context))
        if missed is not None and _note(context, attempt, missed):
            _cancel(context, attempt)


def _held(attempt: AttemptRecord) -> Held:
    return Held(attempt.lease_expires_at, attempt.created_at, attempt.phase, attempt.progress_at)


def _note(context: Context, attempt: AttemptRecord, missed: Overdue) -> bool:
    """Writes down why the attempt has to end, before anything is done to it; False if it is heard by now.

    It stands in the row until the end: what its worker says on the way out does not tell why it went, and
    a service that comes up meanwhile goes on from here.
    """
    with context.database.write() as connection:
        current = runs.get_attempt(connection, attempt.id)
        if current is None or current.status is AttemptStatus.ENDED:
            return False
        if overdue(_held(current), context.limits.deadlines, judged_at(context)) is not missed:
            return False
        if is_outdated(context):  # asked last: the writers before this one may have taken their time
            return False
        text = _verdict(current, missed)
        reason = Reason.STALLED if missed is Overdue.STALLED else None
        runs.change_attempt(connection, attempt.id, reason=reason, detail=text)
        said = f"attempt {attempt.number}: {text}; it is ended, and its run goes on"
        journal.add_event(connection, missed, said, now=context.clock(), run_id=attempt.run_id)
    return True


def _verdict(attempt: AttemptRecord, missed: Overdue) -> str:
    if missed is Overdue.SILENT:
        out = f"{attempt.lease_expires_at:%H:%M:%S} UTC"
        return f"nothing was heard of its worker, and its lease ran out at {out}"
    since = attempt.progress_at or attempt.created_at
    return (
        f"its worker was heard, but had come no further than step {attempt.step} since {since:%H:%M:%S} UTC"
    )


def _cancel(context: Context, attempt: AttemptRecord) -> None:
    if attempt.handle is None:
        return
    what = f"cancelling attempt {attempt.key}"
    try:
        context.engine.cancel(Handle.from_json(attempt.handle), context.limits.cancel_grace_seconds)
    except EngineError as error:
        if is_news(context, what, error):
            with context.database.write() as connection:
                text = f"the engine could not cancel attempt {attempt.number}: {error.detail}"
                journal.add_event(connection, "engine", text, now=context.clock(), run_id=attempt.run_id)


def _see_off(context: Context, attempt: AttemptRecord, state: WorkerState) -> None:
    """An attempt that the service ended: its process is made to go, and its going is noted.

    An engine that did not answer says nothing of it: it is asked again at the next tick.
    """
    if state.is_over:
        code = state.code if state.code is not None else -1
        with context.database.write() as connection:
            runs.note_exit_code(connection, attempt.id, code)
    elif state.kind is not StateKind.UNKNOWN:
        _cancel(context, attempt)


def _declare_lost(context: Context, attempt: AttemptRecord, state: WorkerState) -> None:
    """Its slots stay held: the engine may find it again, and only then is it known to be over."""
    text = (
        f"the engine could not tell of its worker ({state.reason}) since its lease ran out at "
        f"{attempt.lease_expires_at:%H:%M:%S} UTC; its slots stay taken until it can"
    )
    backfill(context, attempt)
    with context.database.write() as connection:
        end_attempt(connection, context, attempt.id, code=None, lost=True, message=text, now=context.clock())
        said = f"attempt {attempt.number} is taken for lost: {text}"
        journal.add_event(connection, "lost", said, now=context.clock(), run_id=attempt.run_id)


def _bury(context: Context, attempt: AttemptRecord, state: WorkerState) -> None:
    record = read_exit(Path(attempt.directory))
    code = record.code if record is not None else state.code
    _cancel(context, attempt)  # however it went, it may have left children, and its slots are given away
    backfill(context, attempt)
    with context.database.write() as connection:
        end_attempt(
            connection,
            context,
            attempt.id,
            code=code,
            message=record.message if record is not None else _killed(state),
            lost=code is None,
            now=context.clock(),
        )
        if code is None:  # nothing is left of it: its slots need not wait for another look
            runs.note_exit_code(connection, attempt.id, -1)


def _killed(state: WorkerState) -> str:
    by_signal = state.code is not None and state.code < 0
    return f"the worker was killed: {state.reason or state.code}" if by_signal else ""


def read_exit(directory: Path) -> ExitRecord | None:
    """The worker's own account of its end, or None if it left none that can be read."""
    try:
        return ExitRecord.model_validate_json((directory / EXIT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
