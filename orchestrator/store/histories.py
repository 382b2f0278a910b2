"""Curves read back: as they are now, or as they were when a certain attempt was the newest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import BindParameter, Connection, bindparam, select

from orchestrator.domain.curves import Curve
from orchestrator.protocol.report import Evaluation, Identity
from orchestrator.protocol.wire import JsonObject
from orchestrator.store.records import RunRecord
from orchestrator.store.tables import attempts, evaluations, metrics, points
from orchestrator.store.types import join_number

TRAIN_LOSS = "train_loss"

BROKEN = (
    "lost",
    "stalled",
    "crashed",
    "out_of_memory",
    "disk_full",
    "diverged",
    "checkpoint_error",
    "engine_error",
)
"""Reasons of an attempt's end after which the next attempt is a restart, and not a planned resumption."""

# Built once: putting a statement together costs more than SQLite takes to answer it.
_RUN_IDS: BindParameter[int] = bindparam("run_ids", expanding=True)
_LAUNCHES = (
    select(
        attempts.c.run_id,
        attempts.c.id,
        attempts.c.number,
        attempts.c.reason,
        attempts.c.resumed_from_step,
        attempts.c.identity,
    )
    .where(attempts.c.run_id.in_(_RUN_IDS))
    .order_by(attempts.c.run_id, attempts.c.number)
)
_EVALUATIONS = (
    select(evaluations.c.run_id, evaluations.c.attempt_id, evaluations.c.step, evaluations.c.body)
    .where(evaluations.c.run_id.in_(_RUN_IDS))
    .order_by(evaluations.c.step, evaluations.c.attempt_id)
)
_TRAIN_LOSSES = (
    select(points.c.run_id, points.c.attempt_id, points.c.step, points.c.value, points.c.kind)
    .join(metrics, metrics.c.id == points.c.metric_id)
    .where(points.c.run_id.in_(_RUN_IDS), metrics.c.name == TRAIN_LOSS)
    .order_by(points.c.run_id, points.c.step, points.c.attempt_id)
)


@dataclass(frozen=True)
class Launch:
    """What of an attempt bears upon the curve."""

    id: int
    number: int
    reason: str | None
    resumed_from_step: int | None
    identity: JsonObject | None


def load_curves(
    connection: Connection, chosen: Sequence[RunRecord], as_of: Mapping[int, int] | None = None
) -> dict[int, Curve]:
    """The curve of each run, by run id.

    With `as_of`, each run's curve as it was while that attempt was its newest: what later attempts reported
    is left out, and what they superseded is there again. So a decision can be made again from its inputs.
    """
    ids = [run.id for run in chosen]
    launches = _launches(connection, ids, as_of or {})
    kept = {id_: _kept(found) for id_, found in launches.items()}
    measured = _evaluations(connection, ids, kept)
    train = _train_losses(connection, ids, kept)
    return {
        run.id: Curve(
            run_id=run.id,
            variant=run.variant,
            seed=run.seed,
            is_control=run.is_control,
            identity=_identity(run, launches.get(run.id, [])),
            evaluations=tuple(measured.get(run.id, {}).values()),
            train_loss=tuple(train.get(run.id, {}).items()),
            restarts=tuple(_restarts(launches.get(run.id, []))),
        )
        for run in chosen
    }


def _launches(
    connection: Connection, run_ids: Sequence[int], as_of: Mapping[int, int]
) -> dict[int, list[Launch]]:
    found: dict[int, list[Launch]] = {}
    for row in connection.execute(_LAUNCHES, {"run_ids": list(run_ids)}):
        if row.run_id not in as_of or row.number <= as_of[row.run_id]:
            found.setdefault(row.run_id, []).append(Launch(*row[1:]))
    return found


def _kept(launches: Sequence[Launch]) -> dict[int, float]:
    """By attempt id, the last step of it that a newer attempt did not train again."""
    last = float("inf")
    kept: dict[int, float] = {}
    for launch in reversed(launches):
        kept[launch.id] = last
        if launch.resumed_from_step is not None:
            last = min(last, launch.resumed_from_step)
    return kept


def _evaluations(
    connection: Connection, run_ids: Sequence[int], kept: Mapping[int, Mapping[int, float]]
) -> dict[int, dict[int, Evaluation]]:
    found: dict[int, dict[int, Evaluation]] = {}
    for row in connection.execute(_EVALUATIONS, {"run_ids": list(run_ids)}):
        if row.step <= kept.get(row.run_id, {}).get(row.attempt_id, -1):
            found.setdefault(row.run_id, {})[row.step] = Evaluation.model_validate(row.body)
    return found


def _train_losses(
    connection: Connection, run_ids: Sequence[int], kept: Mapping[int, Mapping[int, float]]
) -> dict[int, dict[int, float]]:
    found: dict[int, dict[int, float]] = {}
    for row in connection.execute(_TRAIN_LOSSES, {"run_ids": list(run_ids)}):
        if row.step <= kept.get(row.run_id, {}).get(row.attempt_id, -1):
            found.setdefault(row.run_id, {})[row.step] = join_number(row.value, row.kind)
    return found


def _identity(run: RunRecord, launches: Iterable[Launch]) -> Identity | None:
    """The newest attempt's own; a run from before attempts kept theirs has its one for all."""
    told = [launch.identity for launch in launches if launch.identity is not None]
    newest = told[-1] if told else run.identity
    return None if newest is None else Identity.model_validate(newest)


def _restarts(launches: Sequence[Launch]) -> list[int]:
    """The step from which each attempt went on whose predecessor had broken."""
    return [
        launch.resumed_from_step
        for before, launch in pairwise(launches)
        if before.reason in BROKEN and launch.resumed_from_step is not None
    ]
