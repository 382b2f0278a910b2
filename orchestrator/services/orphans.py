"""Workers that no row asks for, and records of workers that nobody will ask for again."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from orchestrator.domain.lifecycle import AttemptStatus
from orchestrator.engines.base import Handle
from orchestrator.services.context import Context
from orchestrator.store import journal, runs
from orchestrator.store.runs import Claimant

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
_AT_ONCE = 2500
"""Records dropped at one look: what a long life has left goes over several."""


def sweep(context: Context) -> None:
    """At a service's first tick and every minute: compares the engine's records with the rows.

    Raises `EngineError` when the engine does not answer; the next tick tries again.
    """
    now = context.monotonic()
    if context.watch.swept is not None and now - context.watch.swept < EVERY_SECONDS:
        return
    owned = context.engine.list_owned()
    with context.database.read() as connection:  # after the list: a key comes after its row
        known = runs.claimants(connection, [handle.key for handle in owned])
    _end_orphans(context, [h for h in owned if _is_unasked(context, known.get(h.key))], known)
    seen = [h for h in owned if h.key in known and known[h.key].exit_code is not None][:_AT_ONCE]
    if context.engine.forget([handle.key for handle in seen]) < len(seen):
        _end_left_behind(context, [h for h in seen if _is_unasked(context, known[h.key])], known)
    context.watch.swept = now


def _is_unasked(context: Context, row: Claimant | None) -> bool:
    """One that has told its end is given the time to leave."""
    if row is None:
        return True
    if row.status != AttemptStatus.ENDED or row.exit_code is None or row.ended_at is None:
        return False  # live, or the reaper sees to it
    return context.clock() > row.ended_at + timedelta(seconds=context.limits.cancel_grace_seconds)


def _end_orphans(context: Context, handles: Sequence[Handle], known: dict[str, Claimant]) -> None:
    states = context.engine.poll(handles)
    for handle in handles:
        if not states[handle.key].is_over and states[handle.key].kind != "unknown":
            context.engine.cancel(handle, context.limits.cancel_grace_seconds)
            row = known.get(handle.key)
            why = "no attempt is known by its key" if row is None else "its attempt has ended"
            text = f"a worker was running under {handle.key} that nothing asks for ({why}): it is ended"
            _say(context, handle.key, row, text)


def _end_left_behind(context: Context, handles: Sequence[Handle], known: dict[str, Claimant]) -> None:
    """A record that could not be dropped: its worker is over, and what it started is not."""
    states = context.engine.poll(handles)
    for handle in handles:
        if states[handle.key].is_over and context.engine.find(handle.key) is not None:
            context.engine.cancel(handle, context.limits.cancel_grace_seconds)
            text = (
                f"processes that the worker {handle.key} started were left when it had ended: they are ended"
            )
            _say(context, handle.key, known[handle.key], text)


def _say(context: Context, key: str, row: Claimant | None, text: str) -> None:
    """Once, though it may take its time to go."""
    if key in context.watch.orphans:
        return
    log.warning("%s", text)
    with context.database.write() as connection:
        run_id = None if row is None else row.run_id
        journal.add_event(connection, "orphan", text, now=context.clock(), run_id=run_id)
    context.watch.orphans.add(key)
