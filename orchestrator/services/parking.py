"""An attempt that raises whenever it is looked at: told once, and after a lease ended without being asked."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from orchestrator.domain.lifecycle import AttemptStatus, Reason, RunStatus
from orchestrator.services.context import Context
from orchestrator.services.ending import end_attempt, fail_run
from orchestrator.services.poison import guarded, is_news, is_passing, raises_since
from orchestrator.store import journal, runs
from orchestrator.store.records import AttemptRecord

log = logging.getLogger(__name__)


@contextmanager
def parking(context: Context, attempt: AttemptRecord) -> Iterator[None]:
    """What happens inside holds up no other attempt, and its own run not for ever. Raises `is_passing`."""
    what = f"attempt {attempt.key}"
    try:
        yield
    except Exception as error:
        if is_passing(error):
            raise
        with guarded(context, f"the end of {what}"):
            _deal_with(context, attempt, what, error)
    else:
        context.watch.raising.pop(what, None)


def _deal_with(context: Context, attempt: AttemptRecord, what: str, error: Exception) -> None:
    is_first = what not in context.watch.raising
    if is_news(context, what, error):
        log.error("%s could not be dealt with; every tick tries again", what, exc_info=error)
    why = f"{type(error).__name__}: {error}"
    if is_first:
        text = f"attempt {attempt.number} cannot be dealt with ({why}); every tick tries again"
        with context.database.write() as connection:
            journal.add_event(connection, "poison", text, now=context.clock(), run_id=attempt.run_id)
    if raises_since(context, what) > context.limits.lease.total_seconds():
        _end(context, attempt, why)
        del context.watch.raising[what]


def _end(context: Context, attempt: AttemptRecord, why: str) -> None:
    """By the retry rule, and if that is what raises, with its run failed.

    Its spool is left as it is. Its slots stay taken until its worker is seen to be gone.
    """
    with context.database.write() as connection:
        try:
            with connection.begin_nested():
                end_attempt(connection, context, attempt.id, code=None, engine_error=why, now=context.clock())
        except Exception as error:
            if is_passing(error):
                raise
            log.exception("the end of attempt %s raises, too: its run fails", attempt.key)
            _fail(connection, context, attempt, why)
    context.wake()


def _fail(connection: Connection, context: Context, attempt: AttemptRecord, why: str) -> None:
    """Nothing but rows is asked: whatever the experiment's documents say."""
    now, reason = context.clock(), Reason.ENGINE_ERROR
    ended = {"status": AttemptStatus.ENDED, "ended_at": now, "reason": reason, "detail": why}
    run = runs.get_run(connection, attempt.run_id)
    if not runs.change_attempt(connection, attempt.id, **ended) or run is None or run.epoch != attempt.epoch:
        return
    if run.status in {RunStatus.STARTING, RunStatus.RUNNING}:
        fail_run(connection, run, reason, why, now)
