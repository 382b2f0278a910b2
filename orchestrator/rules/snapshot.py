"""The rows that a plan is made from, as frozen values."""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.domain.lifecycle import ExperimentStatus, RunStatus, StageStatus
from orchestrator.rules.budget import Account


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
    begins: int = 0
    """Index of the stage in which it began, from step 0."""
    step: int = 0
    target_step: int = 0
    cost: float | None = None
    """Slot-seconds to its target, where a budget asks for it and they are known."""
    is_unpaid: bool = False
    """The budget ended it."""
    has_worker: bool = False
    """A worker is up for it; of a pending run, one that has been told to leave."""


@dataclass(frozen=True)
class StageRow:
    position: int
    name: str
    status: StageStatus
    steps: int = 0


@dataclass(frozen=True)
class WaitingView:
    """A variant that waits until the best of its sources is known."""

    id: int
    name: str
    stage: int
    sources: tuple[str, ...]
    runs: tuple[int, ...] = ()
    """Those of the sources, at the seeds of the stage that each source began in."""
    step: int = 0
    """Where they are compared: the end of the last stage that one of the sources began in."""
    behind: tuple[str, ...] = ()
    """Others that could come to the same config, and whose turn is before its own."""


@dataclass(frozen=True)
class ExperimentView:
    id: int
    status: ExperimentStatus
    slots_per_run: int
    stages: tuple[StageRow, ...]
    runs: tuple[RunView, ...]
    priority: int = 0
    held_slots: int = 0
    """Slots that its workers hold now."""
    waiting: tuple[WaitingView, ...] = ()
    """Variants whose base is not chosen yet, but for those around a winner, which the gate makes."""
    account: Account | None = None
    has_reference: bool = False
    """A stored curve stands in for a control that died."""
    is_held: bool = False

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
