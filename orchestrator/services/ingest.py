"""report -> rows, once; judged in the same transaction; the answer carries the directive."""

import hashlib
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.errors import Conflict, NotAllowed, StaleEpoch
from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import AttemptStatus, RunStatus
from orchestrator.protocol.report import Answer, Directive, DirectiveKind, Heartbeat, Report
from orchestrator.rules.placement import must_yield
from orchestrator.rules.sharing import wanted_slots
from orchestrator.services.context import Context, token_hash
from orchestrator.services.ending import end_attempt
from orchestrator.services.judge import judge
from orchestrator.services.lookup import need_attempt, need_run
from orchestrator.services.settle import settle
from orchestrator.services.snapshot import load_snapshot
from orchestrator.store import journal, reports, runs
from orchestrator.store.records import AttemptRecord, RunRecord

SETTLED = frozenset({RunStatus.AT_GATE}) | frozenset(status for status in RunStatus if status.is_terminal)
"""Statuses that can make a gate due."""


def ingest(context: Context, attempt_id: int, report: Report) -> Answer:
    """Stores a report under (attempt, sequence), acts on it and answers.

    The same report again changes nothing and is answered alike. Raises `Conflict` for another report under
    the same sequence, `StaleEpoch` when the attempt no longer holds the lease.
    """
    with context.database.write() as connection:
        attempt = need_attempt(connection, attempt_id)
        take_in(connection, context, attempt, report)
        return _answer(connection, context, attempt_id)


def take_in(connection: Connection, context: Context, attempt: AttemptRecord, report: Report) -> None:
    """The part of `ingest` that a backfill from the spool shares.

    A report that comes before one of a lower sequence is stored, and judged when the gap is filled: the
    order of arrival changes no decision. An exit that comes so early is left to the engine's word.
    """
    body_sha256 = hashlib.sha256(report.model_dump_json().encode()).digest()
    known = reports.report_hash(connection, attempt.id, report.sequence)
    if known == body_sha256:
        return
    if known is not None:
        raise Conflict(f"another report is stored under sequence {report.sequence} of this attempt")
    run = _fence(connection, attempt, report.epoch)
    now = context.clock()
    reports.add_report(connection, attempt.id, report.sequence, body_sha256)
    _write_rows(connection, attempt, run, report, now)
    _renew(connection, context, attempt, run, report, now)
    upto = need_attempt(connection, attempt.id).acknowledged
    for evaluation in reports.evaluations_between(connection, attempt.id, attempt.acknowledged, upto):
        judge(connection, context, run.id, evaluation, attempt, now)
        if need_attempt(connection, attempt.id).status is AttemptStatus.ENDED:
            return  # it diverged there; what it measured afterwards decides nothing
    if report.exit is not None and report.sequence <= upto:
        record = report.exit
        end_attempt(connection, context, attempt.id, code=record.code, message=record.message, now=now)
    if need_run(connection, run.id).status in SETTLED:
        settle(connection, context)
        context.wake()


def heartbeat(context: Context, attempt_id: int, beat: Heartbeat) -> Answer:
    """Renews the lease and answers with the directive. Raises `StaleEpoch` like `ingest`."""
    with context.database.write() as connection:
        attempt = need_attempt(connection, attempt_id)
        run = _fence(connection, attempt, beat.epoch)
        now = context.clock()
        lease = now + context.limits.lease
        runs.change_attempt(connection, attempt.id, lease_expires_at=lease, step=max(beat.step, attempt.step))
        changes = {"step": max(beat.step, run.step), "tokens_per_second": beat.tokens_per_second}
        if run.status is RunStatus.STARTING:
            runs.change_run(connection, run, status=RunStatus.RUNNING, **changes)
        elif not run.status.is_terminal:
            runs.change_run(connection, run, **changes)
        return _answer(connection, context, attempt_id)


def authorize(context: Context, attempt_id: int, token: str) -> None:
    """Passes when the token is this attempt's own. Raises `NotAllowed`."""
    with context.database.read() as connection:
        attempt = runs.get_attempt(connection, attempt_id)
    if attempt is None or attempt.token_hash != token_hash(token):
        raise NotAllowed("this token is not the one of this attempt")


def _fence(connection: Connection, attempt: AttemptRecord, epoch: int) -> RunRecord:
    """The run, if this attempt still holds its lease under this epoch."""
    run = need_run(connection, attempt.run_id)
    over = attempt.status is AttemptStatus.ENDED
    if over or epoch != attempt.epoch or attempt.epoch != run.epoch:
        name = spell("run", run.id)
        raise StaleEpoch(f"attempt {attempt.number} of {name} no longer holds the lease: stop and exit")
    return run


def _write_rows(
    connection: Connection, attempt: AttemptRecord, run: RunRecord, report: Report, now: datetime
) -> None:
    owner = {"run_id": run.id, "attempt_id": attempt.id}
    if report.resumed_from_step is not None and attempt.resumed_from_step is None:
        runs.change_attempt(connection, attempt.id, resumed_from_step=report.resumed_from_step)
        reports.supersede(connection, **owner, after_step=report.resumed_from_step)
    for evaluation in report.evaluations:
        stored = reports.stored_evaluation(connection, attempt.id, evaluation.step)
        if stored is None:
            reports.add_evaluation(
                connection, **owner, evaluation=evaluation, sequence=report.sequence, now=now
            )
        elif stored.model_dump_json() != evaluation.model_dump_json():
            raise Conflict(f"another evaluation of step {evaluation.step} is stored for this attempt")
    reports.add_points(connection, **owner, batch=report.points)
    for checkpoint in report.checkpoints:
        values = checkpoint.model_dump(exclude={"eval_loss"})
        runs.add_checkpoint(connection, **owner, **values, created_at=now)
    for note in report.notes:
        experiment_id = run.experiment_id
        journal.add_event(connection, "note", note, now=now, experiment_id=experiment_id, run_id=run.id)


def _renew(
    connection: Connection,
    context: Context,
    attempt: AttemptRecord,
    run: RunRecord,
    report: Report,
    now: datetime,
) -> None:
    known = reports.acknowledged(connection, attempt.id, attempt.acknowledged)
    lease = now + context.limits.lease
    resumed = report.resumed_from_step is not None  # a retry after divergence goes back
    runs.change_attempt(
        connection,
        attempt.id,
        acknowledged=known,
        step=report.step if resumed else max(report.step, attempt.step),
        lease_expires_at=lease,
    )
    if report.identity is not None:
        told = report.identity.model_dump(mode="json")
        runs.change_attempt(connection, attempt.id, identity=told)
    if run.status.is_terminal:
        return
    changes: dict[str, object] = {"step": report.step if resumed else max(report.step, run.step)}
    if run.resume_at_most is not None:  # the retry has got further: what it saved is sound again
        saved = [checkpoint.step for checkpoint in report.checkpoints]
        changes["resume_at_most"] = max([run.resume_at_most, *saved])
    if report.identity is not None:
        changes["identity"] = report.identity.model_dump(mode="json")
    if report.evaluations:
        changes["tokens_per_second"] = report.evaluations[-1].tokens_per_second
    if run.status is RunStatus.STARTING:
        changes["status"] = RunStatus.RUNNING
    runs.change_run(connection, run, **changes)


def _answer(connection: Connection, context: Context, attempt_id: int) -> Answer:
    attempt = need_attempt(connection, attempt_id)
    run = need_run(connection, attempt.run_id)
    over = attempt.status is AttemptStatus.ENDED or attempt.epoch != run.epoch
    directive = _directive(connection, context, run, over=over)
    return Answer(acknowledged=attempt.acknowledged, directive=directive)


def _directive(connection: Connection, context: Context, run: RunRecord, *, over: bool) -> Directive:
    """What the worker does next: the run's row says it, and at a gate the slots do."""
    if over or run.status.is_terminal:
        reason = run.reason or "the attempt is over"
        return Directive(kind=DirectiveKind.STOP, target_step=run.target_step, reason=reason)
    if run.status is RunStatus.PENDING:  # let past its gate, on a way that the budget cannot pay for now
        return Directive(kind=DirectiveKind.YIELD, target_step=run.target_step, reason="its budget is short")
    if run.status is not RunStatus.AT_GATE:
        return Directive(kind=DirectiveKind.CONTINUE, target_step=run.target_step)
    snapshot = load_snapshot(connection, context)
    wanted = wanted_slots(snapshot)
    if must_yield(wanted=wanted, free=len(snapshot.free_slots)):
        return Directive(kind=DirectiveKind.YIELD, target_step=run.target_step, reason="its slot is needed")
    return Directive(kind=DirectiveKind.WAIT, target_step=run.target_step, reason="the gate is not decided")
