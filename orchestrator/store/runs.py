"""Runs, their attempts and their checkpoints."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Update, bindparam, func, insert, select, update

from orchestrator.domain.errors import IllegalTransition
from orchestrator.domain.lifecycle import AttemptStatus, ExperimentStatus, RunStatus, move
from orchestrator.store.records import AttemptRecord, CheckpointRow, RunRecord, fetch, fetch_one
from orchestrator.store.tables import attempts, checkpoints, experiments, runs, variants
from orchestrator.store.types import new_id

TERMINAL = tuple(status for status in RunStatus if status.is_terminal)


def _runs() -> Select[Any]:
    joined = runs.join(variants, runs.c.variant_id == variants.c.id)
    also = variants.c.name.label("variant"), variants.c.is_control, variants.c.stage.label("variant_stage")
    return select(runs, *also).select_from(joined)


# Built once: putting a statement together costs more than SQLite takes to answer it.
_RUN = _runs().where(runs.c.id == bindparam("id"))
_RUNS_OF = _runs().where(runs.c.experiment_id.in_(bindparam("ids", expanding=True))).order_by(runs.c.id)
_RUNS_BY_ID = _runs().where(runs.c.id.in_(bindparam("ids", expanding=True)))
_ATTEMPT = select(attempts).where(attempts.c.id == bindparam("id"))
_ATTEMPTS_OF = select(attempts).where(attempts.c.run_id == bindparam("run_id")).order_by(attempts.c.number)
LIVE = tuple(status for status in AttemptStatus if status is not AttemptStatus.ENDED)
# By `in`, not `!=`: of 10,000 ended attempts the index then leads past each.
_LIVE = select(attempts).where(attempts.c.status.in_(LIVE)).order_by(attempts.c.id)
_HELD = select(attempts.c.run_id, attempts.c.slots).where(attempts.c.status.in_(LIVE))
_LIVE_OF = (
    select(attempts)
    .where(attempts.c.run_id == bindparam("run_id"), attempts.c.status != AttemptStatus.ENDED)
    .order_by(attempts.c.number.desc())
    .limit(1)
)
_UNSEEN = (
    select(attempts)
    .where(
        attempts.c.status == AttemptStatus.ENDED,
        attempts.c.exit_code.is_(None),
        attempts.c.handle.is_not(None),
    )
    .order_by(attempts.c.id)
)
_LEFT = _UNSEEN.with_only_columns(attempts.c.slots)
_INTENTS = select(attempts).where(attempts.c.status == AttemptStatus.INTENT).order_by(attempts.c.id)
_CANCELLED = (
    select(runs.c.id)
    .join(attempts, attempts.c.run_id == runs.c.id)
    .where(attempts.c.status.in_(LIVE), runs.c.status == RunStatus.CANCELLED)
)
_CHECKPOINT_AT = select(checkpoints.c.id).where(
    checkpoints.c.attempt_id == bindparam("of_attempt"), checkpoints.c.step == bindparam("of_step")
)
_PENDING = (
    select(runs.c.id)
    .join(experiments, experiments.c.id == runs.c.experiment_id)
    .where(experiments.c.status == ExperimentStatus.RUNNING, runs.c.status == RunStatus.PENDING)
    .limit(1)
)
_AT_ONCE = 500
"""Values in one `IN`: databases have a bound."""


def add_run(connection: Connection, **values: Any) -> int:
    """The id of a new row; `values` are its columns."""
    return new_id(connection.execute(insert(runs).values(**values)))


def get_run(connection: Connection, id_: int) -> RunRecord | None:
    return fetch_one(connection, _RUN, RunRecord, id=id_)


def runs_of(connection: Connection, experiment_ids: Sequence[int]) -> list[RunRecord]:
    """Every run of these experiments, in the order they were planned."""
    return fetch(connection, _RUNS_OF, RunRecord, ids=list(experiment_ids))


def runs_by_id(connection: Connection, ids: Sequence[int]) -> dict[int, RunRecord]:
    """Those of these runs that there are."""
    return {run.id: run for run in fetch(connection, _RUNS_BY_ID, RunRecord, ids=list(ids))}


def change_run(connection: Connection, run: RunRecord, **values: Any) -> None:
    """Sets columns of a run, guarded by the status it was read with.

    Raises `IllegalTransition` when the new status may not follow, or when the row has changed meanwhile.
    """
    if "status" in values:
        values["status"] = move(run.status, values["status"])
    new = {f"new_{name}": value for name, value in values.items()}
    query = _change_run(tuple(values))
    if connection.execute(query, {"of_id": run.id, "of_status": run.status, **new}).rowcount != 1:
        raise IllegalTransition(f"run {run.id} is no longer {run.status}")


@lru_cache(maxsize=256)
def _change_run(names: tuple[str, ...]) -> Update:
    """Built once for the same columns: each report changes its run."""
    same = runs.c.id == bindparam("of_id"), runs.c.status == bindparam("of_status")
    return update(runs).where(*same).values({name: bindparam(f"new_{name}") for name in names})


@lru_cache(maxsize=256)
def _change_attempt(names: tuple[str, ...]) -> Update:
    open_ = attempts.c.id == bindparam("of_id"), attempts.c.status != AttemptStatus.ENDED
    return update(attempts).where(*open_).values({name: bindparam(f"new_{name}") for name in names})


def reopen_run(connection: Connection, run: RunRecord, **values: Any) -> None:
    """Takes a stopped run up again: a person's decision, the one way out of a terminal status.

    It is pending unless `values` has another status.
    """
    query = update(runs).where(runs.c.id == run.id, runs.c.status == run.status)
    opened = {"status": RunStatus.PENDING, "reason": None, "detail": None, "ended_at": None}
    connection.execute(query.values(**(opened | values)))


def add_attempt(connection: Connection, **values: Any) -> int:
    return new_id(connection.execute(insert(attempts).values(**values)))


def get_attempt(connection: Connection, id_: int) -> AttemptRecord | None:
    return fetch_one(connection, _ATTEMPT, AttemptRecord, id=id_)


def attempts_of(connection: Connection, run_id: int) -> list[AttemptRecord]:
    """Oldest first."""
    return fetch(connection, _ATTEMPTS_OF, AttemptRecord, run_id=run_id)


def attempts_by_run(connection: Connection, run_ids: Sequence[int]) -> dict[int, list[AttemptRecord]]:
    """The attempts of each run, oldest first; a run without any is left out."""
    query = (
        select(attempts).where(attempts.c.run_id.in_(run_ids)).order_by(attempts.c.run_id, attempts.c.number)
    )
    found: dict[int, list[AttemptRecord]] = {}
    for attempt in fetch(connection, query, AttemptRecord):
        found.setdefault(attempt.run_id, []).append(attempt)
    return found


def count_attempts(connection: Connection, run_ids: Sequence[int]) -> dict[int, int]:
    """Attempts of each run; a run without any is left out."""
    query = select(attempts.c.run_id, func.count()).where(attempts.c.run_id.in_(run_ids))
    return {int(row[0]): int(row[1]) for row in connection.execute(query.group_by(attempts.c.run_id))}


def live_attempts(connection: Connection) -> list[AttemptRecord]:
    """Attempts that have not ended: each holds its slots."""
    return fetch(connection, _LIVE, AttemptRecord)


def held_slots(connection: Connection) -> tuple[dict[int, list[str]], list[str]]:
    """Slots held by live attempts, by run; and those of ended ones whose worker nobody has seen go."""
    live: dict[int, list[str]] = {}
    for run_id, slots in connection.execute(_HELD):
        live.setdefault(run_id, []).extend(slots)
    return live, [slot for slots in connection.execute(_LEFT).scalars() for slot in slots]


def any_pending(connection: Connection) -> bool:
    """Whether a run of an experiment that goes on has yet to start."""
    return connection.execute(_PENDING).first() is not None


def live_attempt_of(connection: Connection, run_id: int) -> AttemptRecord | None:
    return fetch_one(connection, _LIVE_OF, AttemptRecord, run_id=run_id)


def count_ends(connection: Connection, run_id: int, reason: str) -> int:
    """How many attempts of the run ended for this reason."""
    query = select(func.count()).where(attempts.c.run_id == run_id, attempts.c.reason == reason)
    return int(connection.execute(query).scalar_one())


def change_attempt(connection: Connection, id_: int, **values: Any) -> bool:
    """Whether the attempt was still open; columns of an ended one are never changed."""
    new = {f"new_{name}": value for name, value in values.items()}
    return connection.execute(_change_attempt(tuple(values)), {"of_id": id_, **new}).rowcount == 1


def unseen_ends(connection: Connection) -> list[AttemptRecord]:
    """Attempts that the service ended while their worker may still be there: nobody saw it exit."""
    return fetch(connection, _UNSEEN, AttemptRecord)


def note_exit_code(connection: Connection, id_: int, code: int) -> None:
    """How the worker of an ended attempt was seen to end."""
    query = update(attempts).where(attempts.c.id == id_, attempts.c.exit_code.is_(None))
    connection.execute(query.values(exit_code=code))


def renew_leases(connection: Connection, expires_at: datetime, now: datetime | None) -> int:
    """Every open attempt holds its lease until then, and its progress counts from `now`, or from when it did
    if that is None; how many there are.

    A lease that lay further ahead, before the clock was set back, is made shorter.
    """
    query = update(attempts).where(attempts.c.status.in_(LIVE))
    progress = {} if now is None else {"progress_at": now}
    return connection.execute(query.values(lease_expires_at=expires_at, **progress)).rowcount


def put_off(connection: Connection, ids: Sequence[int], expires_at: datetime, now: datetime) -> None:
    """The same for these attempts alone: they wait for a start, and cannot be heard before it."""
    query = update(attempts).where(attempts.c.id.in_(ids), attempts.c.status.in_(LIVE))
    connection.execute(query.values(lease_expires_at=expires_at, progress_at=now))


def hasten_retries(connection: Connection, latest: datetime) -> None:
    """No pending run waits for longer than until then: the clock was set back under its back-off."""
    query = update(runs).where(runs.c.status == RunStatus.PENDING, runs.c.not_before > latest)
    connection.execute(query.values(not_before=latest))


def intents(connection: Connection) -> list[AttemptRecord]:
    """Attempts that no engine has confirmed yet."""
    return fetch(connection, _INTENTS, AttemptRecord)


def cancelled_with_worker(connection: Connection) -> set[int]:
    """Cancelled runs whose attempt has not ended."""
    return set(connection.execute(_CANCELLED).scalars())


class Claimant(NamedTuple):
    """The attempt that a worker's key belongs to."""

    key: str
    run_id: int
    status: str
    exit_code: int | None
    ended_at: datetime | None


def claimants(connection: Connection, keys: Sequence[str]) -> dict[str, Claimant]:
    """The attempt of each key, for those that there are."""
    columns = (attempts.c[name] for name in Claimant._fields)
    query = select(*columns).where(attempts.c.key.in_(bindparam("keys", expanding=True)))
    found: dict[str, Claimant] = {}
    for start in range(0, len(keys), _AT_ONCE):
        rows = connection.execute(query, {"keys": list(keys[start : start + _AT_ONCE])})
        found |= {row.key: Claimant(*row) for row in rows}
    return found


def every_attempt(connection: Connection) -> list[AttemptRecord]:
    """All that there ever were, oldest first: for a look at everything."""
    return fetch(connection, select(attempts).order_by(attempts.c.id), AttemptRecord)


def add_checkpoint(connection: Connection, **values: Any) -> None:
    """Records a checkpoint; the same attempt and step again is left as it was."""
    same = {"of_attempt": values["attempt_id"], "of_step": values["step"]}
    if connection.execute(_CHECKPOINT_AT, same).first() is None:
        connection.execute(insert(checkpoints), values)


def checkpoints_of(connection: Connection, run_id: int) -> list[CheckpointRow]:
    """Those of the run that it can go on from, ascending by step: neither damaged nor removed."""
    query = select(checkpoints).where(
        checkpoints.c.run_id == run_id, checkpoints.c.damage.is_(None), checkpoints.c.removed_at.is_(None)
    )
    return fetch(connection, query.order_by(checkpoints.c.step, checkpoints.c.id), CheckpointRow)
