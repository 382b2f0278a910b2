"""The loop: step, evaluate, checkpoint, report, ask; from where the run is to where it is told to go."""

import logging
import resource
from collections.abc import Callable
from math import exp, inf
from pathlib import Path
from time import perf_counter

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import CheckpointRecord, Directive, DirectiveKind, Evaluation, Phase, Point
from trainer import checkpoint
from trainer.evaluate import evaluation_loss
from trainer.health import routing_health
from trainer.problems import Diverged, StaleEpoch
from trainer.reporter import Reporter
from trainer.resume import snapshot
from trainer.state import Progress, Window
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
        self._windows = training.data.evaluation_windows(config.sequence_length)
        self._points: list[tuple[int, str, float]] = []
        self._flushed_at = perf_counter()
        self._last: StepResult | None = None

    def run(self) -> ExitRecord:
        """Trains to the target and on to wherever the service says."""
        while True:
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
        if not self.reporter.connected:
            return self._leave(ExitCode.FINISHED, f"trained to step {self.progress.step}")
        a = self.assignment
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
        self._flush_points()
        if step > self.saved_step:
            record = self._save(None)
            self.reporter.emit(Phase.TRAINING, step, checkpoints=(record,))
        return ExitRecord(code=code, message=message, step=step)

    # --- a step ------------------------------------------------------------------------------------------

    def _step(self) -> None:
        p, t = self.progress, self.training.config.train
        began = perf_counter()
        detailed = (p.step + 1) % t.log_every == 0
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
            "token_entropy": result.token_entropy,
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
        loss = evaluation_loss(training.model, self._windows, training.config.vocab_size, training.device)
        evaluation = self._evaluation(loss)
        p.last_evaluation = evaluation.model_dump(mode="json")
        p.window = Window()
        training.counts = None
        record = self._save(loss)
        log.info("step %d eval loss %.4f train loss %.4f", p.step, loss, evaluation.train_loss)
        if p.step < self.target or not self.reporter.connected:  # at the target the gate's report carries it
            self.reporter.emit(
                Phase.TRAINING,
                p.step,
                evaluations=(evaluation,),
                checkpoints=(record,),
                points=self._take_points(),
            )

    def _evaluation(self, loss: float) -> Evaluation:
        p, w, last = self.progress, self.progress.window, self._last
        moe = last is not None and last.aux_coef is not None
        return Evaluation(
            step=p.step,
            tokens=p.tokens,
            eval_loss=loss,
            perplexity=exp(loss) if loss < 700 else inf,
            train_loss=w.mean_loss,
            learning_rate=last.learning_rate if last else 0.0,
            grad_norm=p.grad_norm,
            nan_events=p.nan_events,
            tokens_per_second=w.tokens_per_second,
            wall_seconds=p.wall_seconds,
            peak_memory_bytes=peak_memory_bytes(self.training),
            aux_loss=w.mean_aux if moe else None,
            aux_coef=last.aux_coef if last else None,
            routing=routing_health(self.training.counts.tolist())
            if self.training.counts is not None
            else None,
        )

    def _report_gate(self) -> int:
        """Reports the evaluation and checkpoint at the target, once more if the run was resumed there."""
        p = self.progress
        evaluations: tuple[Evaluation, ...] = ()
        loss = None
        if p.last_evaluation is not None and p.last_evaluation["step"] == p.step:
            evaluations = (Evaluation.model_validate(p.last_evaluation),)
            loss = evaluations[0].eval_loss
        found = checkpoint.records([Path(d) for d in self._directories()], p.step)
        records = tuple(record.model_copy(update={"eval_loss": loss}) for record in found)
        return self.reporter.emit(
            Phase.AT_GATE, p.step, evaluations=evaluations, checkpoints=records, points=self._take_points()
        )

    def _save(self, loss: float | None) -> CheckpointRecord:
        a, directory = self.assignment, Path(self.assignment.directory)
        model, optimizer, state = snapshot(self.training, self.progress)
        record = checkpoint.write(directory, self.progress.step, model, optimizer, state)
        self.saved_step = self.progress.step
        checkpoint.prune(directory, {*a.gate_steps, a.target_step})
        return record.model_copy(update={"eval_loss": loss})

    def _directories(self) -> list[str]:
        return [self.assignment.directory, *self.assignment.resume_from]

    def _flush_points(self) -> None:
        if self._points:
            self.reporter.emit(Phase.TRAINING, self.progress.step, points=self._take_points())

    def _take_points(self) -> tuple[Point, ...]:
        points = tuple(Point(step=step, name=name, value=value) for step, name, value in self._points)
        self._points, self._flushed_at = [], perf_counter()
        return points


def peak_memory_bytes(training: Training) -> int:
    """Of this process: device memory on CUDA, resident memory on CPU."""
    if training.device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(training.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux gives KiB
