"""Runs of equal configs in other experiments, and what of them can be taken over."""

from sqlalchemy import Connection, func, insert, select

from orchestrator.domain.lifecycle import Reason
from orchestrator.store.records import RunRecord
from orchestrator.store.runs import attempts_of, get_run, runs_by_id
from orchestrator.store.tables import attempts, checkpoints, evaluations, experiments, points, runs, variants


def equal_run(connection: Connection, run: RunRecord, *, horizon: int, eval_every: int) -> RunRecord | None:
    """The run of another experiment with equal trainer, config, seed and schedule that has come furthest.

    One is passed over that diverged, or that has no checkpoint up to the run's target: nothing can go on
    from it.
    """
    equal = _equal_runs(connection, run, horizon=horizon, eval_every=eval_every)
    found = [source for source in equal if newest_checkpoint(connection, source.id, run.target_step)]
    return max(found, key=lambda source: (newest_checkpoint(connection, source.id), -source.id), default=None)


def _equal_runs(connection: Connection, run: RunRecord, *, horizon: int, eval_every: int) -> list[RunRecord]:
    own = select(variants.c.config_hash, experiments.c.trainer).join(
        experiments, experiments.c.id == variants.c.experiment_id
    )
    config_hash, trainer = connection.execute(own.where(variants.c.id == run.variant_id)).one()
    query = (
        select(runs.c.id, experiments.c.spec)
        .join(variants, variants.c.id == runs.c.variant_id)
        .join(experiments, experiments.c.id == runs.c.experiment_id)
        .where(
            variants.c.config_hash == config_hash,
            experiments.c.trainer == trainer,
            runs.c.seed == run.seed,
            runs.c.experiment_id != run.experiment_id,
        )
    )
    same = [
        row.id
        for row in connection.execute(query)
        if row.spec["eval_every"] == eval_every and row.spec["stages"][-1]["steps"] == horizon
    ]
    return [found for found in runs_by_id(connection, same).values() if found.reason != Reason.DIVERGED]


def chain(connection: Connection, run_id: int) -> list[RunRecord]:
    """A run, the run that it took over a curve from, the one which that took over from, and so on."""
    found: list[RunRecord] = []
    following: int | None = run_id
    while following is not None and (run := get_run(connection, following)) is not None:
        found.append(run)
        following = run.linked_run_id
    return found


def newest_checkpoint(connection: Connection, run_id: int, at_most: int | None = None) -> int:
    """The step of the newest checkpoint that a run can go on from, up to a step; 0 without one.

    The checkpoints before those that it wrote itself are in the folders of the runs that it took over.
    """
    linked = chain(connection, run_id)
    if not linked:
        return 0
    most = linked[0].step if at_most is None else min(at_most, linked[0].step)
    query = select(func.max(checkpoints.c.step)).where(checkpoints.c.run_id.in_([run.id for run in linked]))
    query = query.where(checkpoints.c.damage.is_(None), checkpoints.c.removed_at.is_(None))
    return connection.execute(query.where(checkpoints.c.step <= most)).scalar_one() or 0


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


def newest_directory(connection: Connection, run_id: int, at_most: int) -> str | None:
    """The folder of the attempt that has the newest checkpoint to go on from, up to a step; None without."""
    owners = [run.id for run in chain(connection, run_id)]
    query = select(attempts.c.directory).join(checkpoints, checkpoints.c.attempt_id == attempts.c.id)
    query = query.where(checkpoints.c.run_id.in_(owners), checkpoints.c.step <= at_most)
    query = query.where(checkpoints.c.damage.is_(None), checkpoints.c.removed_at.is_(None))
    newest_first = query.order_by(checkpoints.c.step.desc(), checkpoints.c.id.desc())
    return connection.execute(newest_first.limit(1)).scalar_one_or_none()


def directories(connection: Connection, run_id: int) -> list[str]:
    """The folders of a run's attempts, newest first, and then those of the runs that it took over."""
    return [
        attempt.directory
        for run in chain(connection, run_id)
        for attempt in reversed(attempts_of(connection, run.id))
        if attempt.directory
    ]


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
