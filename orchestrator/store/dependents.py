"""Variants that wait for a result, and what became of them."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, insert, select, update

from orchestrator.store.records import DependentRow, fetch
from orchestrator.store.tables import dependents
from orchestrator.store.types import new_id

Status = Literal["waiting", "resolved", "dropped"]

_OF = (
    select(dependents)
    .where(dependents.c.experiment_id.in_(bindparam("ids", expanding=True)))
    .order_by(dependents.c.id)
)


def add_dependent(connection: Connection, **values: Any) -> int:
    """The id of a new row, which waits; `values` are its other columns."""
    return new_id(connection.execute(insert(dependents).values(status="waiting", **values)))


def dependents_of(connection: Connection, experiment_ids: Sequence[int]) -> list[DependentRow]:
    """In the plan's order, whatever became of them."""
    return fetch(connection, _OF, DependentRow, ids=list(experiment_ids))


def settle_dependent(
    connection: Connection, id_: int, status: Status, detail: str, variant_id: int | None = None
) -> bool:
    """Whether this call settled it: False if it no longer waited."""
    query = update(dependents).where(dependents.c.id == id_, dependents.c.status == "waiting")
    values = {"status": status, "detail": detail, "variant_id": variant_id}
    return connection.execute(query.values(**values)).rowcount == 1
