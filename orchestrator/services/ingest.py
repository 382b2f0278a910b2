"""report -> rows, once; judged in the same transaction; the answer carries the directive."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.errors import Conflict, NotAllowed, StaleEpoch
from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import AttemptStatus, RunStatus
from orchestrator.protocol.report import Answer, Directive, DirectiveKind, Evaluation, Heartbeat, Report
from orchestrator.rules.placement import must_yield
from orchestrator.rules.sharing import wanted_slots
from orchestrator.services.context import Context, token_hash
from orchestrator.services.effects import Effect, alive, apply_effects, held_effects, move_run
from orchestrator.services.fall_back import record_fall_back
from orchestrator.services.lookup import need_standing
from orchestrator.services.settle import settle
from orchestrator.services.snapshot import load_snapshot
from orchestrator.store import journal, reports, runs
from orchestrator.store.records import AttemptRecord, RunRecord
from orchestrator.store.reports import Standing

SETTLED = frozenset({RunStatus.AT_GATE}) | frozenset(status for status in RunStatus if status.is_terminal)
"""Statuses that can make a gate due."""


def ingest(context: Context, attempt_id: int, report: Report) -> Answer:
    """Stores a report under (attempt, sequence), acts on it and answers.

    The same report again changes nothing and is answered alike. Another value of what is stored is dropped,
    and an event of kind `conflict` says so: the rest of its report counts. Raises `Conflict` for another
    report under the same sequence, `StaleEpoch` when the attempt no longer holds the lease.
    """
    with context.database.write() as connection:
        answer = handle(connection, context, attempt_id, report)
    if calls_for_a_tick(report, answer):
        context.wake()
    return answer


def heartbeat(context: Context, attempt_id: int, beat: Heartbeat) -> Answer:
    """Renews the lease and answers with the directive. Raises `StaleEpoch` like `ingest`."""
    with context.database.write() as connection:
        return handle(connection, context, attempt_id, beat)


def handle(
    connection: Connection,
    context: Context,
    attempt_id: int,
    message: Report | Heartbeat,
    token: bytes | None = None,
    batch: "Batch | None" = None,
) -> Answer:
    """`ingest` or `heartbeat` in a transaction that others share, as they share its `batch`.

    With `token`, the hash of what the worker presented, it raises `NotAllowed` for another attempt's.
    """
    sequence = message.sequence if isinstance(message, Report) else 0
    found = need_standing(connection, attempt_id, sequence)
    if token is not None and token != found.attempt.token_hash:
        raise NotAllowed("this token is not the one of this attempt")
    batch = batch or Batch()
    if isinstance(message, Report):
        batch.forget()
        found = _take_in(connection, context, found, message, batch)
    else:
        found = _beat(connection, context, found, message)
    return _answer(connection, context, found, batch)


def calls_for_a_tick(message: Report | Heartbeat, answer: Answer) -> bool:
    """Whether the plan may have something to do, once this is committed: an end, or a gate."""
    return isinstance(message, Report) and answer.directive.kind is not DirectiveKind.CONTINUE


def take_in(connection: Connection, context: Context, attempt: AttemptRecord, report: Report) -> None:
    """`ingest` without an answer, for a backfill from the spool.

    What is stored under its sequence stands, also where the worker sent something shorter instead of a
    report that was refused.
    """
    found = need_standing(connection, attempt.id, report.sequence)
    if found.body_sha256 is None:
        _take_in(connection, context, found, report, Batch())


def authorize(context: Context, attempt_id: int, token: str) -> None:
    """Passes when the token is this attempt's own. Raises `NotAllowed`."""
    with context.database.read() as connection:
        attempt = runs.get_attempt(connection, attempt_id)
    if attempt is None or attempt.token_hash != token_hash(token):
        raise NotAllowed("this token is not the one of this attempt")


def body_hash(report: Report) -> bytes:
    """Of what the report says: a field that is added to the protocol later leaves it as it is."""
    return hashlib.sha256(report.model_dump_json(exclude_defaults=True).encode()).digest()


def _hash_before(report: Report) -> bytes | None:
    """As the version before 0003 stored it: every field that it knew, its default or not."""
    if report.passed_over:
        return None
    return hashlib.sha256(report.model_dump_json(exclude={"passed_over"}).encode()).digest()


def _take_in(
    connection: Connection, context: Context, found: Standing, report: Report, batch: "Batch"
) -> Standing:
    """How things stand once the report is stored. The order of arrival changes no decision.

    A report that comes before one of a lower sequence is stored with what it measured; its step, its exit
    and its evaluations' judgement wait until the gap is filled.
    """
    digest = body_hash(report)
    if found.body_sha256 is not None:
        if found.body_sha256 not in {digest, _hash_before(report)}:
            raise Conflict(f"another report is stored under sequence {report.sequence} of this attempt")
        return found
    _fence(found.attempt, found.run, report.epoch)
    now = context.clock()
    effect = Effect.of(report, _write_rows(connection, context, found, report, batch, now))
    attempt_id, is_next = found.attempt.id, report.sequence == found.attempt.acknowledged + 1
    reports.add_report(connection, attempt_id, report.sequence, digest, None if is_next else effect.held())
    if not is_next:
        return _hold(connection, context, found, report, now)
    waiting = held_effects(connection, attempt_id, report.sequence) if found.newest > report.sequence else []
    found = apply_effects(connection, context, found, [effect, *waiting], now)
    if found.run.status in SETTLED:
        settle(connection, context)
        return need_standing(connection, attempt_id)
    return found


def _beat(connection: Connection, context: Context, found: Standing, beat: Heartbeat) -> Standing:
    _fence(found.attempt, found.run, beat.epoch)
    attempt = alive(context, found, beat.phase, beat.step, context.clock())
    reports.renew(connection, attempt)
    changes = {"step": max(beat.step, found.run.step), "tokens_per_second": beat.tokens_per_second}
    return replace(found, attempt=attempt, run=move_run(connection, found.run, changes))


def _hold(
    connection: Connection, context: Context, found: Standing, report: Report, now: datetime
) -> Standing:
    """A report that came early shows that its worker lives and how far it is; the rest waits."""
    seen = alive(context, found, report.phase, report.step, now)
    attempt = replace(found.attempt, lease_expires_at=seen.lease_expires_at, progress_at=seen.progress_at)
    reports.renew(connection, attempt)
    return replace(found, attempt=attempt)


def _fence(attempt: AttemptRecord, run: RunRecord, epoch: int) -> None:
    """Raises `StaleEpoch` unless this attempt still holds its lease under this epoch."""
    over = attempt.status is AttemptStatus.ENDED
    if over or epoch != attempt.epoch or attempt.epoch != run.epoch:
        name = spell("run", run.id)
        raise StaleEpoch(f"attempt {attempt.number} of {name} no longer holds the lease: stop and exit")


def _write_rows(
    connection: Connection, context: Context, found: Standing, report: Report, batch: "Batch", now: datetime
) -> list[Evaluation]:
    """Stores what was measured, saved and said; the evaluations that are new."""
    attempt, run = found.attempt, found.run
    owner = {"run_id": run.id, "attempt_id": attempt.id}
    if report.resumed_from_step is not None and attempt.resumed_from_step is None:
        runs.change_attempt(connection, attempt.id, resumed_from_step=report.resumed_from_step)
        reports.supersede(connection, **owner, after_step=report.resumed_from_step)
    new, refused = _measured(connection, owner, report, batch, now)
    for checkpoint in report.checkpoints:
        values = checkpoint.model_dump(exclude={"eval_loss"})
        runs.add_checkpoint(connection, **owner, **values, created_at=now)
    if report.passed_over or report.resumed_from_step is not None:
        record_fall_back(connection, context, run, attempt, report, now)
    which = f"report {report.sequence} of attempt {attempt.number}"
    told = [("note", note) for note in report.notes]
    told += [("conflict", f"{which}: {said}; the first stays") for said in refused]
    for kind, text in told:
        experiment_id = run.experiment_id
        journal.add_event(connection, kind, text, now=now, experiment_id=experiment_id, run_id=run.id)
    return new


def _measured(
    connection: Connection, owner: dict[str, int], report: Report, batch: "Batch", now: datetime
) -> tuple[list[Evaluation], list[str]]:
    """The evaluations that are new, and what contradicts the rows."""
    new, refused, sequence = [], list[str](), report.sequence
    for evaluation in report.evaluations:
        with _first_stays(refused):
            if reports.add_evaluation(connection, **owner, evaluation=evaluation, sequence=sequence, now=now):
                new.append(evaluation)
    with _first_stays(refused):
        reports.add_points(connection, **owner, batch=report.points, ids=batch.metric_ids)
    return new, refused


@contextmanager
def _first_stays(refused: list[str]) -> Iterator[None]:
    """Another value of what is stored must not leave a gap, behind which every later report would wait."""
    try:
        yield
    except Conflict as error:
        refused.append(error.detail)


class Batch:
    """What the messages of one transaction need to ask for only once.

    Whether runs wait for the slots of workers at gates: many heartbeats change nothing of it, and to look is
    to load every open experiment. And the ids of metrics, by name.
    """

    def __init__(self, metric_ids: dict[str, int] | None = None) -> None:
        self.metric_ids = {} if metric_ids is None else metric_ids
        self._known: bool | None = None

    def forget(self) -> None:
        """Something may have changed in this transaction."""
        self._known = None

    def is_short(self, connection: Connection, context: Context) -> bool:
        """More slots are wanted than are free."""
        if self._known is None:
            self._known = runs.any_pending(connection) and self._look(connection, context)
        return self._known

    def _look(self, connection: Connection, context: Context) -> bool:
        snapshot = load_snapshot(connection, context)
        return must_yield(wanted=wanted_slots(snapshot), free=len(snapshot.free_slots))


def _answer(connection: Connection, context: Context, found: Standing, batch: Batch) -> Answer:
    over = found.attempt.status is AttemptStatus.ENDED or found.attempt.epoch != found.run.epoch
    directive = _directive(connection, context, found.run, batch, over=over)
    return Answer(acknowledged=found.attempt.acknowledged, directive=directive)


def _directive(
    connection: Connection, context: Context, run: RunRecord, batch: Batch, *, over: bool
) -> Directive:
    """What the worker does next: the run's row says it, and at a gate the slots do."""
    if over or run.status.is_terminal:
        reason = run.reason or "the attempt is over"
        return Directive(kind=DirectiveKind.STOP, target_step=run.target_step, reason=reason)
    if run.status is RunStatus.PENDING:  # let past its gate, on a way that the budget cannot pay for now
        return Directive(kind=DirectiveKind.YIELD, target_step=run.target_step, reason="its budget is short")
    if run.status is not RunStatus.AT_GATE:
        return Directive(kind=DirectiveKind.CONTINUE, target_step=run.target_step)
    if batch.is_short(connection, context):
        return Directive(kind=DirectiveKind.YIELD, target_step=run.target_step, reason="its slot is needed")
    return Directive(kind=DirectiveKind.WAIT, target_step=run.target_step, reason="the gate is not decided")
