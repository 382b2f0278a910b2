"""What an attempt has to say to the service, and what it is answered at a step boundary."""

import logging
from collections.abc import Callable, Iterable
from time import perf_counter

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.report import (
    CheckpointRecord,
    Directive,
    DirectiveKind,
    Evaluation,
    Phase,
    Point,
)
from trainer.contract.reporter import Reporter
from trainer.problems import DiskFull, StaleEpoch

log = logging.getLogger(__name__)

POINTS_EVERY_SECONDS = 1.0

Ending = tuple[ExitCode, str]
"""How an attempt ends, and why in a sentence."""


class Dialogue:
    """Gathers what is reported together, and obeys. `target` is the step that was last asked for."""

    def __init__(
        self, assignment: Assignment, interrupted: Callable[[], bool], reporter: Reporter | None = None
    ) -> None:
        self.reporter = reporter or Reporter(assignment)
        self.target = assignment.target_step
        self.evaluation: Evaluation | None = None
        """Not reported yet, like the next."""
        self.checkpoints: list[CheckpointRecord] = []
        self.notes: list[str] = []
        self._points: list[Point] = []
        self._told_at = perf_counter()
        self._assignment = assignment
        self._interrupted = interrupted

    def add_points(self, points: Iterable[Point]) -> None:
        """Dense points: sent about once a second, in one report."""
        self._points += points

    def tell_points(self, step: int, *, now: bool = False) -> None:
        """The points and notes gathered so far, when it is time for them or `now`."""
        due = now or perf_counter() - self._told_at >= POINTS_EVERY_SECONDS
        if due and (self._points or self.notes):
            self._emit(Phase.TRAINING, step)

    def tell(self, step: int, phase: Phase = Phase.TRAINING) -> int:
        """Everything that is not reported yet, in one report; its sequence, 0 when there was nothing."""
        evaluations = (self.evaluation,) if self.evaluation else ()
        checkpoints = tuple(self.checkpoints)
        if phase is Phase.TRAINING and not (evaluations or checkpoints or self._points or self.notes):
            return 0
        self.evaluation, self.checkpoints = None, []
        return self._emit(phase, step, evaluations=evaluations, checkpoints=checkpoints)

    def orders(self, step: int) -> Ending | None:
        """How it must end at this boundary, after a signal or the newest directive.

        Raises `StaleEpoch`, and `DiskFull` when a report could not be spooled.
        """
        if self.reporter.stale:
            raise StaleEpoch("the service says that another attempt holds the lease")
        if (full := self.reporter.full) is not None:
            where = self._assignment.directory
            raise DiskFull(f"the spool in {where} could not be written ({full.strerror}): make room there")
        if self._interrupted():
            return ExitCode.PREEMPTED, "a signal asked it to leave"
        return self._obey(self.reporter.directive(), step)

    def wait_at_gate(self, step: int) -> Ending | None:
        """Reports being at the target and obeys the answer. None: the target is further away now."""
        if not self.reporter.connected:
            return ExitCode.FINISHED, f"trained to step {step}"
        a = self._assignment
        sequence = self.tell(step, Phase.AT_GATE)
        directive = self.reporter.wait_for_answer(
            sequence, a.gate_poll_seconds, a.gate_wait_seconds, self._interrupted
        )
        if directive is not None:
            return self._obey(directive, step)
        if self.reporter.stale or self._interrupted():
            return self.orders(step)
        return ExitCode.AT_GATE, f"the service was silent for {a.gate_wait_seconds:g} s"

    def _obey(self, directive: Directive | None, step: int) -> Ending | None:
        if directive is None or directive.kind is DirectiveKind.WAIT:
            return None
        if directive.kind is DirectiveKind.CONTINUE:
            if directive.target_step > self.target:
                self.target = directive.target_step
                log.info("going on from step %d to %d", step, self.target)
            return None
        if directive.kind is DirectiveKind.YIELD:
            return ExitCode.AT_GATE, directive.reason or "told to yield"
        finished = step >= self.target and directive.reason == "finished"
        return ExitCode.FINISHED if finished else ExitCode.STOPPED, directive.reason or "told to stop"

    def _emit(self, phase: Phase, step: int, **parts: object) -> int:
        points, notes = tuple(self._points), tuple(self.notes)
        self._points, self.notes, self._told_at = [], [], perf_counter()
        return self.reporter.emit(phase, step, points=points, notes=notes, **parts)
