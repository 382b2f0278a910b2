"""References: stored curves that are not rerun. A row is never changed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from orchestrator.protocol.wire import JsonObject
from orchestrator.store.records import StoredCurveRow, fetch, fetch_one
from orchestrator.store.tables import stored_curves
from orchestrator.store.types import new_id

_CURVE = select(stored_curves).where(stored_curves.c.id == bindparam("id"))
_NAMED = (
    select(stored_curves)
    .where(stored_curves.c.name == bindparam("name"))
    .order_by(stored_curves.c.id.desc())
    .limit(1)
)


@dataclass(frozen=True)
class CurveHead:
    """A reference without its training losses: what a list shows."""

    id: int
    name: str
    description: str
    source: JsonObject
    identity: JsonObject | None
    evaluations: list[JsonObject]
    notes: list[str]
    content_hash: str
    created_at: datetime


def add_curve(connection: Connection, **values: Any) -> int:
    """The id of a new row; `values` are its columns."""
    return new_id(connection.execute(insert(stored_curves).values(**values)))


def get_curve(connection: Connection, id_: int) -> StoredCurveRow | None:
    return fetch_one(connection, _CURVE, StoredCurveRow, id=id_)


def named_curve(connection: Connection, name: str) -> StoredCurveRow | None:
    """The newest of this name."""
    return fetch_one(connection, _NAMED, StoredCurveRow, name=name)


def same_curve(connection: Connection, name: str, content_hash: str) -> int | None:
    """The id of the reference that has this name and this content, or None."""
    query = select(stored_curves.c.id).where(
        stored_curves.c.name == name, stored_curves.c.content_hash == content_hash
    )
    found: int | None = connection.execute(query.order_by(stored_curves.c.id).limit(1)).scalar_one_or_none()
    return found


def list_curves(
    connection: Connection, *, before: int | None = None, limit: int = 50, name: str | None = None
) -> list[CurveHead]:
    """Newest first, those with an id below `before`."""
    columns = [column for column in stored_curves.c if column.name != "train_loss"]
    query = select(*columns).order_by(stored_curves.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(stored_curves.c.id < before)
    if name is not None:
        query = query.where(stored_curves.c.name == name)
    return fetch(connection, query, CurveHead)


def curve_names(connection: Connection) -> list[str]:
    """Every name that a reference goes by, once."""
    query = select(stored_curves.c.name).distinct().order_by(stored_curves.c.name)
    return list(connection.execute(query).scalars())
