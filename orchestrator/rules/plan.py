"""What is to be done now, from rows alone: `plan(snapshot)` returns actions and does nothing itself.

Asked at every tick and after every report that could change the answer, it keeps no state between calls:
what it asked for and did not happen, it asks for again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.lifecycle import ExperimentStatus, RunStatus, StageStatus
from orchestrator.rules.placement import take_slots

BROKEN_OFF = frozenset({RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED})
"""Ended before the last stage's end."""


@dataclass(frozen=True)
class RunView:
    """A run as the plan sees it."""

    id: int
    variant: str
    is_control: bool
    status: RunStatus
    stage: int
    not_before: datetime | None = None
    """A back-off: not to be started earlier."""


@dataclass(frozen=True)
class StageRow:
    position: int
    name: str
    status: StageStatus


@dataclass(frozen=True)
class ExperimentView:
    id: int
    status: ExperimentStatus
    slots_per_run: int
    stages: tuple[StageRow, ...]
    runs: tuple[RunView, ...]

    @property
    def stage(self) -> StageRow | None:
        """The stage that is open, or None when all are closed."""
        return next((stage for stage in self.stages if stage.status is not StageStatus.CLOSED), None)


@dataclass(frozen=True)
class Snapshot:
    """Open experiments, oldest first, and the slots that no worker holds, in a fixed order."""

    experiments: tuple[ExperimentView, ...]
    free_slots: tuple[str, ...]
    now: datetime
    all_slots: int | None = None
    """Slots of the machine, if it is known: who wants more than there are waits for nobody's sake."""


@dataclass(frozen=True)
class StartRun:
    """Launch a worker for a pending run on these slots."""

    run_id: int
    slots: tuple[str, ...]


@dataclass(frozen=True)
class CloseStage:
    """Every run of the stage has settled: rank, promote, decline."""

    experiment_id: int
    position: int


@dataclass(frozen=True)
class EndExperiment:
    """Nothing is left to do in it."""

    experiment_id: int
    status: ExperimentStatus
    conclusion: str | None
    """None: the last stage says it."""


Action = StartRun | CloseStage | EndExperiment


def plan(snapshot: Snapshot) -> list[Action]:
    """Gates first, then starts: a gate may free or need slots. Equal snapshots give equal plans."""
    gates = [action for view in snapshot.experiments for action in _settle(view)]
    return [*gates, *_starts(snapshot)]


def _settle(view: ExperimentView) -> Iterator[Action]:
    stage = view.stage
    if view.status is ExperimentStatus.PAUSED:
        return
    if stage is None:
        yield EndExperiment(view.id, ExperimentStatus.SUCCEEDED, None)
        return
    last = stage.position == view.stages[-1].position
    entrants = [run for run in view.runs if run.stage == stage.position]
    settled = bool(entrants) and all(
        run.status is RunStatus.AT_GATE or run.status.is_terminal for run in entrants
    )
    if _control_is_gone(view, last=last) and not (last and settled):
        where = f"the {'end' if last else 'gate'} of {stage.name}"
        text = f"the control ended before {where}: there is nothing to judge the others against"
        yield EndExperiment(view.id, ExperimentStatus.FAILED, text)
    elif settled:
        yield CloseStage(view.id, stage.position)
    elif _nobody_is_left(view, stage):
        text = f"no_winner: every variant ended before the end of {stage.name}"
        yield EndExperiment(view.id, ExperimentStatus.SUCCEEDED, text)


def _control_is_gone(view: ExperimentView, *, last: bool) -> bool:
    """Whether no control run can come to the gates that are left; in the last stage, to its end."""
    statuses = [run.status for run in view.runs if run.is_control]
    return all(status in BROKEN_OFF or (status.is_terminal and not last) for status in statuses)


def _nobody_is_left(view: ExperimentView, stage: StageRow) -> bool:
    """Whether the control would train on for nobody: it goes as far as the furthest variant, no further."""
    others = [run for run in view.runs if not run.is_control and run.stage >= stage.position]
    return bool(others) and all(run.status in BROKEN_OFF for run in others)


def _starts(snapshot: Snapshot) -> Iterator[StartRun]:
    """Strictly in order: a run that needs more slots than are free is waited for, and so never starved."""
    free = snapshot.free_slots
    for view, run in _startable(snapshot):
        taken = take_slots(free, view.slots_per_run)
        if taken is None:
            return
        yield StartRun(run.id, taken)
        free = tuple(slot for slot in free if slot not in taken)


def _startable(snapshot: Snapshot) -> Iterator[tuple[ExperimentView, RunView]]:
    for view in snapshot.experiments:
        stage = view.stage
        too_large = snapshot.all_slots is not None and view.slots_per_run > snapshot.all_slots
        if view.status is not ExperimentStatus.RUNNING or stage is None or too_large:
            continue
        pending = [run for run in view.runs if _may_start(run, stage, snapshot.now)]
        for run in sorted(pending, key=lambda run: (not run.is_control, run.id)):
            yield view, run


def _may_start(run: RunView, stage: StageRow, now: datetime) -> bool:
    waits = run.not_before is not None and run.not_before > now
    return run.status is RunStatus.PENDING and run.stage <= stage.position and not waits


def wanted_slots(snapshot: Snapshot) -> int:
    """Slots that runs would take now if there were any: what a worker at a gate may have to yield to."""
    return sum(view.slots_per_run for view, _ in _startable(snapshot))
