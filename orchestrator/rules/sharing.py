"""Who gets the free slots: by priority, then the experiment that holds fewest, then the oldest."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.lifecycle import ExperimentStatus, RunStatus
from orchestrator.rules.budget import Account
from orchestrator.rules.placement import take_slots
from orchestrator.rules.snapshot import ExperimentView, RunView, Snapshot


@dataclass(frozen=True)
class StartRun:
    """Launch a worker for a pending run on these slots."""

    run_id: int
    slots: tuple[str, ...]


@dataclass
class Queue:
    """The runs of one experiment that want a slot, and what it holds so far."""

    view: ExperimentView
    runs: list[RunView]
    held: int
    account: Account | None

    @property
    def turn(self) -> tuple[int, int, int]:
        """The smallest is served next."""
        return -self.view.priority, self.held, self.view.id

    def take(self) -> RunView | None:
        """The next run that the budget can pay for; those that it cannot are passed over.

        Nobody passes the control: without it at the gate the others would be paid for in vain.
        """
        while self.runs:
            run = self.runs.pop(0)
            if self.account is None or self.account.can_pay(run.cost):
                return run
            if run.is_control:
                break
        return None

    def promise(self, run: RunView) -> None:
        self.held += self.view.slots_per_run
        if self.account is not None:
            self.account = self.account.promise(run.cost)


def starts(snapshot: Snapshot) -> Iterator[StartRun]:
    """Strictly in turn: a run that needs more slots than are free is waited for, and so never starved."""
    free = snapshot.free_slots
    for queue, run in _in_turn(snapshot):
        taken = take_slots(free, queue.view.slots_per_run)
        if taken is None:
            return
        yield StartRun(run.id, taken)
        free = tuple(slot for slot in free if slot not in taken)


def wanted_slots(snapshot: Snapshot) -> int:
    """Slots that runs would take now if there were any: what a worker at a gate may have to yield to."""
    return sum(queue.view.slots_per_run for queue, _ in _in_turn(snapshot))


def _in_turn(snapshot: Snapshot) -> Iterator[tuple[Queue, RunView]]:
    """Every run that may start, in the order in which slots are given out."""
    queues = [queue for view in snapshot.experiments if (queue := _queue(view, snapshot)) is not None]
    while queues:
        queue = min(queues, key=lambda q: q.turn)
        run = queue.take()
        if run is None:
            queues.remove(queue)
            continue
        queue.promise(run)
        yield queue, run


def _queue(view: ExperimentView, snapshot: Snapshot) -> Queue | None:
    too_large = snapshot.all_slots is not None and view.slots_per_run > snapshot.all_slots
    exhausted = view.account is not None and view.account.is_exhausted
    if view.status is not ExperimentStatus.RUNNING or view.stage is None or too_large or exhausted:
        return None
    pending = [run for run in view.runs if _may_start(run, view, snapshot.now)]
    ordered = sorted(pending, key=lambda run: (not run.is_control, run.id))
    return Queue(view, ordered, view.held_slots, view.account)


def _may_start(run: RunView, view: ExperimentView, now: datetime) -> bool:
    """A run of the open stage, or one that went on early and has the steps of the stage before."""
    stage = view.stage
    waits = run.not_before is not None and run.not_before > now
    if run.status is not RunStatus.PENDING or run.has_worker or waits or stage is None:
        return False
    return run.stage <= stage.position or run.step >= view.stages[run.stage - 1].steps > 0
