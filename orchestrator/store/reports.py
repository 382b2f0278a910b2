"""What workers report: the keys that make it idempotent, evaluations, points, and curves read back."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from orchestrator.domain.errors import Conflict
from orchestrator.protocol.report import Evaluation, Point
from orchestrator.store.tables import attempts, evaluations, metrics, points, reports
from orchestrator.store.types import join_number, new_id, split_number

TRAIN_LOSS = "train_loss"


def report_hash(connection: Connection, attempt_id: int, sequence: int) -> bytes | None:
    """The hash of the report that is stored under this key, or None."""
    query = select(reports.c.body_sha256).where(
        reports.c.attempt_id == attempt_id, reports.c.sequence == sequence
    )
    return connection.execute(query).scalar_one_or_none()


def add_report(connection: Connection, attempt_id: int, sequence: int, body_sha256: bytes) -> None:
    values = {"attempt_id": attempt_id, "sequence": sequence, "body_sha256": body_sha256}
    connection.execute(insert(reports).values(**values))


def acknowledged(connection: Connection, attempt_id: int, known: int) -> int:
    """The highest sequence up to which every report is stored, given that all up to `known` are."""
    query = select(reports.c.sequence).where(reports.c.attempt_id == attempt_id, reports.c.sequence > known)
    for sequence in connection.execute(query.order_by(reports.c.sequence)).scalars():
        if sequence != known + 1:
            break
        known = sequence
    return known


def stored_evaluation(connection: Connection, attempt_id: int, step: int) -> Evaluation | None:
    """What this attempt reported at `step`, or None."""
    query = select(evaluations.c.body).where(
        evaluations.c.attempt_id == attempt_id, evaluations.c.step == step
    )
    body = connection.execute(query).scalar_one_or_none()
    return None if body is None else Evaluation.model_validate(body)


def add_evaluation(
    connection: Connection,
    *,
    run_id: int,
    attempt_id: int,
    evaluation: Evaluation,
    sequence: int | None = None,
    now: datetime,
) -> None:
    loss, kind = split_number(evaluation.eval_loss)
    connection.execute(
        insert(evaluations).values(
            run_id=run_id,
            attempt_id=attempt_id,
            step=evaluation.step,
            tokens=evaluation.tokens,
            eval_loss=loss,
            eval_loss_kind=kind,
            body=evaluation.model_dump(mode="json"),
            superseded=False,
            created_at=now,
            sequence=sequence,
        )
    )


def evaluations_between(connection: Connection, attempt_id: int, after: int, upto: int) -> list[Evaluation]:
    """What an attempt reported under sequences above `after`, up to and with `upto`, ascending by step."""
    query = select(evaluations.c.body).where(
        evaluations.c.attempt_id == attempt_id,
        evaluations.c.sequence > after,
        evaluations.c.sequence <= upto,
    )
    bodies = connection.execute(query.order_by(evaluations.c.step)).scalars()
    return [Evaluation.model_validate(body) for body in bodies]


def add_points(connection: Connection, *, run_id: int, attempt_id: int, batch: Sequence[Point]) -> None:
    """Stores the points that are not stored yet.

    Raises `Conflict` when the attempt has reported another value for the same step and name.
    """
    if not batch:
        return
    ids = metric_ids(connection, sorted({point.name for point in batch}))
    fresh: dict[tuple[int, int], tuple[float, int]] = {}
    for point in batch:
        number = split_number(point.value)
        if fresh.setdefault((ids[point.name], point.step), number) != number:
            raise Conflict(f"one report holds two values of {point.name} for step {point.step}")
    for key, number in _known_points(connection, run_id, attempt_id, fresh).items():
        if fresh.pop(key, number) != number:
            raise Conflict(f"another value is stored for step {key[1]} of this attempt's series")
    if fresh:
        shared = {"run_id": run_id, "attempt_id": attempt_id, "superseded": False}
        rows = [
            {"metric_id": metric, "step": step, "value": value, "kind": kind, **shared}
            for (metric, step), (value, kind) in fresh.items()
        ]
        connection.execute(insert(points), rows)


def _known_points(
    connection: Connection, run_id: int, attempt_id: int, keys: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], tuple[float, int]]:
    wanted = list(keys)
    steps = [step for _, step in wanted]
    query = select(points.c.metric_id, points.c.step, points.c.value, points.c.kind).where(
        points.c.run_id == run_id,
        points.c.attempt_id == attempt_id,
        points.c.metric_id.in_({metric for metric, _ in wanted}),
        points.c.step.between(min(steps), max(steps)),
    )
    return {(row.metric_id, row.step): (row.value, row.kind) for row in connection.execute(query)}


def metric_ids(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """The id of each metric, made on first sight."""
    query = select(metrics.c.name, metrics.c.id).where(metrics.c.name.in_(names))
    ids = {str(row[0]): int(row[1]) for row in connection.execute(query)}
    for name in names:
        if name not in ids:
            ids[name] = new_id(connection.execute(insert(metrics).values(name=name)))
    return ids


def supersede(connection: Connection, *, run_id: int, attempt_id: int, after_step: int) -> None:
    """Hides what older attempts of the run reported past the step that this one resumed from. All is kept."""
    for table in (evaluations, points):
        older = (table.c.run_id == run_id) & (table.c.attempt_id < attempt_id) & (table.c.step > after_step)
        connection.execute(update(table).where(older).values(superseded=True))


def load_evaluations(
    connection: Connection, run_ids: Sequence[int]
) -> dict[int, list[tuple[Evaluation, int]]]:
    """For each run its evaluations with the attempt's number, ascending by step, superseded ones left out."""
    query = select(evaluations.c.run_id, attempts.c.number, evaluations.c.body)
    query = query.join(attempts, attempts.c.id == evaluations.c.attempt_id)
    query = query.where(evaluations.c.run_id.in_(run_ids), evaluations.c.superseded.is_(False))
    found: dict[int, dict[int, tuple[Evaluation, int]]] = {id_: {} for id_ in run_ids}
    for row in connection.execute(query.order_by(evaluations.c.step, evaluations.c.attempt_id)):
        evaluation = Evaluation.model_validate(row.body)
        found[row.run_id][evaluation.step] = (evaluation, row.number)
    return {id_: list(by_step.values()) for id_, by_step in found.items()}


def load_series(connection: Connection, run_id: int, name: str) -> list[tuple[int, float]]:
    """(step, value) ascending, superseded points left out; the newest attempt's value where two remain."""
    query = select(points.c.step, points.c.value, points.c.kind).join(
        metrics, metrics.c.id == points.c.metric_id
    )
    query = query.where(points.c.run_id == run_id, metrics.c.name == name, points.c.superseded.is_(False))
    rows = connection.execute(query.order_by(points.c.step, points.c.attempt_id))
    return list({row.step: (int(row.step), join_number(row.value, row.kind)) for row in rows}.values())


def series_names(connection: Connection, run_id: int) -> list[str]:
    """The names that `load_series` knows for this run."""
    query = select(metrics.c.name).join(points, points.c.metric_id == metrics.c.id)
    query = query.where(points.c.run_id == run_id).distinct().order_by(metrics.c.name)
    return list(connection.execute(query).scalars())
