"""Errors that nobody foresaw, kept to the one thing that raises them: said once each, and tried again."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from orchestrator.domain.errors import Busy, NotLeading
from orchestrator.rules.snapshot import ExperimentView, Snapshot
from orchestrator.services.context import Context, Unsaid
from orchestrator.store import journal

log = logging.getLogger(__name__)

T = TypeVar("T")


def is_passing(error: Exception) -> bool:
    """Whether the fault is the database's or the lead's of this moment, and says nothing of the work."""
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, OperationalError | InterfaceError | Busy | NotLeading)


def is_news(context: Context, what: str, error: Exception) -> bool:
    """Whether `what` raised something else before, or nothing."""
    text = f"{type(error).__name__}: {error}"
    if context.watch.poison.get(what) == text:
        return False
    context.watch.poison[what] = text
    return True


@contextmanager
def guarded(context: Context, what: str) -> Iterator[None]:
    """What happens inside holds up nothing else: an error goes to the log, once while it stays the same.

    Raises what `is_passing`: the next tick does better than the rest of this one.
    """
    try:
        yield
    except Exception as error:
        if is_passing(error):
            raise
        if is_news(context, what, error):
            log.exception("%s could not be dealt with; every tick tries again", what)


def raises_since(context: Context, what: str) -> float:
    """For how many seconds `what` has raised whenever it was tried; 0.0 at the first time."""
    now = context.monotonic()
    return now - context.watch.raising.setdefault(what, now)


@contextmanager
def set_aside(context: Context, experiment_id: int) -> Iterator[None]:
    """The same of one experiment, whose events say so when `tell` is called."""
    try:
        yield
    except Exception as error:
        if is_passing(error):
            raise
        if is_news(context, f"experiment {experiment_id}", error):
            log.exception(
                "experiment %d cannot go on; the others do, and every tick tries again", experiment_id
            )
            why = f"{type(error).__name__}: {error}"
            text = f"it cannot go on ({why}); the others do, and every tick tries again"
            context.watch.unsaid.append(Unsaid(experiment_id, text))


def isolated(connection: Connection, context: Context, experiment_id: int, work: Callable[[], None]) -> bool:
    """Whether the work on one experiment was done: if it raises, what it wrote is undone, and that is all."""
    is_done = False
    with set_aside(context, experiment_id):
        with connection.begin_nested():
            work()
        is_done = True
    tell(connection, context)
    return is_done


def tell(connection: Connection, context: Context) -> None:
    """Writes the events of what was set aside; each is forgotten once a later transaction finds it stored."""
    here, kept = connection.get_transaction(), []
    for one in context.watch.unsaid:
        is_stored = journal.last_event(connection, one.experiment_id, "poison") == one.text
        if not is_stored:
            now = context.clock()
            journal.add_event(connection, "poison", one.text, now=now, experiment_id=one.experiment_id)
            one = replace(one, written_in=here)
        if one.written_in is here:
            kept.append(one)
    context.watch.unsaid[:] = kept


def of_sound(context: Context, snapshot: Snapshot, make: Callable[[Snapshot], list[T]]) -> list[T]:
    """What `make` says of the snapshot; if it raises, of the experiments of which it can say something."""
    try:
        return make(snapshot)
    except Exception:  # whose fault it is, each alone will tell
        return make(replace(snapshot, experiments=_sound(context, snapshot, make)))


def _sound(
    context: Context, snapshot: Snapshot, make: Callable[[Snapshot], list[T]]
) -> tuple[ExperimentView, ...]:
    sound = []
    for view in snapshot.experiments:
        with set_aside(context, view.id):
            make(replace(snapshot, experiments=(view,)))
            sound.append(view)
    return tuple(sound)
