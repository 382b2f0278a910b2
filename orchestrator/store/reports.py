"""What workers report: the keys that make it idempotent, evaluations, points, and curves read back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Executable, Select, Table, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.domain.errors import Conflict
from orchestrator.domain.lifecycle import AttemptStatus, RunStatus
from orchestrator.protocol.report import Evaluation, Point
from orchestrator.protocol.wire import JsonObject
from orchestrator.store.records import AttemptRecord, RunRecord
from orchestrator.store.tables import attempts, evaluations, metrics, points, reports, runs, variants
from orchestrator.store.types import join_number, new_id, split_number

TRAIN_LOSS = "train_loss"
ROWS_AT_ONCE = 500

Number = tuple[float, int]
"""A value and its kind."""
PointKey = tuple[int, int]
"""A metric's id and a step."""


@dataclass(frozen=True)
class Standing:
    """An attempt with its run, and what is stored under the sequence that was asked for."""

    attempt: AttemptRecord
    run: RunRecord
    newest: int
    """The highest sequence that is stored of the attempt; 0 when there is none."""
    body_sha256: bytes | None


_COUNTED = {"preserve_rowcount": True}  # else the row count of an insert is lost on PostgreSQL
_OF_ATTEMPT = len(fields(AttemptRecord))
_ATTEMPT_STATUS, _RUN_STATUS = (
    [field.name for field in fields(record)].index("status") for record in (AttemptRecord, RunRecord)
)


def _standing() -> Select[Any]:
    """The columns of both records in the order of their fields, then what `Standing` adds."""
    of_variant = {
        "variant": variants.c.name,
        "variant_stage": variants.c.stage,
        "is_control": variants.c.is_control,
    }
    columns = [attempts.c[field.name] for field in fields(AttemptRecord)]
    columns += [
        of_variant[field.name] if field.name in of_variant else runs.c[field.name]
        for field in fields(RunRecord)
    ]
    stored = select(reports.c.body_sha256).where(
        reports.c.attempt_id == attempts.c.id, reports.c.sequence == bindparam("sequence")
    )
    newest = select(func.max(reports.c.sequence)).where(reports.c.attempt_id == attempts.c.id)
    query = select(*columns, newest.scalar_subquery().label("newest"), stored.scalar_subquery().label("hash"))
    query = query.join_from(attempts, runs, runs.c.id == attempts.c.run_id)
    query = query.join(variants, variants.c.id == runs.c.variant_id)
    return query.where(attempts.c.id == bindparam("attempt_id"))


def _once(table: Table) -> Mapping[str, Executable]:
    """By dialect, the insert that leaves a row alone whose key is there; its row count tells."""
    made = (sqlite.insert(table), postgresql.insert(table))
    names = ("sqlite", "postgresql")
    told = [insert.on_conflict_do_nothing().execution_options(**_COUNTED) for insert in made]
    return dict(zip(names, told, strict=True))


# Built once: putting a statement together costs more than SQLite takes to answer it.
_STANDING = _standing()
_ADD_EVALUATION = _once(evaluations)
_ADD_REPORT = insert(reports)
_METRICS = select(metrics.c.name, metrics.c.id).where(metrics.c.name.in_(bindparam("names", expanding=True)))
_RENEW = (
    update(attempts)
    .where(attempts.c.id == bindparam("attempt_id"), attempts.c.status != AttemptStatus.ENDED)
    .values({name: bindparam(f"new_{name}") for name in ("acknowledged", "step", "phase", "progress_at")})
    .values(lease_expires_at=bindparam("new_lease"))
)


def standing(connection: Connection, attempt_id: int, sequence: int = 0) -> Standing | None:
    """The attempt, its run and what is stored under `sequence`, in one query; None without the attempt."""
    keys = {"attempt_id": attempt_id, "sequence": sequence}
    row = connection.execute(_STANDING, keys).first()
    if row is None:
        return None
    of_attempt, of_run = list(row[:_OF_ATTEMPT]), list(row[_OF_ATTEMPT:-2])
    of_attempt[_ATTEMPT_STATUS] = AttemptStatus(of_attempt[_ATTEMPT_STATUS])
    of_run[_RUN_STATUS] = RunStatus(of_run[_RUN_STATUS])
    return Standing(AttemptRecord(*of_attempt), RunRecord(*of_run), row.newest or 0, row.hash)


def renew(connection: Connection, attempt: AttemptRecord) -> None:
    """Writes what a report or a heartbeat changes of a live attempt: how far it is, its phase and lease."""
    values = {
        "attempt_id": attempt.id,
        "new_acknowledged": attempt.acknowledged,
        "new_step": attempt.step,
        "new_phase": attempt.phase,
        "new_progress_at": attempt.progress_at,
        "new_lease": attempt.lease_expires_at,
    }
    connection.execute(_RENEW, values)


def report_hash(connection: Connection, attempt_id: int, sequence: int) -> bytes | None:
    """The hash of the report that is stored under this key, or None."""
    query = select(reports.c.body_sha256).where(
        reports.c.attempt_id == attempt_id, reports.c.sequence == sequence
    )
    return connection.execute(query).scalar_one_or_none()


def add_report(
    connection: Connection,
    attempt_id: int,
    sequence: int,
    body_sha256: bytes,
    held: JsonObject | None = None,
) -> None:
    """`held` is what a report that came early would do: it waits for those before it."""
    values = {"attempt_id": attempt_id, "sequence": sequence, "body_sha256": body_sha256, "held": held}
    connection.execute(_ADD_REPORT, values)


def held_after(connection: Connection, attempt_id: int, known: int) -> list[tuple[int, JsonObject | None]]:
    """(sequence, what it holds) of the stored reports that follow `known` without a gap."""
    query = select(reports.c.sequence, reports.c.held).where(
        reports.c.attempt_id == attempt_id, reports.c.sequence > known
    )
    found: list[tuple[int, JsonObject | None]] = []
    for sequence, held in connection.execute(query.order_by(reports.c.sequence)):
        if sequence != known + 1 + len(found):
            break
        found.append((sequence, held))
    return found


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
) -> bool:
    """Whether it is new. Raises `Conflict` when the attempt has reported another for the same step."""
    loss, kind = split_number(evaluation.eval_loss)
    values = {
        "run_id": run_id,
        "attempt_id": attempt_id,
        "step": evaluation.step,
        "tokens": evaluation.tokens,
        "eval_loss": loss,
        "eval_loss_kind": kind,
        "body": evaluation.model_dump(mode="json"),
        "superseded": False,
        "created_at": now,
        "sequence": sequence,
    }
    if connection.execute(_ADD_EVALUATION[connection.dialect.name], values).rowcount == 1:
        return True
    stored = stored_evaluation(connection, attempt_id, evaluation.step)
    if stored is None or stored.model_dump_json() != evaluation.model_dump_json():
        raise Conflict(f"another evaluation of step {evaluation.step} is stored for this attempt")
    return False


def evaluations_between(connection: Connection, attempt_id: int, after: int, upto: int) -> list[Evaluation]:
    """What an attempt reported under sequences above `after`, up to and with `upto`, ascending by step."""
    query = select(evaluations.c.body).where(
        evaluations.c.attempt_id == attempt_id,
        evaluations.c.sequence > after,
        evaluations.c.sequence <= upto,
    )
    bodies = connection.execute(query.order_by(evaluations.c.step)).scalars()
    return [Evaluation.model_validate(body) for body in bodies]


def add_points(
    connection: Connection,
    *,
    run_id: int,
    attempt_id: int,
    batch: Sequence[Point],
    ids: dict[str, int] | None = None,
) -> None:
    """Stores the points that are not stored yet: of two values of one point the first stays.

    `ids` are those of metrics that are known to be stored; what is looked up or made is added. Raises
    `Conflict`, with the others stored, when there is another value of a point here or in the rows.
    """
    if not batch:
        return
    ids = {} if ids is None else ids
    _learn(connection, sorted({point.name for point in batch} - ids.keys()), ids)
    told: dict[PointKey, Number] = {}
    refused: list[str] = []
    for point in batch:
        number = split_number(point.value)
        if told.setdefault((ids[point.name], point.step), number) != number:
            refused.append(f"one report holds two values of {point.name} for step {point.step}")
    add = _add_on_sqlite if connection.dialect.name == "sqlite" else _add_on_postgres
    if add(connection, run_id, attempt_id, told) < len(told):
        names = {id_: name for name, id_ in ids.items()}
        for (metric, step), number in _known_points(connection, run_id, attempt_id, told).items():
            if told.get((metric, step), number) != number:
                refused.append(f"another value of {names[metric]} is stored for step {step} of this attempt")
    if refused:
        rest = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise Conflict(refused[0] + rest)


def _add_on_sqlite(
    connection: Connection, run_id: int, attempt_id: int, told: Mapping[PointKey, Number]
) -> int:
    """How many were new. One statement for many rows: the driver lets other threads in at each statement."""
    rows, added = list(told.items()), 0
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[first : first + ROWS_AT_ONCE]
        values = [
            part
            for (metric, step), (value, kind) in some
            for part in (run_id, metric, attempt_id, step, value, kind)
        ]
        statement = _points_on_sqlite(len(some))
        added += connection.exec_driver_sql(statement, tuple(values), _COUNTED).rowcount
    return added


@lru_cache(maxsize=ROWS_AT_ONCE)
def _points_on_sqlite(count: int) -> str:
    rows = ", ".join(["(?, ?, ?, ?, ?, ?, 0)"] * count)
    columns = "run_id, metric_id, attempt_id, step, value, kind, superseded"
    return f"INSERT INTO points ({columns}) VALUES {rows} ON CONFLICT DO NOTHING"  # noqa: S608 - question marks alone


_POINTS_ON_POSTGRES = (
    "INSERT INTO points (run_id, metric_id, attempt_id, step, value, kind, superseded) "
    "SELECT %s, metric, %s, step, value, kind, false FROM "
    "unnest(%s::text::bigint[], %s::text::bigint[], %s::text::float8[], %s::text::smallint[])"
    " AS told (metric, step, value, kind) "
    "ON CONFLICT DO NOTHING"
)


def _add_on_postgres(
    connection: Connection, run_id: int, attempt_id: int, told: Mapping[PointKey, Number]
) -> int:
    """How many were new. The arrays as text: the driver takes ten times as long to make one."""
    keys, numbers = zip(*told, strict=True), zip(*told.values(), strict=True)
    columns = ["{" + ",".join(map(repr, column)) + "}" for column in (*keys, *numbers)]
    values = (run_id, attempt_id, *columns)
    return connection.exec_driver_sql(_POINTS_ON_POSTGRES, values, _COUNTED).rowcount


def _known_points(
    connection: Connection, run_id: int, attempt_id: int, keys: Iterable[PointKey]
) -> dict[PointKey, Number]:
    wanted = list(keys)
    steps = [step for _, step in wanted]
    query = select(points.c.metric_id, points.c.step, points.c.value, points.c.kind).where(
        points.c.run_id == run_id,
        points.c.attempt_id == attempt_id,
        points.c.metric_id.in_({metric for metric, _ in wanted}),
        points.c.step.between(min(steps), max(steps)),
    )
    return {(row.metric_id, row.step): (row.value, row.kind) for row in connection.execute(query)}


def _learn(connection: Connection, names: Sequence[str], ids: dict[str, int]) -> None:
    """Adds the id of each metric, made on first sight."""
    if not names:
        return
    ids |= {str(row[0]): int(row[1]) for row in connection.execute(_METRICS, {"names": list(names)})}
    for name in names:
        if name not in ids:
            ids[name] = new_id(connection.execute(insert(metrics).values(name=name)))


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
