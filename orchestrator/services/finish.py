"""The end of an experiment: its conclusion, and the end of every run that is still open."""

from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.lifecycle import ExperimentStatus, Reason, RunStatus
from orchestrator.rules.conclusion import conclude
from orchestrator.services.gates import Sitting
from orchestrator.services.judge import end_run
from orchestrator.services.shadow import log_shadow
from orchestrator.store import dependents, experiments, journal, runs
from orchestrator.store.histories import load_curves
from orchestrator.store.records import ExperimentRecord, StageRecord


def close_last(sitting: Sitting, stage: StageRecord) -> None:
    """Closes the last stage, and with it the experiment: who was best, and whether by more than noise."""
    connection, experiment = sitting.connection, sitting.experiment
    done = (RunStatus.SUCCEEDED, stage.position)
    finished = [run for run in sitting.runs if (run.status, run.stage) == done]
    log_shadow(sitting, stage, [run for run in sitting.runs if run.stage == stage.position])
    curves = list(load_curves(connection, finished).values())
    conclusion = conclude(curves, stage.steps, sitting.protocol.policy)
    experiments.close_stage(connection, stage.id, conclusion=conclusion, now=sitting.now)
    judged = any(run.is_control for run in finished) or experiment.reference_id is not None
    status = ExperimentStatus.SUCCEEDED if judged else ExperimentStatus.FAILED
    end_experiment(connection, experiment, status, conclusion, sitting.now)


def end_experiment(
    connection: Connection,
    experiment: ExperimentRecord,
    status: ExperimentStatus,
    conclusion: str,
    now: datetime,
    reason: Reason = Reason.CONTROL_FAILED,
) -> None:
    """Ends it once, and with it every run that is still open, for `reason`."""
    if not experiments.end_experiment(
        connection, experiment.id, status=status, conclusion=conclusion, now=now
    ):
        return
    experiments.change_experiment(connection, experiment.id, held=None)
    for stage in experiments.get_stages(connection, [experiment.id]):
        experiments.close_stage(connection, stage.id, conclusion=f"not closed by its gate: {status}", now=now)
    for waiter in dependents.dependents_of(connection, [experiment.id]):
        dependents.settle_dependent(connection, waiter.id, "dropped", "the experiment ended before")
    for run in runs.runs_of(connection, [experiment.id]):
        if not run.status.is_terminal:
            end_run(connection, run, reason, conclusion, now)
    text = f"ended ({status}): {conclusion}"
    journal.add_event(connection, "ended", text, now=now, experiment_id=experiment.id)
