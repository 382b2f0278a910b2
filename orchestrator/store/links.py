"""Runs of equal configs in other experiments, and what of them can be taken over."""

from sqlalchemy import Connection, insert, select

from orchestrator.store.records import RunRecord
from orchestrator.store.runs import runs_by_id
from orchestrator.store.tables import attempts, checkpoints, evaluations, experiments, points, runs, variants


def equal_run(connection: Connection, run: RunRecord, *, horizon: int, eval_every: int) -> RunRecord | None:
    """The run of another experiment with equal trainer, config, seed and schedule that has come furthest.

    One without a checkpoint is passed over: nothing can go on from it.
    """
    own = select(variants.c.config_hash, experiments.c.trainer).join(
        experiments, experiments.c.id == variants.c.experiment_id
    )
    config_hash, trainer = connection.execute(own.where(variants.c.id == run.variant_id)).one()
    query = (
        select(runs.c.id, checkpoints.c.step, experiments.c.spec)
        .join(variants, variants.c.id == runs.c.variant_id)
        .join(experiments, experiments.c.id == runs.c.experiment_id)
        .join(checkpoints, checkpoints.c.run_id == runs.c.id)
        .where(
            variants.c.config_hash == config_hash,
            experiments.c.trainer == trainer,
            runs.c.seed == run.seed,
            runs.c.experiment_id != run.experiment_id,
        )
        .order_by(checkpoints.c.step.desc(), runs.c.id)
    )
    for row in connection.execute(query):
        same = row.spec["eval_every"] == eval_every and row.spec["stages"][-1]["steps"] == horizon
        if same:
            return runs_by_id(connection, [row.id])[row.id]
    return None


def newest_checkpoint(connection: Connection, run_id: int, at_most: int) -> int:
    """The step of a run's newest checkpoint up to a step; 0 without one."""
    query = select(checkpoints.c.step).where(checkpoints.c.run_id == run_id, checkpoints.c.step <= at_most)
    return connection.execute(query.order_by(checkpoints.c.step.desc()).limit(1)).scalar_one_or_none() or 0


def copy_curve(
    connection: Connection, source: int, run_id: int, attempt_id: int, after: int, upto: int
) -> None:
    """What a run measured in `(after, upto]`, copied as if another run's attempt had reported it."""
    owner = {"run_id": run_id, "attempt_id": attempt_id}
    for table in (evaluations, points):
        inside = (table.c.run_id == source) & (table.c.step > after) & (table.c.step <= upto)
        query = select(table).where(inside, table.c.superseded.is_(False)).order_by(table.c.attempt_id)
        rows = [dict(row._mapping) | owner for row in connection.execute(query)]
        newest = {(row["step"], row.get("metric_id")): row for row in rows}
        if newest:
            connection.execute(insert(table), list(newest.values()))


def directories(connection: Connection, run_id: int) -> list[str]:
    """The folders of a run's attempts, newest first."""
    query = select(attempts.c.directory).where(attempts.c.run_id == run_id, attempts.c.directory != "")
    return list(connection.execute(query.order_by(attempts.c.number.desc())).scalars())


def seconds_per_step(connection: Connection, config_hash: str, tokens_per_step: int) -> float | None:
    """How long a step of this config took when it was last trained here; None when it never was."""
    query = (
        select(runs.c.tokens_per_second)
        .join(variants, variants.c.id == runs.c.variant_id)
        .where(variants.c.config_hash == config_hash, runs.c.tokens_per_second > 0)
        .order_by(runs.c.id.desc())
        .limit(1)
    )
    speed = connection.execute(query).scalar_one_or_none()
    return None if speed is None else tokens_per_step / speed
