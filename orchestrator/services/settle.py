"""Gates and ends that are due: applied at ticks, and in the transaction of the report that makes them due."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.lifecycle import ExperimentStatus, Reason
from orchestrator.rules.placement import free_slots
from orchestrator.rules.plan import (
    Action,
    CloseStage,
    EndExperiment,
    ExperimentView,
    RunView,
    Snapshot,
    StageRow,
    StartRun,
    plan,
)
from orchestrator.services.context import Context
from orchestrator.services.promote import close, end_experiment
from orchestrator.store import experiments, runs
from orchestrator.store.records import ExperimentRecord, RunRecord, StageRecord


def settle(connection: Connection, context: Context) -> None:
    """Applies every gate and every end that is due, until none is: one may open the next."""
    while True:
        due = [a for a in plan(load_snapshot(connection, context)) if not isinstance(a, StartRun)]
        if not due:
            return
        for action in due:
            _apply(connection, action, context.clock())


def _apply(connection: Connection, action: Action, now: datetime) -> None:
    if isinstance(action, CloseStage):
        close(connection, action.experiment_id, action.position, now)
    elif isinstance(action, EndExperiment):
        experiment = experiments.get_experiment(connection, action.experiment_id)
        if experiment is not None:
            conclusion = action.conclusion or experiment.conclusion or ""
            succeeded = action.status is ExperimentStatus.SUCCEEDED
            reason = Reason.FINISHED if succeeded else Reason.CONTROL_FAILED
            end_experiment(connection, experiment, action.status, conclusion, now, reason)


def load_snapshot(connection: Connection, context: Context) -> Snapshot:
    """The rows that the plan is made from."""
    found = experiments.open_experiments(connection)
    ids = [experiment.id for experiment in found]
    stages = experiments.get_stages(connection, ids)
    every_run = runs.runs_of(connection, ids)
    holders = [*runs.live_attempts(connection), *runs.unseen_ends(connection)]
    held = [slot for attempt in holders for slot in attempt.slots]
    there = [slot.id for slot in context.engine.slots()]
    views = tuple(_view(experiment, stages, every_run) for experiment in found)
    return Snapshot(views, free_slots(there, held), context.clock(), all_slots=len(there))


def _view(
    experiment: ExperimentRecord, stages: Sequence[StageRecord], every_run: Sequence[RunRecord]
) -> ExperimentView:
    return ExperimentView(
        id=experiment.id,
        status=experiment.status,
        slots_per_run=_slots_per_run(experiment),
        stages=tuple(
            StageRow(stage.position, stage.name, stage.status)
            for stage in stages
            if stage.experiment_id == experiment.id
        ),
        runs=tuple(
            RunView(run.id, run.variant, run.is_control, run.status, run.stage, run.not_before)
            for run in every_run
            if run.experiment_id == experiment.id
        ),
    )


def _slots_per_run(experiment: ExperimentRecord) -> int:
    resources = experiment.spec.get("resources")
    slots = resources.get("slots") if isinstance(resources, dict) else None
    return slots if isinstance(slots, int) else 1
