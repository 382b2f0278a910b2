"""What a person decides: an author and a reason go with each, as with a decision of the rules."""

from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.errors import Conflict
from orchestrator.domain.evidence import Verdict
from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import ExperimentStatus, Reason, RunStatus, StageStatus
from orchestrator.services.context import Context
from orchestrator.services.finish import end_experiment
from orchestrator.services.judge import end_run
from orchestrator.services.lookup import need_experiment, need_run
from orchestrator.services.protocol import protocol_of
from orchestrator.services.references import find_reference
from orchestrator.services.settle import settle
from orchestrator.store import experiments, journal, runs
from orchestrator.store.records import ExperimentRecord, RunRecord, StageRecord
from orchestrator.store.reports import load_evaluations


def cancel_experiment(context: Context, id_: int, author: str, reason: str) -> None:
    """Ends the experiment and every run in it. Cancelling a cancelled one changes nothing."""
    with context.database.write() as connection:
        experiment = need_experiment(connection, id_)
        if experiment.status is ExperimentStatus.CANCELLED:
            return
        _refuse_ended(experiment)
        now = context.clock()
        conclusion = _said("cancelled", author, reason)
        status = ExperimentStatus.CANCELLED
        end_experiment(connection, experiment, status, conclusion, now, Reason.USER)
    context.wake()


def _said(done: str, author: str, reason: str) -> str:
    return f"{done} by {author}: {reason}" if reason else f"{done} by {author}"


def pause_experiment(context: Context, id_: int, author: str, reason: str) -> None:
    """Starts no further worker for it; workers that are up go on to their gates."""
    _set_status(context, id_, ExperimentStatus.PAUSED, _said("paused", author, reason))


def resume_experiment(context: Context, id_: int, author: str, reason: str) -> None:
    _set_status(context, id_, ExperimentStatus.RUNNING, _said("resumed", author, reason))
    context.wake()


def _set_status(context: Context, id_: int, status: ExperimentStatus, text: str) -> None:
    with context.database.write() as connection:
        experiment = need_experiment(connection, id_)
        _refuse_ended(experiment)
        if experiment.status is not status:
            experiments.set_experiment_status(connection, id_, status)
            journal.add_event(connection, status, text, now=context.clock(), experiment_id=id_)


def _refuse_ended(experiment: ExperimentRecord) -> None:
    if experiment.status.is_terminal:
        raise Conflict(f"{spell('exp', experiment.id)} has ended ({experiment.status})")


def stop_run(context: Context, id_: int, author: str, reason: str) -> None:
    """Stops a run that has not ended; its checkpoint stays, so that it can be promoted later."""
    with context.database.write() as connection:
        run = need_run(connection, id_)
        if run.status.is_terminal:
            raise Conflict(f"{spell('run', id_)} has ended ({run.status})")
        now = context.clock()
        _record(connection, run, DecisionKind.STOP, Reason.USER_STOPPED, author, reason, now)
        end_run(connection, run, Reason.USER_STOPPED, _said("stopped", author, reason), now)
        settle(connection, context)
    context.wake()


def promote_run(context: Context, id_: int, author: str, reason: str) -> None:
    """Takes a stopped or declined run into the stage that is open now; it goes on from its checkpoint.

    A worker that is still up and has not heard of the stop goes on with it.
    """
    with context.database.write() as connection:
        run = need_run(connection, id_)
        experiment = need_experiment(connection, run.experiment_id)
        _refuse_ended(experiment)
        if run.status is not RunStatus.STOPPED:
            raise Conflict(
                f"{spell('run', id_)} is {run.status}: only a stopped or declined run can be promoted"
            )
        stages = experiments.get_stages(connection, [experiment.id])
        current = next(stage for stage in stages if stage.status is not StageStatus.CLOSED)
        now = context.clock()
        _record(connection, run, DecisionKind.PROMOTE, Reason.USER, author, reason, now)
        is_up = runs.live_attempt_of(connection, run.id) is not None
        status = RunStatus.RUNNING if is_up else RunStatus.PENDING
        _reopen(connection, experiment, run, current, status)
        settle(connection, context)
    context.wake()


def _reopen(
    connection: Connection,
    experiment: ExperimentRecord,
    run: RunRecord,
    stage: StageRecord,
    status: RunStatus,
    **also: object,
) -> None:
    """Takes the run up again in a stage: on to the next step at which it is to wait.

    One that has its evaluation there waits for the gate at once: its worker told it, and tells it no more.
    A control that comes back lets gates go on that held without it.
    """
    target = protocol_of(experiment).target(stage.position, run.step)
    measured = {evaluation.step for evaluation, _ in load_evaluations(connection, [run.id])[run.id]}
    if target in measured and run.status is RunStatus.STOPPED:
        status = RunStatus.AT_GATE
    runs.reopen_run(connection, run, status=status, stage=stage.position, target_step=target, **also)
    if run.is_control:
        experiments.change_experiment(connection, experiment.id, held=None)


def retry_run(context: Context, id_: int, author: str, reason: str) -> None:
    """Tries a failed run again from its newest checkpoint; what broke before no longer counts.

    A control that is taken up again lets the gates go on that held without it.
    """
    with context.database.write() as connection:
        run = need_run(connection, id_)
        experiment = need_experiment(connection, run.experiment_id)
        _refuse_ended(experiment)
        if run.status is not RunStatus.FAILED and not _is_missed(run):
            raise Conflict(f"{spell('run', id_)} is {run.status}: only a failed run can be tried again")
        stages = experiments.get_stages(connection, [experiment.id])
        current = next(stage for stage in stages if stage.status is not StageStatus.CLOSED)
        now = context.clock()
        _record(connection, run, DecisionKind.CONTINUE, "retry", author, reason, now)
        tried = runs.attempts_of(connection, run.id)
        _reopen(connection, experiment, run, current, RunStatus.PENDING, history_from=len(tried))
        settle(connection, context)
    context.wake()


def _is_missed(run: RunRecord) -> bool:
    """A control that ended in any other way, too: without it the gates hold."""
    return run.is_control and run.status is RunStatus.STOPPED


def pin_reference(context: Context, id_: int, reference: str, author: str, reason: str) -> None:
    """Lets a stored curve stand in for the control, should that have died or still die."""
    with context.database.write() as connection:
        experiment = need_experiment(connection, id_)
        _refuse_ended(experiment)
        row = find_reference(connection, reference)
        experiments.change_experiment(connection, id_, reference_id=row.id, held=None)
        text = _said(f"{spell('ref', row.id)} ({row.name}) pinned as the reference", author, reason)
        journal.add_event(connection, "pinned", text, now=context.clock(), experiment_id=id_)
        settle(connection, context)
    context.wake()


def _record(
    connection: Connection,
    run: RunRecord,
    kind: DecisionKind,
    reason: str,
    author: str,
    said: str,
    now: datetime,
) -> None:
    experiment = need_experiment(connection, run.experiment_id)
    stage = experiments.get_stages(connection, [experiment.id])[run.stage]
    count = len(journal.list_decisions(connection, run_id=run.id, limit=10_000))
    journal.add_decision(
        connection,
        key=f"run:{run.id}/{stage.name}/{run.step}/{author}-{count}",
        experiment=experiment,
        run_id=run.id,
        stage=stage.name,
        step=run.step,
        judgement=Judgement(kind, reason, Verdict.INCONCLUSIVE, said or f"{author} gave no reason"),
        now=now,
        author=author,
    )
