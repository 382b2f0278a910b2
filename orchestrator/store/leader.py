"""The leader's row by the database's clock: who ticks, under which epoch, how long. PostgreSQL alone."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Interval, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from orchestrator.store.tables import leaders
from orchestrator.store.types import UtcDateTime

TICK = "tick"
"""The one lead there is: whoever has it ticks."""


@dataclass(frozen=True)
class Lead:
    """A lead that was taken: it is over when another epoch stands in the row."""

    holder: str
    epoch: int


@dataclass(frozen=True)
class LeaderRecord:
    """The row, and whether its lease still runs."""

    holder: str
    epoch: int
    address: str
    expires_at: datetime
    is_live: bool


def read(connection: Connection) -> LeaderRecord | None:
    """Who leads, or None if nobody ever did."""
    query = select(
        leaders.c.holder,
        leaders.c.epoch,
        leaders.c.address,
        leaders.c.expires_at,
        (leaders.c.expires_at > _now()).label("is_live"),
    )
    row = connection.execute(query.where(leaders.c.name == TICK)).first()
    return None if row is None else LeaderRecord(*row)


def take(connection: Connection, holder: str, address: str, lasts: timedelta) -> Lead | None:
    """The lead under a new epoch, if there was none or its lease has run out; None while another's runs."""
    fresh = insert(leaders).values(name=TICK, epoch=1, holder=holder, address=address, expires_at=_in(lasts))
    taken = fresh.on_conflict_do_update(
        index_elements=[leaders.c.name],
        set_={
            "epoch": leaders.c.epoch + 1,
            "holder": fresh.excluded.holder,
            "address": fresh.excluded.address,
            "expires_at": fresh.excluded.expires_at,
        },
        where=leaders.c.expires_at <= _now(),
    )
    epoch = connection.execute(taken.returning(leaders.c.epoch)).scalar_one_or_none()
    return None if epoch is None else Lead(holder, epoch)


def renew(connection: Connection, lead: Lead, lasts: timedelta) -> bool:
    """Whether the lead still holds: its lease then runs anew, and nobody takes it before this commits."""
    renewed = update(leaders).where(*_is(lead)).values(expires_at=_in(lasts))
    return connection.execute(renewed).rowcount == 1


def holds(connection: Connection, lead: Lead) -> bool:
    """Whether the lead holds now; nothing is written."""
    query = select(leaders.c.epoch).where(*_is(lead))
    return connection.execute(query).first() is not None


def give_up(connection: Connection, lead: Lead) -> None:
    """Lets another take the lead at once. A lead that is over already stays as it is."""
    connection.execute(update(leaders).where(*_is(lead)).values(expires_at=_now()))


def _is(lead: Lead) -> tuple[ColumnElement[bool], ...]:
    return (
        leaders.c.name == TICK,
        leaders.c.holder == lead.holder,
        leaders.c.epoch == lead.epoch,
        leaders.c.expires_at > _now(),
    )


def _now() -> ColumnElement[datetime]:
    """Now, not the time at which the transaction began."""
    return func.clock_timestamp(type_=UtcDateTime())


def _in(lasts: timedelta) -> ColumnElement[datetime]:
    return _now() + literal(lasts, Interval())
