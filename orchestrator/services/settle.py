"""What is due: applied at ticks, and in the transaction of the report that makes it due."""

from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.evidence import Verdict
from orchestrator.domain.lifecycle import ExperimentStatus, Reason
from orchestrator.rules.plan import (
    Choose,
    CloseStage,
    Due,
    EndExperiment,
    EndUnpaid,
    Hold,
    JudgePoint,
    plan_settling,
)
from orchestrator.rules.snapshot import Snapshot
from orchestrator.services.choose import choose
from orchestrator.services.context import Context
from orchestrator.services.finish import end_experiment
from orchestrator.services.gates import Sitting, record_at, sit
from orchestrator.services.judge import end_run
from orchestrator.services.lookup import need_run
from orchestrator.services.points import judge_field
from orchestrator.services.poison import isolated, of_sound
from orchestrator.services.promote import close, early, hold
from orchestrator.services.snapshot import eager_stages, load_snapshot
from orchestrator.store import experiments
from orchestrator.store.records import RunRecord

UNPAID = "the budget cannot pay for the way to step {step}"


def settle(connection: Connection, context: Context) -> None:
    """Applies everything that is due until nothing is: one thing may make the next due.

    An experiment that raises is left as it was, and holds up no other.
    """
    failed: set[int] = set()
    while True:
        for experiment_id, position in eager_stages(connection):
            if experiment_id not in failed:
                work = partial(_early, connection, context, experiment_id, position)
                if not isolated(connection, context, experiment_id, work):
                    failed.add(experiment_id)
        found = of_sound(context, load_snapshot(connection, context), due_actions)
        due = [action for action in found if action.experiment_id not in failed]
        if not due:
            return
        for action in due:
            work = partial(_apply, connection, context, action)
            if not isolated(connection, context, action.experiment_id, work):
                failed.add(action.experiment_id)


def _early(connection: Connection, context: Context, experiment_id: int, position: int) -> None:
    early(sit(connection, context, experiment_id), position)


def due_actions(snapshot: Snapshot) -> list[Due]:
    """What is due beside starts."""
    return [action for view in snapshot.experiments for action in plan_settling(view)]


def _apply(connection: Connection, context: Context, action: Due) -> None:
    sitting = sit(connection, context, action.experiment_id)
    match action:
        case CloseStage(_, position):
            close(sitting, position)
        case JudgePoint(_, position, step):
            judge_field(sitting, position, step)
        case Choose(_, dependent_id):
            choose(sitting, dependent_id)
        case Hold(_, position):
            hold(sitting, position)
        case EndUnpaid(_, run_ids):
            for run_id in run_ids:
                _end_unpaid(sitting, need_run(connection, run_id))
        case EndExperiment():
            _end(connection, action, sitting.now)


def _end_unpaid(sitting: Sitting, run: RunRecord) -> None:
    """The run stops where it is; its checkpoint stays."""
    text, reason = UNPAID.format(step=run.target_step), Reason.BUDGET_EXHAUSTED
    judgement = Judgement(DecisionKind.STOP, reason, Verdict.INCONCLUSIVE, text)
    stage = sitting.stages[run.stage]
    record_at(sitting, run, stage, run.step, judgement, f"budget-{run.epoch}", None)
    end_run(sitting.connection, run, reason, text, sitting.now)


def _end(connection: Connection, action: EndExperiment, now: datetime) -> None:
    experiment = experiments.get_experiment(connection, action.experiment_id)
    if experiment is not None:
        conclusion = action.conclusion or experiment.conclusion or ""
        succeeded = action.status is ExperimentStatus.SUCCEEDED
        reason = Reason.FINISHED if succeeded else Reason.CONTROL_FAILED
        end_experiment(connection, experiment, action.status, conclusion, now, reason)
