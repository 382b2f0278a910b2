"""The end of an attempt: its slot is free, its epoch is over, and its run goes on, waits or fails."""

import math
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.evidence import Verdict
from orchestrator.domain.lifecycle import AttemptStatus, Reason, RunStatus
from orchestrator.domain.spec_models import ExperimentSpec
from orchestrator.engines.base import processes_on
from orchestrator.rules.policies import Policy
from orchestrator.rules.retry import UNSAID, Again, Ended, GiveUp, after, reason_of
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment, variant_of
from orchestrator.store import experiments, journal, links, runs
from orchestrator.store.records import AttemptRecord, RunRecord
from orchestrator.store.reports import load_evaluations

GOOD_WITHIN = 1.0
"""Nats above its best within which a diverged run's checkpoint is taken to be sound."""


def end_attempt(
    connection: Connection,
    context: Context,
    attempt_id: int,
    *,
    code: int | None,
    now: datetime,
    message: str = "",
    lost: bool = False,
    engine_error: str = "",
    reason: Reason | None = None,
) -> None:
    """Ends the attempt once; what follows for its run is the retry rule's word. Wake after the commit.

    `code` None without `lost` or `engine_error` is an end that only the service knows of (`reason`). What was
    noted of an attempt that had to be ended stands where its worker does not say why it went.
    """
    attempt = runs.get_attempt(connection, attempt_id)
    if attempt is None or attempt.status is AttemptStatus.ENDED:
        return
    if reason is None:
        reason = Reason.LOST if lost else Reason.ENGINE_ERROR if engine_error else reason_of(code)
    if attempt.reason is not None and reason in UNSAID:
        reason = Reason(attempt.reason)
    said = [attempt.detail, message or engine_error or (None if attempt.detail else _detail(reason, code))]
    detail = "; ".join(part for part in said if part)
    runs.change_attempt(
        connection,
        attempt_id,
        status=AttemptStatus.ENDED,
        ended_at=now,
        exit_code=code,
        reason=reason,
        detail=detail,
    )
    run = runs.get_run(connection, attempt.run_id)
    if run is not None and attempt.epoch == run.epoch:
        _go_on(connection, context, run, attempt, reason, detail, now)


def _detail(reason: Reason, code: int | None) -> str:
    if reason is Reason.LOST:
        return "the worker is gone and left no exit code"
    return "" if code is None else f"the worker ended with exit code {code}"


def _go_on(
    connection: Connection,
    context: Context,
    run: RunRecord,
    attempt: AttemptRecord,
    reason: Reason,
    detail: str,
    now: datetime,
) -> None:
    """A run at its gate keeps waiting there: its evaluation and checkpoint are safe. Others ask the rule."""
    if run.status not in {RunStatus.STARTING, RunStatus.RUNNING}:
        return
    experiment = need_experiment(connection, run.experiment_id)
    history = history_of(run, runs.attempts_of(connection, run.id))
    if not history or _was_never_begun(attempt, reason):  # what an older one ended with was ruled on then
        _again(connection, run, reason, Again(), detail, now)
        return
    following = after(
        history,
        retries=ExperimentSpec.model_validate(experiment.spec).retries,
        diverged_retries=Policy.model_validate(experiment.policy).diverged.retries,
        can_divide=_can_divide(connection, context, run, attempt),
    )
    if isinstance(following, GiveUp):
        fail_run(connection, run, reason, f"{detail}; {following.text}" if detail else following.text, now)
    else:
        _again(connection, run, reason, following, detail, now)


def _can_divide(connection: Connection, context: Context, run: RunRecord, attempt: AttemptRecord) -> bool:
    """Whether twice as many passes would have a row each, as far as the trainer kind has said."""
    rows = variant_of(connection, run).facts.get("rows_per_pass")
    wanted = 2 * run.memory_factor * processes_on(context.engine, attempt.slots)
    return isinstance(rows, int) and rows >= wanted


def history_of(run: RunRecord, tried: Sequence[AttemptRecord]) -> list[Ended]:
    """The ends that count: of the attempts since a person last took the run up again.

    One whose key another worker had was never begun, and says nothing of the run.
    """
    return [
        Ended(Reason(attempt.reason), attempt.step, _began(attempt))
        for attempt in tried
        if attempt.number > run.history_from and attempt.status is AttemptStatus.ENDED and attempt.reason
        if not _was_never_begun(attempt, attempt.reason)
    ]


def _was_never_begun(attempt: AttemptRecord, reason: str) -> bool:
    return reason == Reason.STALE_EPOCH and not attempt.token_hash


def _began(attempt: AttemptRecord) -> int:
    """One that never said where it resumed has made no step."""
    return attempt.step if attempt.resumed_from_step is None else attempt.resumed_from_step


def _again(
    connection: Connection, run: RunRecord, reason: Reason, again: Again, detail: str, now: datetime
) -> None:
    due = now + again.delay
    changes: dict[str, object] = {"status": RunStatus.PENDING, "not_before": due}
    if reason is Reason.DIVERGED:
        changes["resume_at_most"] = last_good_step(connection, run)
    if again.divided:
        changes["memory_factor"] = run.memory_factor * 2
    runs.change_run(connection, run, **changes)
    why = f"{reason}: {detail}" if detail else reason
    text = f"the attempt ended ({why}) at step {run.step}; another follows from the newest checkpoint"
    if again.divided:
        text += f", each step in {run.memory_factor * 2} times as many passes"
    text += f", not before {due:%H:%M:%S} UTC" if again.delay else ", at once"
    journal.add_event(connection, "retry", text, now=now, run_id=run.id)


def last_good_step(connection: Connection, run: RunRecord) -> int:
    """The newest checkpoint before the run's step where it was still near its best; 0 when there is none."""
    measured = [evaluation for evaluation, _ in load_evaluations(connection, [run.id])[run.id]]
    finite = [e for e in measured if math.isfinite(e.eval_loss)]
    best = min((e.eval_loss for e in finite), default=math.inf)
    near_best = {e.step for e in finite if e.eval_loss <= best + GOOD_WITHIN}
    owners = links.chain(connection, run.id)
    steps = [row.step for owner in owners for row in runs.checkpoints_of(connection, owner.id)]
    return max((step for step in steps if step < run.step and step in near_best), default=0)


def fail_run(connection: Connection, run: RunRecord, reason: Reason, detail: str, now: datetime) -> None:
    """The run is over, with a decision that says why."""
    runs.change_run(connection, run, status=reason.status, reason=reason, detail=detail, ended_at=now)
    experiment = experiments.get_experiment(connection, run.experiment_id)
    stage = experiments.get_stages(connection, [run.experiment_id])[run.stage]
    if experiment is None:
        return
    judgement = Judgement(DecisionKind.FAIL, reason, Verdict.FAIL, f"failed at step {run.step}: {detail}")
    journal.add_decision(
        connection,
        key=f"run:{run.id}/{stage.name}/{run.step}/end-{run.epoch}",
        experiment=experiment,
        run_id=run.id,
        stage=stage.name,
        step=run.step,
        judgement=judgement,
        now=now,
    )
