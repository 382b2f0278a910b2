"""The loop: step, evaluate, checkpoint, report, ask; from where the run is to where it is told to go."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import CheckpointRecord, Evaluation, Point
from trainer.contract import folders
from trainer.contract.dialogue import Dialogue, Ending
from trainer.contract.reporter import Reporter
from trainer.evaluate import evaluation_loss
from trainer.measure import evaluation, newly_reached
from trainer.problems import Diverged
from trainer.resume import snapshot
from trainer.saver import Saver
from trainer.state import Progress, Window
from trainer.team import Order
from trainer.training import StepResult, Training

log = logging.getLogger(__name__)


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
        self._dialogue = Dialogue(assignment, interrupted, reporter)
        self.saved_step = progress.step
        """Of the newest checkpoint on disk; 0 when there is none, and none is needed."""
        config = training.config
        self._saver = Saver(
            Path(assignment.directory), {*assignment.gate_steps, assignment.target_step, progress.step}
        )
        self._told_step = -1
        """Of the newest evaluation that this attempt has reported."""
        self._windows = training.data.evaluation_windows(config.sequence_length)
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
                return self._leave(*ending)
            self._step()
            if self._evaluation_due():
                self._evaluate()

    # --- a step boundary --------------------------------------------------------------------------------

    def _boundary(self) -> Ending | None:
        """Obeys signals and directives; at the target, waits for what comes next. None: train on."""
        ending = self._dialogue.orders(self.progress.step)
        while ending is None and self.progress.step >= self._dialogue.target:
            ending = self._gate()
        return ending

    def _gate(self) -> Ending | None:
        """With its evaluation and checkpoint on record; told once more by a run that was resumed here."""
        p, dialogue = self.progress, self._dialogue
        if self._evaluated_at() != p.step:  # resumed here, from where a signal had stopped it
            self._evaluate()
        self._settle()
        if self._told_step != p.step:
            dialogue.evaluation = Evaluation.model_validate(p.last_evaluation)
            found = folders.records([Path(d) for d in self._directories()], p.step)
            dialogue.checkpoints += map(self._with_loss, found)
        return dialogue.wait_at_gate(p.step)

    def _leave(self, code: ExitCode, message: str) -> ExitRecord:
        step = self.progress.step
        self._settle()
        if step > self.saved_step:
            self._dialogue.tell_points(
                step, now=True
            )  # in the spool before the checkpoint, as in `_evaluate`
            self._save()
            self._settle()
        self._dialogue.tell(step)
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
        self._dialogue.reporter.progress(p.step, p.window.tokens_per_second)
        if not result.finite:
            self._count_nan(t.max_nan_steps)

    def _count_nan(self, most: int) -> None:
        p = self.progress
        p.nan_events += 1
        p.nan_in_a_row += 1
        log.warning("step %d was not finite and was skipped", p.step)
        if p.nan_in_a_row >= most:
            self._dialogue.tell_points(p.step, now=True)
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
        self._add_points({name: v for name, v in values.items() if v is not None})
        self._dialogue.tell_points(self.progress.step)

    def _add_points(self, values: Mapping[str, float]) -> None:
        step = self.progress.step
        self._dialogue.add_points(Point(step=step, name=name, value=v) for name, v in values.items())

    # --- evaluation, checkpoint, report -------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        step = self.progress.step
        return (
            step % self.assignment.eval_every == 0
            or step == self._dialogue.target
            or step in self.assignment.gate_steps
        )

    def _evaluate(self) -> None:
        p, training = self.progress, self.training
        loss = evaluation_loss(
            training.model, self._windows, training.config.vocab_size, training.device, training.precision
        )
        measured = evaluation(training, p, self._last, loss)
        reached = newly_reached(p, training.config.train.target_losses, loss)
        self._add_points({f"seconds_to_loss/{target:g}": p.wall_seconds for target in reached})
        p.last_evaluation = measured.model_dump(mode="json")
        p.window = Window()
        training.counts = training.dropped = None
        log.info("step %d eval loss %.4f train loss %.4f", p.step, loss, measured.train_loss)
        # In the spool before the checkpoint begins: what is resumed from has its evaluation on record.
        self._dialogue.evaluation = measured
        self._dialogue.tell(p.step)
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
            self._dialogue.checkpoints.append(self._with_loss(record))
            self._dialogue.tell(self.progress.step)

    def _with_loss(self, record: CheckpointRecord) -> CheckpointRecord:
        last = self.progress.last_evaluation
        loss = float(last["eval_loss"]) if last and record.step == last["step"] else None
        return record.model_copy(update={"eval_loss": loss})

    def _evaluated_at(self) -> int:
        last = self.progress.last_evaluation
        return int(last["step"]) if last else -1

    def _directories(self) -> list[str]:
        return [self.assignment.directory, *self.assignment.resume_from]
