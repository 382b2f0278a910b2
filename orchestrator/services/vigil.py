"""Before anybody is judged: could they be heard? After a pause or a clock step every deadline begins anew."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from orchestrator.rules.leases import Look, unheard
from orchestrator.rules.retry import LONGEST_DELAY
from orchestrator.services.context import Context
from orchestrator.store import experiments, journal, runs
from orchestrator.store.clock import MEASURE_EVERY
from orchestrator.store.records import AttemptRecord

SETTLES_SECONDS = 2 * MEASURE_EVERY
"""So long after a pause or a clock step every service has looked at the database's clock again."""


def judged_at(context: Context) -> datetime:
    """The time by which every attempt of this tick is judged: when it looked, however long it takes.

    A tick that one attempt holds up condemns none of the others for it.
    """
    return context.clock() if context.watch.looked is None else context.watch.looked.wall


def is_outdated(context: Context) -> bool:
    """Whether so much has happened to the clocks since this tick looked that it may condemn nobody."""
    now = Look(context.clock(), context.monotonic())
    looked = context.watch.looked
    return looked is not None and unheard(looked, now, context.limits.lease) is not None


def keep_vigil(context: Context) -> None:
    """Notes that the service looks now. If nobody can have been heard since it did, all begin anew.

    While ticks keep failing each of them finds it so: it is said once, and progress is not put off again.
    """
    watch, now = context.watch, Look(context.clock(), context.monotonic())
    why = unheard(watch.looked, now, context.limits.lease)
    if why is not None:
        watch.unsettled_until = now.monotonic + SETTLES_SECONDS
        goes_on = watch.renewed is not None
        is_gap = not goes_on or unheard(watch.renewed, now, context.limits.lease) is not None
        with context.database.write() as connection:
            renewed = _begin_anew(connection, now.wall, context.limits.lease, is_gap=is_gap)
            if renewed and not goes_on:
                _say(connection, now.wall, why)
        watch.renewed = now
    elif _is_lagging(context, now):
        with context.database.write() as connection:
            _begin_anew(connection, now.wall, context.limits.lease, is_gap=True)
    watch.looked = now


def _is_lagging(context: Context, now: Look) -> bool:
    """Whether another service may still go by the time before a clock step: the leases of those that it hears
    meanwhile are too short or too long."""
    if context.database.is_sqlite or now.monotonic >= context.watch.unsettled_until:
        return False
    with context.database.read() as connection:
        return bool(runs.live_attempts(connection))


def note_whole_tick(context: Context) -> None:
    """A tick has gone well to its end: the next pause is another one."""
    context.watch.renewed = None


def _begin_anew(connection: Connection, now: datetime, lease: timedelta, *, is_gap: bool) -> bool:
    """Each live attempt has a whole lease from now on, and after a gap a whole deadline; False without any.

    Leases and back-offs that lie too far ahead, because the clock was set back, come nearer.
    """
    runs.hasten_retries(connection, now + LONGEST_DELAY)
    return runs.renew_leases(connection, now + lease, now if is_gap else None) > 0


def _say(connection: Connection, now: datetime, why: str) -> None:
    """To each experiment with live workers."""
    live = runs.live_attempts(connection)
    owners = runs.runs_by_id(connection, [attempt.run_id for attempt in live])
    for experiment_id, count in Counter(run.experiment_id for run in owners.values()).items():
        workers = "1 live worker has" if count == 1 else f"{count} live workers have"
        text = f"{why}: {workers} a whole lease again"
        journal.add_event(connection, "leases", text, now=now, experiment_id=experiment_id)


def tell_all(context: Context, kind: str, text: str) -> None:
    """An event in every experiment that has not ended."""
    with context.database.write() as connection:
        for experiment in experiments.open_experiments(connection):
            journal.add_event(connection, kind, text, now=context.clock(), experiment_id=experiment.id)


def put_off(context: Context, attempts: Sequence[AttemptRecord]) -> None:
    """Of attempts that cannot be heard yet: their deadlines begin anew where half of a lease is over."""
    now = context.clock()
    due = [a.id for a in attempts if a.lease_expires_at < now + context.limits.lease / 2]
    if due:
        with context.database.write() as connection:
            runs.put_off(connection, due, now + context.limits.lease, now)
