"""The leader's row by the database's clock: who ticks, under which epoch, how long, and on which home.

PostgreSQL alone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Interval, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from orchestrator.store.tables import leaders
from orchestrator.store.types import UtcDateTime

TICK = "tick"
"""The one lead there is: whoever has it ticks."""


@dataclass(frozen=True)
class Place:
    """Where a service works: the files and the machine that a database's workers belong to."""

    home_id: str
    path: str
    host: str


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
    home_id: str | None = None
    """Of the home that this database works with; None: of none yet."""
    home_path: str | None = None
    host: str | None = None
    """The machine on which the last leader was."""


def read(connection: Connection) -> LeaderRecord | None:
    """Who leads, or None if nobody ever did."""
    query = select(
        leaders.c.holder,
        leaders.c.epoch,
        leaders.c.address,
        leaders.c.expires_at,
        (leaders.c.expires_at > _now()).label("is_live"),
        leaders.c.home_id,
        leaders.c.home_path,
        leaders.c.host,
    )
    row = connection.execute(query.where(leaders.c.name == TICK)).first()
    return None if row is None else LeaderRecord(*row)


def settle_in(connection: Connection, place: Place) -> None:
    """The first place that comes is where the database is at home; any other changes nothing."""
    first = insert(leaders).values(name=TICK, epoch=0, holder="", address="", expires_at=_now())
    connection.execute(first.on_conflict_do_nothing())
    homeless = update(leaders).where(leaders.c.name == TICK, leaders.c.home_id.is_(None))
    connection.execute(homeless.values(_columns(place)))


def move_out(connection: Connection) -> bool:
    """Whether the database is at home nowhere now, and the next place will be; False while one leads."""
    free = update(leaders).where(leaders.c.name == TICK, leaders.c.expires_at <= _now())
    connection.execute(free.values(home_id=None, home_path=None, host=None))
    found = read(connection)
    return found is None or not found.is_live


def take(connection: Connection, holder: str, address: str, lasts: timedelta, place: Place) -> Lead | None:
    """The lead under a new epoch, if there was none or its lease has run out, and the home is the database's.

    None while another's lease runs.
    """
    fresh = insert(leaders).values(
        name=TICK, epoch=1, holder=holder, address=address, expires_at=_in(lasts), **_columns(place)
    )
    taken = fresh.on_conflict_do_update(
        index_elements=[leaders.c.name],
        set_={
            "epoch": leaders.c.epoch + 1,
            "holder": fresh.excluded.holder,
            "address": fresh.excluded.address,
            "expires_at": fresh.excluded.expires_at,
            **_columns(place),
        },
        where=(leaders.c.expires_at <= _now())
        & or_(leaders.c.home_id.is_(None), leaders.c.home_id == place.home_id),
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


def _columns(place: Place) -> dict[str, str]:
    return {"home_id": place.home_id, "home_path": place.path, "host": place.host}


def _now() -> ColumnElement[datetime]:
    """Now, not the time at which the transaction began."""
    return func.clock_timestamp(type_=UtcDateTime())


def _in(lasts: timedelta) -> ColumnElement[datetime]:
    return _now() + literal(lasts, Interval())
