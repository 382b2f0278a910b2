"""evaluation -> evidence -> decision row, and what the decision does to its run."""

from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.curves import upto
from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.lifecycle import Reason, RunStatus
from orchestrator.protocol.report import Evaluation
from orchestrator.rules.judge import judge_evaluation
from orchestrator.services.context import Context
from orchestrator.services.ending import end_attempt
from orchestrator.services.lookup import need_experiment, need_run
from orchestrator.services.protocol import protocol_of
from orchestrator.store import experiments, journal, runs
from orchestrator.store.histories import load_curves
from orchestrator.store.records import AttemptRecord, ExperimentRecord, RunRecord, StageRecord


def judge(
    connection: Connection,
    context: Context,
    run_id: int,
    evaluation: Evaluation,
    attempt: AttemptRecord,
    now: datetime,
) -> None:
    """Decides on an evaluation that has just been stored, records the decision and applies it."""
    run = need_run(connection, run_id)
    if run.status.is_terminal:
        return
    experiment = need_experiment(connection, run.experiment_id)
    stage = experiments.get_stages(connection, [experiment.id])[run.stage]
    protocol = protocol_of(experiment)
    curve = upto(load_curves(connection, [run], {run.id: attempt.number})[run.id], evaluation.step)
    judgement = judge_evaluation(curve, stage=protocol.stage(run.stage), policy=protocol.policy)
    record(connection, experiment, run, stage, evaluation.step, judgement, now, attempt=attempt.number)
    if judgement.kind is DecisionKind.HOLD and evaluation.step < run.target_step:
        return  # it fell back behind a point that it had passed: it was judged there, and waits for nobody
    _apply(connection, context, run, judgement, attempt.id, now)


def record(
    connection: Connection,
    experiment: ExperimentRecord,
    run: RunRecord,
    stage: StageRecord,
    step: int,
    judgement: Judgement,
    now: datetime,
    phase: str = "evaluation",
    gate_id: int | None = None,
    attempt: int | None = None,
) -> None:
    """One row under the decision's natural key; a retry after divergence judges its steps anew."""
    times = runs.count_ends(connection, run.id, Reason.DIVERGED)
    retried = f"-retry-{times}" if times else ""
    journal.add_decision(
        connection,
        key=f"run:{run.id}/{stage.name}/{step}/{phase}{retried}",
        experiment=experiment,
        run_id=run.id,
        stage=stage.name,
        step=step,
        judgement=judgement,
        now=now,
        gate_id=gate_id,
        attempt=attempt,
    )


def _apply(
    connection: Connection,
    context: Context,
    run: RunRecord,
    judgement: Judgement,
    attempt_id: int,
    now: datetime,
) -> None:
    if judgement.kind is DecisionKind.FAIL:
        end_attempt(
            connection,
            context,
            attempt_id,
            code=None,
            reason=Reason(judgement.reason),
            message=judgement.text,
            now=now,
        )
    elif judgement.kind is DecisionKind.STOP:
        end_run(connection, run, Reason(judgement.reason), judgement.text, now)
    elif judgement.kind is DecisionKind.HOLD:
        runs.change_run(connection, run, status=RunStatus.AT_GATE)
    elif judgement.reason == Reason.FINISHED:
        end_run(connection, run, Reason.FINISHED, judgement.text, now)


def end_run(connection: Connection, run: RunRecord, reason: Reason, detail: str, now: datetime) -> None:
    """The run's terminal status is the reason's. Its worker hears of it with its next answer."""
    runs.change_run(connection, run, status=reason.status, reason=reason, detail=detail, ended_at=now)
