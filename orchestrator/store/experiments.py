"""Experiments with their stages and variants."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from orchestrator.domain.lifecycle import ExperimentStatus, StageStatus
from orchestrator.store.records import ExperimentRecord, StageRecord, VariantRecord, fetch, fetch_one
from orchestrator.store.tables import experiments, idempotency, stages, variants
from orchestrator.store.types import new_id

OPEN = (ExperimentStatus.RUNNING, ExperimentStatus.PAUSED)

# Built once: putting a statement together costs more than SQLite takes to answer it.
_EXPERIMENT = select(experiments).where(experiments.c.id == bindparam("id"))
_OPEN = select(experiments).where(experiments.c.status.in_(OPEN)).order_by(experiments.c.id)
_STAGES = (
    select(stages)
    .where(stages.c.experiment_id.in_(bindparam("ids", expanding=True)))
    .order_by(stages.c.experiment_id, stages.c.position)
)


def add_experiment(connection: Connection, **values: Any) -> int:
    """The id of a new row; `values` are its columns."""
    return new_id(connection.execute(insert(experiments).values(**values)))


def add_stage(connection: Connection, **values: Any) -> int:
    return new_id(connection.execute(insert(stages).values(**values)))


def add_variant(connection: Connection, **values: Any) -> int:
    return new_id(connection.execute(insert(variants).values(**values)))


def get_experiment(connection: Connection, id_: int) -> ExperimentRecord | None:
    return fetch_one(connection, _EXPERIMENT, ExperimentRecord, id=id_)


def list_experiments(
    connection: Connection,
    *,
    before: int | None = None,
    limit: int = 50,
    status: str | None = None,
    name: str | None = None,
) -> list[ExperimentRecord]:
    """Newest first, those with an id below `before`."""
    query = select(experiments).order_by(experiments.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(experiments.c.id < before)
    if status:
        query = query.where(experiments.c.status == status)
    if name:
        query = query.where(experiments.c.name == name)
    return fetch(connection, query, ExperimentRecord)


def open_experiments(connection: Connection) -> list[ExperimentRecord]:
    """Those that have not ended, oldest first."""
    return fetch(connection, _OPEN, ExperimentRecord)


def end_experiment(
    connection: Connection, id_: int, *, status: ExperimentStatus, conclusion: str, now: datetime
) -> bool:
    """Whether this call ended it: False if it had ended before."""
    query = update(experiments).where(experiments.c.id == id_, experiments.c.status.in_(OPEN))
    done = connection.execute(query.values(status=status, conclusion=conclusion, ended_at=now))
    return done.rowcount == 1


def set_experiment_status(connection: Connection, id_: int, status: ExperimentStatus) -> None:
    change_experiment(connection, id_, status=status)


def change_experiment(connection: Connection, id_: int, **values: Any) -> None:
    """Sets columns of an experiment."""
    connection.execute(update(experiments).where(experiments.c.id == id_).values(**values))


def get_stages(connection: Connection, experiment_ids: Sequence[int]) -> list[StageRecord]:
    """By experiment and position."""
    return fetch(connection, _STAGES, StageRecord, ids=list(experiment_ids))


def set_stage_status(connection: Connection, id_: int, status: StageStatus) -> None:
    connection.execute(update(stages).where(stages.c.id == id_).values(status=status))


def close_stage(connection: Connection, id_: int, *, conclusion: str, now: datetime) -> bool:
    """Whether this call closed it: False if it was closed before."""
    query = update(stages).where(stages.c.id == id_, stages.c.status != StageStatus.CLOSED)
    done = connection.execute(query.values(status=StageStatus.CLOSED, conclusion=conclusion, closed_at=now))
    return done.rowcount == 1


def get_variants(connection: Connection, experiment_id: int) -> list[VariantRecord]:
    """In the order they were named."""
    query = select(variants).where(variants.c.experiment_id == experiment_id).order_by(variants.c.id)
    return fetch(connection, query, VariantRecord)


def get_variant(connection: Connection, id_: int) -> VariantRecord | None:
    return fetch_one(connection, select(variants).where(variants.c.id == id_), VariantRecord)


def remember_key(
    connection: Connection, *, key: str, body_sha256: str, experiment_id: int, now: datetime
) -> None:
    """Ties an idempotency key to what it created."""
    values = {"key": key, "body_sha256": body_sha256, "experiment_id": experiment_id, "created_at": now}
    connection.execute(insert(idempotency).values(**values))


def recall_key(connection: Connection, key: str) -> tuple[str, int] | None:
    """(hash of the body, experiment id) that the key created, or None."""
    query = select(idempotency.c.body_sha256, idempotency.c.experiment_id).where(idempotency.c.key == key)
    row = connection.execute(query).first()
    return None if row is None else (row[0], row[1])
