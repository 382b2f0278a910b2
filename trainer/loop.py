"""The loop: step, evaluate, checkpoint, report, ask; from where the run is to where it is told to go."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import CheckpointRecord, Directive, DirectiveKind, Evaluation, Phase, Point
from trainer.contract import folders
from trainer.contract.reporter import Reporter
from trainer.evaluate import evaluation_loss
from trainer.measure import evaluation, newly_reached
from trainer.problems import Diverged, StaleEpoch
from trainer.resume import snapshot
from trainer.saver import Saver
from trainer.state import Progress, Window
from trainer.team import Order
from trainer.training import StepResult, Training

log = logging.getLogger(__name__)

POINTS_EVERY_SECONDS = 1.0


class Loop:
    """One attempt's way through its steps. `run` returns how it ended, or raises a `WorkerProblem`."""

    def __init__(
        self,
        assignment: Assignment,
        training: Training,
        progress: Progress,
        reporter: Reporter,
        interrupted: Callable[[], bool],
    ) -> None:
        self.assignment, self.training, self.progress = assignment, training, progress
        self.reporter, self.interrupted = reporter, interrupted
        self.target = assignment.target_step
        self.saved_step = progress.step
        """Of the newest checkpoint on disk; 0 when there is none, and none is needed."""
        config = training.config
        self._saver = Saver(
            Path(assignment.directory), {*assignment.gate_steps, assignment.target_step, progress.step}
        )
        self._told_step = -1
        """Of the newest evaluation that this attempt has reported."""
        self._windows = training.data.evaluation_windows(config.sequence_length)
        self._points: list[tuple[int, str, float]] = []
        self._flushed_at = perf_counter()
        self._last: StepResult | None = None

    def run(self) -> ExitRecord:
        """Trains to the target and on to wherever the service says."""
        with self._saver:
            try:
                return self._run()
            except BaseException:
                with suppress(Exception):  # what ended the run is what counts
                    self._settle()
                raise

    def _run(self) -> ExitRecord:
        while True:
            self._report_saved(wait=False)
            if (ending := self._boundary()) is not None:
                return ending
            self._step()
            if self._evaluation_due():
                self._evaluate()

    # --- a step boundary --------------------------------------------------------------------------------

    def _boundary(self) -> ExitRecord | None:
        """Obeys signals and directives; at the target, waits for what comes next. None: train on."""
        if self.reporter.stale:
            raise StaleEpoch("the service says that another attempt holds the lease")
        if self.interrupted():
            return self._leave(ExitCode.PREEMPTED, "a signal asked it to leave")
        ending = self._obey(self.reporter.directive())
        while ending is None and self.progress.step >= self.target:
            ending = self._gate()
        return ending

    def _gate(self) -> ExitRecord | None:
        """Reports being at the target and obeys the answer. None: the target is further away now."""
        if self._evaluated_at() != self.progress.step:  # resumed here, from where a signal had stopped it
            self._evaluate()
        if not self.reporter.connected:
            return self._leave(ExitCode.FINISHED, f"trained to step {self.progress.step}")
        a = self.assignment
        self._settle()
        sequence = self._report_gate()
        directive = self.reporter.wait_for_answer(
            sequence, a.gate_poll_seconds, a.gate_wait_seconds, self.interrupted
        )
        if directive is not None:
            return self._obey(directive)
        if self.reporter.stale or self.interrupted():
            return self._boundary()
        return self._leave(ExitCode.AT_GATE, f"the service was silent for {a.gate_wait_seconds:g} s")

    def _obey(self, directive: Directive | None) -> ExitRecord | None:
        if directive is None or directive.kind is DirectiveKind.WAIT:
            return None
        if directive.kind is DirectiveKind.CONTINUE:
            if directive.target_step > self.target:
                self.target = directive.target_step
                log.info("going on from step %d to %d", self.progress.step, self.target)
            return None
        if directive.kind is DirectiveKind.YIELD:
            return self._leave(ExitCode.AT_GATE, directive.reason or "told to yield")
        finished = self.progress.step >= self.target and directive.reason == "finished"
        return self._leave(
            ExitCode.FINISHED if finished else ExitCode.STOPPED, directive.reason or "told to stop"
        )

    def _leave(self, code: ExitCode, message: str) -> ExitRecord:
        step = self.progress.step
        self._settle()
        self._flush_points()
        if step > self.saved_step:
            self._save()
            self._settle()
        return ExitRecord(code=code, message=message, step=step)

    # --- a step ------------------------------------------------------------------------------------------

    def _step(self) -> None:
        p, t = self.progress, self.training.config.train
        began = perf_counter()
        detailed = (p.step + 1) % t.log_every == 0
        self.training.team.say(Order.STEP, p.step, detailed=detailed)
        result = self.training.step(p.step, detailed=detailed)
        p.step += 1
        p.tokens += self.training.config.tokens_per_step
        p.grad_norm = result.grad_norm
        p.window.tokens += self.training.config.tokens_per_step
        if result.finite:
            p.window.add(result.loss, result.aux_loss or 0.0)
            p.nan_in_a_row = 0
        if detailed or not result.finite:
            self._record(result)
        spent = perf_counter() - began
        p.wall_seconds += spent
        p.window.seconds += spent
        self._last = result
        self.reporter.progress(p.step, p.window.tokens_per_second)
        if not result.finite:
            self._count_nan(t.max_nan_steps)

    def _count_nan(self, most: int) -> None:
        p = self.progress
        p.nan_events += 1
        p.nan_in_a_row += 1
        log.warning("step %d was not finite and was skipped", p.step)
        if p.nan_in_a_row >= most:
            self._flush_points()
            raise Diverged(f"{most} steps in a row were not finite, the last of them step {p.step}")

    def _record(self, result: StepResult) -> None:
        values = {
            "train_loss": result.loss,
            "learning_rate": result.learning_rate,
            "grad_norm": result.grad_norm,
            "tokens_per_second": self.progress.window.tokens_per_second or None,
            "aux_loss": result.aux_loss,
            "aux_loss_pooled": result.aux_loss_pooled,
            "aux_coef": result.aux_coef,
            "z_loss": result.z_loss,
            **result.details,
        }
        self._points += [(self.progress.step, name, v) for name, v in values.items() if v is not None]
        if perf_counter() - self._flushed_at >= POINTS_EVERY_SECONDS:
            self._flush_points()

    # --- evaluation, checkpoint, report -------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        step = self.progress.step
        return (
            step % self.assignment.eval_every == 0
            or step == self.target
            or step in self.assignment.gate_steps
        )

    def _evaluate(self) -> None:
        p, training = self.progress, self.training
        loss = evaluation_loss(
            training.model, self._windows, training.config.vocab_size, training.device, training.precision
        )
        measured = evaluation(training, p, self._last, loss)
        for target in newly_reached(p, training.config.train.target_losses, loss):
            self._points.append((p.step, f"seconds_to_loss/{target:g}", p.wall_seconds))
        p.last_evaluation = measured.model_dump(mode="json")
        p.window = Window()
        training.counts = training.dropped = None
        log.info("step %d eval loss %.4f train loss %.4f", p.step, loss, measured.train_loss)
        # In the spool before the checkpoint begins: what is resumed from has its evaluation on record.
        self.reporter.emit(Phase.TRAINING, p.step, evaluations=(measured,), points=self._take_points())
        self._told_step = p.step
        self._save()

    def _save(self) -> None:
        """Begins a checkpoint of this step; the one before is on disk and reported first."""
        self._settle()
        self._saver.start(self.progress.step, *snapshot(self.training, self.progress))
        self.saved_step = self.progress.step

    def _settle(self) -> None:
        """Waits for the checkpoint that is being written, and reports it."""
        self._report_saved(wait=True)

    def _report_saved(self, *, wait: bool) -> None:
        """Reports a checkpoint that has come to disk."""
        record = self._saver.take(wait=wait)
        if record is not None:
            self.reporter.emit(Phase.TRAINING, self.progress.step, checkpoints=(self._with_loss(record),))

    def _report_gate(self) -> int:
        """Reports being at the target; if resumed there, with the evaluation and checkpoint once more."""
        p = self.progress
        if self._told_step == p.step:
            return self.reporter.emit(Phase.AT_GATE, p.step, points=self._take_points())
        found = folders.records([Path(d) for d in self._directories()], p.step)
        return self.reporter.emit(
            Phase.AT_GATE,
            p.step,
            evaluations=(Evaluation.model_validate(p.last_evaluation),),
            checkpoints=tuple(map(self._with_loss, found)),
            points=self._take_points(),
        )

    def _with_loss(self, record: CheckpointRecord) -> CheckpointRecord:
        last = self.progress.last_evaluation
        loss = float(last["eval_loss"]) if last and record.step == last["step"] else None
        return record.model_copy(update={"eval_loss": loss})

    def _evaluated_at(self) -> int:
        last = self.progress.last_evaluation
        return int(last["step"]) if last else -1

    def _directories(self) -> list[str]:
        return [self.assignment.directory, *self.assignment.resume_from]

    def _flush_points(self) -> None:
        if self._points:
            self.reporter.emit(Phase.TRAINING, self.progress.step, points=self._take_points())

    def _take_points(self) -> tuple[Point, ...]:
        points = tuple(Point(step=step, name=name, value=value) for step, name, value in self._points)
        self._points, self._flushed_at = [], perf_counter()
        return points
