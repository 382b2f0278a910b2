"""A closed stage: chosen runs get the next stage's target, the others end."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, Entrant, GateOutcome, Judgement, PromoteRule
from orchestrator.domain.lifecycle import ExperimentStatus, Reason, RunStatus, StageStatus
from orchestrator.domain.spec import ExperimentSpec, Promote
from orchestrator.rules.conclusion import conclude
from orchestrator.rules.gate import close_stage
from orchestrator.rules.policies import Policy
from orchestrator.services.judge import end_run, record, stage_view
from orchestrator.store import experiments, journal, runs
from orchestrator.store.records import ExperimentRecord, RunRecord, StageRecord
from orchestrator.store.reports import load_curves

GOES_ON = "the control goes on: new variants of the next stage are judged against it"


def close(connection: Connection, experiment_id: int, position: int, now: datetime) -> None:
    """Closes a stage whose runs have all settled. Closing it twice does nothing the second time."""
    experiment = experiments.get_experiment(connection, experiment_id)
    stages = experiments.get_stages(connection, [experiment_id])
    stage = stages[position]
    if experiment is None or stage.status is StageStatus.CLOSED:
        return
    every_run = runs.runs_of(connection, [experiment_id])
    if position == len(stages) - 1:
        _close_last(connection, experiment, stage, every_run, now)
    else:
        _close_gate(connection, experiment, stages, position, every_run, now)


def _close_last(
    connection: Connection,
    experiment: ExperimentRecord,
    stage: StageRecord,
    every_run: list[RunRecord],
    now: datetime,
) -> None:
    finished = [run for run in every_run if run.status is RunStatus.SUCCEEDED and run.stage == stage.position]
    curves = load_curves(connection, finished)
    policy = Policy.model_validate(experiment.policy)
    conclusion = conclude(list(curves.values()), stage.steps, policy)
    experiments.close_stage(connection, stage.id, conclusion=conclusion, now=now)
    judged = any(run.is_control for run in finished)
    status = ExperimentStatus.SUCCEEDED if judged else ExperimentStatus.FAILED
    end_experiment(connection, experiment, status, conclusion, now)


def _close_gate(
    connection: Connection,
    experiment: ExperimentRecord,
    stages: list[StageRecord],
    position: int,
    every_run: list[RunRecord],
    now: datetime,
) -> None:
    stage, following = stages[position], stages[position + 1]
    entrants = [run for run in every_run if run.stage == position]
    newcomers = any(run.stage > position and not run.status.is_terminal for run in every_run)
    outcome = _outcome(connection, experiment, stages, position, entrants)
    for run in entrants:
        judgement = outcome.judgements.get(run.id)
        if judgement is not None and not run.status.is_terminal:
            if run.is_control and newcomers:
                judgement = replace(judgement, kind=DecisionKind.PROMOTE, reason="control", text=GOES_ON)
            record(connection, experiment, run, stage, stage.steps, judgement, now, phase="gate")
            _apply(connection, run, judgement, following, now)
    experiments.close_stage(connection, stage.id, conclusion=outcome.conclusion, now=now)
    text = f"stage {stage.name} closed: {outcome.conclusion}"
    journal.add_event(connection, "stage_closed", text, now=now, experiment_id=experiment.id)
    if outcome.winners or newcomers:
        experiments.set_stage_status(connection, following.id, StageStatus.RUNNING)
    else:
        for later in stages[position + 1 :]:
            experiments.close_stage(connection, later.id, conclusion="not opened: no winner", now=now)
        end_experiment(connection, experiment, ExperimentStatus.SUCCEEDED, outcome.conclusion, now)


def _outcome(
    connection: Connection,
    experiment: ExperimentRecord,
    stages: list[StageRecord],
    position: int,
    entrants: list[RunRecord],
) -> GateOutcome:
    """The gate's word. Which runs enter the next stage is said by that stage's `promote`."""
    spec = ExperimentSpec.model_validate(experiment.spec)
    promote = spec.stages[position + 1].promote or Promote()
    curves = load_curves(connection, entrants)
    return close_stage(
        [Entrant(curves[run.id], out=run.status.is_terminal) for run in entrants],
        stage=stage_view(stages[position], stages),
        promote=PromoteRule(promote.best, promote.eligible, promote.if_none),
        policy=Policy.model_validate(experiment.policy),
    )


def _apply(
    connection: Connection, run: RunRecord, judgement: Judgement, following: StageRecord, now: datetime
) -> None:
    """A promoted run goes on in its worker if that is still up; otherwise it queues for a slot."""
    if judgement.kind is DecisionKind.PROMOTE:
        waiting = runs.live_attempt_of(connection, run.id) is not None
        status = RunStatus.RUNNING if waiting else RunStatus.PENDING
        changes = {"stage": following.position, "target_step": following.steps}
        runs.change_run(connection, run, status=status, **changes)
    elif judgement.kind is DecisionKind.FAIL:
        end_run(connection, run, Reason.DIVERGED, judgement.text, now)
    elif run.is_control:
        end_run(connection, run, Reason.FINISHED, judgement.text, now)
    else:
        end_run(connection, run, _ending_reason(judgement), judgement.text, now)


def _ending_reason(judgement: Judgement) -> Reason:
    known = {Reason.PLATEAU, Reason.UNHEALTHY_ROUTING}
    return next((reason for reason in known if reason == judgement.reason), Reason.NOT_PROMOTED)


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
    for stage in experiments.get_stages(connection, [experiment.id]):
        experiments.close_stage(connection, stage.id, conclusion=f"not closed by its gate: {status}", now=now)
    for run in runs.runs_of(connection, [experiment.id]):
        if not run.status.is_terminal:
            end_run(connection, run, reason, conclusion, now)
    text = f"ended ({status}): {conclusion}"
    journal.add_event(connection, "ended", text, now=now, experiment_id=experiment.id)
