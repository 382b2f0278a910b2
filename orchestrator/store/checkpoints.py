"""Checkpoints by many runs at once: what is on record as being on disk, and what is asked of it."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select, update

from orchestrator.store.records import CheckpointRow, RunRecord, fetch
from orchestrator.store.runs import runs_by_id
from orchestrator.store.tables import checkpoints, decisions, evaluations, runs
from orchestrator.store.types import FINITE


def crowded(connection: Connection, *, more_than: int, after: int, limit: int) -> list[int]:
    """Runs with an id above `after` that have more checkpoints on disk than that, in order."""
    query = select(checkpoints.c.run_id).where(
        checkpoints.c.removed_at.is_(None), checkpoints.c.run_id > after
    )
    query = query.group_by(checkpoints.c.run_id).having(func.count() > more_than)
    return list(connection.execute(query.order_by(checkpoints.c.run_id).limit(limit)).scalars())


def on_disk(connection: Connection, run_ids: Sequence[int]) -> dict[int, list[CheckpointRow]]:
    """Of each of these runs, the checkpoints that nobody has removed, ascending by step."""
    query = select(checkpoints).where(checkpoints.c.run_id.in_(run_ids), checkpoints.c.removed_at.is_(None))
    found: dict[int, list[CheckpointRow]] = {id_: [] for id_ in run_ids}
    for row in fetch(connection, query.order_by(checkpoints.c.step, checkpoints.c.id), CheckpointRow):
        found[row.run_id].append(row)
    return found


def removed(connection: Connection) -> list[CheckpointRow]:
    """Those that retention has marked."""
    query = select(checkpoints).where(checkpoints.c.removed_at.is_not(None)).order_by(checkpoints.c.id)
    return fetch(connection, query, CheckpointRow)


def mark_removed(connection: Connection, ids: Collection[int], now: datetime) -> None:
    """Of these nothing is gone on from any more, whether or not their files are gone yet."""
    query = update(checkpoints).where(checkpoints.c.id.in_(ids), checkpoints.c.removed_at.is_(None))
    connection.execute(query.values(removed_at=now))


def mark_damaged(connection: Connection, run_ids: Sequence[int], path: str, problem: str) -> bool:
    """Whether a checkpoint of these runs at `path` was not known as damaged and is from now on."""
    query = update(checkpoints).where(checkpoints.c.run_id.in_(run_ids), checkpoints.c.path == path)
    return connection.execute(query.where(checkpoints.c.damage.is_(None)).values(damage=problem)).rowcount > 0


def mark_sound(connection: Connection, checkpoint_id: int) -> None:
    """Takes back that a checkpoint is damaged."""
    connection.execute(update(checkpoints).where(checkpoints.c.id == checkpoint_id).values(damage=None))


def linked_to(connection: Connection, run_ids: Collection[int]) -> dict[int, list[RunRecord]]:
    """Of each of these runs, those that took it over, directly or through others; without any: left out."""
    found: dict[int, list[RunRecord]] = {}
    sources = {id_: {id_} for id_ in run_ids}  # of a run, whose checkpoints it may need
    while sources:
        query = select(runs.c.id, runs.c.linked_run_id).where(runs.c.linked_run_id.in_(sources))
        linked = {row.id: sources[row.linked_run_id] for row in connection.execute(query)}
        for run in runs_by_id(connection, list(linked)).values():
            for source in linked[run.id]:
                found.setdefault(source, []).append(run)
        sources = linked
    return found


def last_decided(connection: Connection, run_ids: Sequence[int]) -> dict[int, int]:
    """The step that the last decision on each of these runs names."""
    newest = select(func.max(decisions.c.id)).where(
        decisions.c.run_id.in_(run_ids), decisions.c.shadow.is_(False)
    )
    query = select(decisions.c.run_id, decisions.c.step)
    rows = connection.execute(query.where(decisions.c.id.in_(newest.group_by(decisions.c.run_id))))
    return {row.run_id: row.step for row in rows}


def losses(connection: Connection, run_id: int) -> dict[int, float]:
    """The finite eval losses that count of a run, by step."""
    query = select(evaluations.c.step, evaluations.c.eval_loss).where(
        evaluations.c.run_id == run_id,
        evaluations.c.superseded.is_(False),
        evaluations.c.eval_loss_kind == FINITE,
    )
    return {row.step: row.eval_loss for row in connection.execute(query)}
