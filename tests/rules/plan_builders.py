"""Snapshots in few words, for the tests of the plan."""

from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.domain.lifecycle import ExperimentStatus, RunStatus, StageStatus
from orchestrator.rules.plan import Action, plan
from orchestrator.rules.sharing import StartRun
from orchestrator.rules.snapshot import ExperimentView, RunView, Snapshot, StageRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PENDING, AT_GATE, STOPPED = RunStatus.PENDING, RunStatus.AT_GATE, RunStatus.STOPPED


def run(
    id_: int,
    status: RunStatus = PENDING,
    *,
    control: bool = False,
    stage: int = 0,
    not_before: datetime | None = None,
) -> RunView:
    return RunView(id_, "control" if control else f"v{id_}", control, status, stage, not_before)


def experiment(
    *runs: RunView,
    id_: int = 1,
    slots: int = 1,
    status: ExperimentStatus = ExperimentStatus.RUNNING,
    closed: int = 0,
    stages: int = 3,
) -> ExperimentView:
    """`closed` of its `stages` are closed; the next one is open."""
    state = [StageStatus.CLOSED] * closed + [StageStatus.RUNNING] + [StageStatus.WAITING] * stages
    rows = tuple(StageRow(position, f"stage-{position}", state[position]) for position in range(stages))
    return ExperimentView(id_, status, slots, rows, runs)


def snapshot(*experiments: ExperimentView, free: int = 0) -> Snapshot:
    return Snapshot(experiments, tuple(f"cpu:{index}" for index in range(free)), NOW)


def starts(actions: Sequence[Action]) -> list[int]:
    """The runs that are started, in order."""
    return [action.run_id for action in actions if isinstance(action, StartRun)]


def planned(*experiments: ExperimentView, free: int = 0) -> list[Action]:
    return plan(snapshot(*experiments, free=free))
