"""What a report does to its attempt and run: reports take effect in the order of their sequences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from orchestrator.domain.lifecycle import AttemptStatus, RunStatus
from orchestrator.protocol.exit import ExitRecord
from orchestrator.protocol.report import Evaluation, Identity, Phase, Report
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.context import Context
from orchestrator.services.ending import end_attempt
from orchestrator.services.judge import judge
from orchestrator.services.lookup import need_standing
from orchestrator.store import reports, runs
from orchestrator.store.records import AttemptRecord, RunRecord
from orchestrator.store.reports import Standing


@dataclass(frozen=True)
class Effect:
    """What a report does. What it measured is in rows of its own, whenever it came."""

    sequence: int
    phase: Phase
    step: int
    resumed_from_step: int | None = None
    identity: Identity | None = None
    tokens_per_second: float | None = None
    saved: int = 0
    """The newest step that it has a checkpoint of."""
    exit: ExitRecord | None = None
    evaluations: Sequence[Evaluation] = field(default=(), compare=False)
    """What is to be judged, ascending by step."""

    @classmethod
    def of(cls, report: Report, evaluations: Sequence[Evaluation]) -> "Effect":
        return cls(
            report.sequence,
            report.phase,
            report.step,
            report.resumed_from_step,
            report.identity,
            report.evaluations[-1].tokens_per_second if report.evaluations else None,
            max((checkpoint.step for checkpoint in report.checkpoints), default=0),
            report.exit,
            sorted(evaluations, key=lambda evaluation: evaluation.step),
        )

    def held(self) -> JsonObject:
        """What is kept of it until those before it have come."""
        speed = self.tokens_per_second
        return {
            "phase": self.phase.value,
            "step": self.step,
            "resumed_from_step": self.resumed_from_step,
            "identity": None if self.identity is None else self.identity.model_dump(mode="json"),
            "tokens_per_second": speed if speed is None or math.isfinite(speed) else None,
            "saved": self.saved,
            "exit": None if self.exit is None else self.exit.model_dump(mode="json"),
        }


def held_effects(connection: Connection, attempt_id: int, sequence: int) -> list[Effect]:
    """Of the reports that came early and were waiting for this sequence."""
    return [
        _effect(number, held, reports.evaluations_between(connection, attempt_id, number - 1, number))
        for number, held in reports.held_after(connection, attempt_id, sequence)
    ]


def _effect(sequence: int, held: JsonObject | None, evaluations: Sequence[Evaluation]) -> Effect:
    if held is None:  # stored by the version before, which had it act at once
        return Effect(sequence, Phase.TRAINING, 0, evaluations=evaluations)
    values: dict[str, Any] = dict(held)
    parsed = {
        "phase": Phase(values["phase"]),
        "identity": values["identity"] and Identity.model_validate(values["identity"]),
        "exit": values["exit"] and ExitRecord.model_validate(values["exit"]),
    }
    return Effect(sequence, **(values | parsed), evaluations=evaluations)


def apply_effects(
    connection: Connection, context: Context, found: Standing, effects: Sequence[Effect], now: datetime
) -> Standing:
    """How the attempt and its run stand after these. What comes after the end of the attempt has none."""
    renewed = replace(found.attempt, acknowledged=effects[-1].sequence)
    standing = replace(found, attempt=renewed)
    for effect in effects:
        standing = _move(connection, context, standing, effect, now)
        for evaluation in effect.evaluations:
            judge(connection, context, standing.run.id, evaluation, standing.attempt, now)
            standing = need_standing(connection, standing.attempt.id)
            if standing.attempt.status is AttemptStatus.ENDED:
                return standing  # it diverged there; what it measured afterwards decides nothing
        if effect.exit is not None:
            _end(connection, context, standing.attempt.id, effect.exit, now)
            return need_standing(connection, standing.attempt.id)
    return standing


def _end(
    connection: Connection, context: Context, attempt_id: int, record: ExitRecord, now: datetime
) -> None:
    end_attempt(connection, context, attempt_id, code=record.code, message=record.message, now=now)


def _move(
    connection: Connection, context: Context, found: Standing, effect: Effect, now: datetime
) -> Standing:
    attempt = alive(context, found, effect.phase, effect.step, now)
    resumed = effect.resumed_from_step is not None  # a retry after divergence goes back
    if resumed:
        attempt = replace(attempt, step=effect.step)
    reports.renew(connection, attempt)
    if effect.identity is not None:
        told = effect.identity.model_dump(mode="json")
        runs.change_attempt(connection, attempt.id, identity=told)
        attempt = replace(attempt, identity=told)
    step = effect.step if resumed else max(effect.step, found.run.step)
    return replace(found, attempt=attempt, run=_move_run(connection, found.run, effect, step))


def _move_run(connection: Connection, run: RunRecord, effect: Effect, step: int) -> RunRecord:
    changes: dict[str, Any] = {"step": step}
    if run.resume_at_most is not None:  # the retry has got further: what it saved is sound again
        changes["resume_at_most"] = max(run.resume_at_most, effect.saved)
    if effect.identity is not None:
        changes["identity"] = effect.identity.model_dump(mode="json")
    if effect.tokens_per_second is not None:
        changes["tokens_per_second"] = effect.tokens_per_second
    return move_run(connection, run, changes)


def move_run(connection: Connection, run: RunRecord, changes: dict[str, Any]) -> RunRecord:
    """The run with what its worker told of it; a run that is over stays as it is."""
    if run.status.is_terminal:
        return run
    if run.status is RunStatus.STARTING:
        changes = changes | {"status": RunStatus.RUNNING}
    changed = {name: value for name, value in changes.items() if getattr(run, name) != value}
    if changed:
        runs.change_run(connection, run, **changed)
    return replace(run, **changed)


def alive(context: Context, found: Standing, phase: Phase, step: int, now: datetime) -> AttemptRecord:
    """The attempt with its lease renewed. It has come further if its step rose, its phase is another, or its
    run waits at a gate; the same step once more is a sign of life and none of progress. A worker at a gate
    that its run has not reached waits in vain: its evaluation there was never taken in.

    Nothing is taken back: the service that hears it may have a clock that lags behind the leader's.
    """
    attempt, waits = found.attempt, phase is Phase.AT_GATE and found.run.status is RunStatus.AT_GATE
    further = step > attempt.step or phase != attempt.phase or waits
    return replace(
        attempt,
        step=max(step, attempt.step),
        phase=phase.value,
        progress_at=max(attempt.progress_at or now, now) if further else attempt.progress_at,
        lease_expires_at=max(attempt.lease_expires_at, now + context.limits.lease),
    )
