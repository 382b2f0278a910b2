"""Checkpoints that nothing can ask for any more are removed: rows -> rules.retention -> marked, then deleted.

Marked first: a crash between the two leaves a folder too many, which `assay doctor` finds, and never a row
that promises what is gone. A worker prunes the directory of its own attempt; here are those that ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.domain.lifecycle import AttemptStatus, StageStatus
from orchestrator.rules.retention import SPARE, Needs, Stored, may_go
from orchestrator.services.checkpoint_files import damage_of, is_at_home, remove
from orchestrator.services.context import Context
from orchestrator.services.ending import GOOD_WITHIN
from orchestrator.services.lookup import need_experiment
from orchestrator.services.protocol import protocol_of
from orchestrator.store import checkpoints, experiments, journal, runs
from orchestrator.store.records import AttemptRecord, CheckpointRow, ExperimentRecord, RunRecord

EVERY_SECONDS = 60.0
NEXT_SECONDS = 5.0
RUNS_AT_ONCE = 25
"""A round begins about once a minute and looks at so many runs every few seconds: no tick waits for long."""


def retain(context: Context) -> None:
    """From time to time: removes what may go of some runs' checkpoints, with an event for each run."""
    now, watch = context.monotonic(), context.watch
    pause = NEXT_SECONDS if watch.retained_upto else EVERY_SECONDS
    if watch.retained is not None and now - watch.retained < pause:
        return
    watch.retained = now
    with context.database.read() as connection:
        ids = checkpoints.crowded(connection, more_than=SPARE, after=watch.retained_upto, limit=RUNS_AT_ONCE)
        found = load(connection, ids)
    watch.retained_upto = ids[-1] if len(ids) == RUNS_AT_ONCE else 0
    for run in found:
        retain_run(context, run)


@dataclass(frozen=True)
class RunFiles:
    """A run, what its rows say is on disk, and who else may go on from it."""

    run: RunRecord
    attempts: Mapping[int, AttemptRecord]
    rows: Sequence[CheckpointRow]
    """Ascending by step."""
    linked: Sequence[tuple[RunRecord, tuple[int, ...]]]
    """Runs that took it over, with the steps at which they still wait."""
    decided_at: int | None
    waits: tuple[int, ...]
    """Steps of the gates and points that are open, and its own target."""
    is_read: bool
    """A worker that has not reported yet may be reading any of them: nothing goes."""

    def is_at_home(self, row: CheckpointRow) -> bool:
        """A trainer may keep its checkpoints elsewhere; those are its own affair."""
        return is_at_home(self.attempts[row.attempt_id].directory, row.step, row.path)

    def needs(self, good: int | None) -> Needs:
        """What may still be asked of them. `good` is where a divergence would go back to."""
        return Needs(
            waits=self.waits,
            decided_at=self.decided_at if self.run.status.is_terminal else None,
            at_most=self.run.resume_at_most,
            good=good,
            linked=tuple(step for run, waits in self.linked for step in _asked_by(run, waits)),
        )


def _asked_by(run: RunRecord, waits: Sequence[int]) -> list[int]:
    """Up to which steps a run goes on from the one it took over: now, and at each later gate."""
    now = run.step if run.resume_at_most is None else run.resume_at_most
    return [now] if run.status.is_terminal else [now, *(step for step in waits if step > now)]


def load(connection: Connection, run_ids: Sequence[int]) -> list[RunFiles]:
    """These runs with everything that the rule asks of them."""
    found = runs.runs_by_id(connection, run_ids)
    linked = checkpoints.linked_to(connection, run_ids)
    everyone = {*run_ids, *(run.id for others in linked.values() for run in others)}
    tried = runs.attempts_by_run(connection, sorted(everyone))
    rows = checkpoints.on_disk(connection, run_ids)
    decided = checkpoints.last_decided(connection, run_ids)
    of = _Experiments(connection)
    return [
        RunFiles(
            run=run,
            attempts={attempt.id: attempt for attempt in tried.get(run.id, [])},
            rows=rows[run.id],
            linked=[(other, of.open_waits(other)) for other in linked.get(run.id, [])],
            decided_at=decided.get(run.id),
            waits=of.open_waits(run),
            is_read=any(
                _is_starting(attempt)
                for owner in (run, *linked.get(run.id, []))
                for attempt in tried.get(owner.id, [])
            ),
        )
        for run in found.values()
    ]


def _is_starting(attempt: AttemptRecord) -> bool:
    return attempt.status is not AttemptStatus.ENDED and attempt.resumed_from_step is None


class _Experiments:
    """Experiments and where their runs still wait, each read once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._experiments: dict[int, ExperimentRecord] = {}
        self._waits: dict[int, tuple[int, ...]] = {}

    def open_waits(self, run: RunRecord) -> tuple[int, ...]:
        """Steps of the gates and points of stages that are open, and the run's own target."""
        if run.experiment_id not in self._experiments:
            self._experiments[run.experiment_id] = need_experiment(self._connection, run.experiment_id)
        experiment = self._experiments[run.experiment_id]
        if experiment.status.is_terminal:
            return ()
        if experiment.id not in self._waits:
            stages = experiments.get_stages(self._connection, [experiment.id])
            closed = max((s.steps for s in stages if s.status is StageStatus.CLOSED), default=0)
            self._waits[experiment.id] = tuple(w for w in protocol_of(experiment).waits if w > closed)
        return (*self._waits[experiment.id], run.target_step)


Disk = Mapping[int, bool]
"""By the id of its row, each checkpoint that is on disk, and whether its files have the sizes they should."""


def look(files: RunFiles) -> Disk:
    """Reads the disk, manifests and sizes alone."""
    there = [row for row in files.rows if files.is_at_home(row) and Path(row.path).is_dir()]
    return {row.id: row.damage is None and damage_of(Path(row.path), hashes=False) is None for row in there}


def pruned(files: RunFiles, disk: Disk) -> list[CheckpointRow]:
    """Those that their own worker has removed: gone, while it has a newer one and no gate asks for it."""
    newest = {row.attempt_id: row.step for row in files.rows if row.id in disk}
    return [
        row
        for row in files.rows
        if row.id not in disk and files.is_at_home(row)
        if row.step < newest.get(row.attempt_id, 0) and row.step not in files.waits
    ]


def going(files: RunFiles, disk: Disk, good: int | None) -> list[CheckpointRow]:
    """Those that may be removed here: the directory of a live attempt is its worker's own."""
    rows = {row.id: row for row in files.rows if row.id in disk}
    stored = [
        Stored(row.id, row.step, files.attempts[row.attempt_id].number, disk[row.id]) for row in rows.values()
    ]
    found = [] if files.is_read else [rows[one.id] for one in may_go(stored, files.needs(good))]
    return [row for row in found if files.attempts[row.attempt_id].status is AttemptStatus.ENDED]


def retain_run(context: Context, files: RunFiles) -> None:
    """Marks what may go of a run's checkpoints, says so, and then deletes it.

    The disk is looked at outside the transaction; what the run needs is read again inside it.
    """
    disk = look(files)
    gone = [row.id for row in pruned(files, disk)]
    if not (gone or going(files, disk, None)):
        return
    with context.database.write() as connection:
        files = load(connection, [files.run.id])[0]
        doomed = going(files, disk, _good_step(connection, files, disk))
        checkpoints.mark_removed(connection, [*gone, *(row.id for row in doomed)], context.clock())
        if doomed:
            text = _text(files, doomed)
            journal.add_event(connection, "retention", text, now=context.clock(), run_id=files.run.id)
    for row in doomed:
        remove(context.home, Path(row.path))


def _good_step(connection: Connection, files: RunFiles, disk: Disk) -> int | None:
    """The newest checkpoint at which the loss was near its best: a divergence is gone back from to there."""
    if files.run.status.is_terminal:
        return None
    measured = checkpoints.losses(connection, files.run.id)
    best = min(measured.values(), default=0.0)
    steps = [row.step for row in files.rows if disk.get(row.id) and row.step in measured]
    return max((step for step in steps if measured[step] <= best + GOOD_WITHIN), default=None)


def _text(files: RunFiles, doomed: Sequence[CheckpointRow]) -> str:
    by_attempt: dict[int, list[str]] = {}
    for row in doomed:
        by_attempt.setdefault(files.attempts[row.attempt_id].number, []).append(str(row.step))
    each = "; ".join(f"of attempt {number}: {', '.join(steps)}" for number, steps in by_attempt.items())
    size = sum(row.size_bytes for row in doomed) / 2**20
    return f"checkpoints that no gate and no retry can need any more were removed ({size:.1f} MiB): {each}"
