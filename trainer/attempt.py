"""A loop of your own as a trainer kind: it speaks the worker's contract, and never touches a tensor.

    with Attempt.from_arguments() as attempt:
        model, held_out = build(attempt.config, attempt.seed)
        attempt.identify(check(attempt.config), evaluation_set=..., tokenizer=...)
        if attempt.resume_folder:
            load(model, attempt.resume_folder)
        for step in attempt.steps(save=lambda folder: store(model, folder)):
            loss = train_one_step(model, step)
            attempt.log(train_loss=loss)
            if attempt.evaluation_due:
                attempt.evaluated(eval_loss=evaluate(model, held_out))

The block is left by `SystemExit` with the documented code, unless the run has finished.
"""

import logging
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from types import TracebackType

from pydantic import ValidationError

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.report import Identity, PassedOver, Phase, Point
from orchestrator.protocol.wire import JsonObject
from trainer.contract import folders, kept
from trainer.contract.dialogue import Dialogue, Ending
from trainer.contract.ending import account, write_exit
from trainer.contract.room import room
from trainer.contract.tally import Tally
from trainer.problems import Diverged, WorkerProblem

log = logging.getLogger(__name__)

MAX_NAN_LOSSES = 5

Save = Callable[[Path], object]
"""Writes everything that the next step depends on into the folder that it is given."""


class Left(Exception):
    """Thrown through a loop that cannot be left otherwise, once it was told to end."""


class Misused(WorkerProblem):
    """The loop did not do what it must: a fault of its code, that trying again would not mend."""

    code = ExitCode.CONFIG_ERROR


class Attempt:
    """One attempt at a run, from its assignment to its exit record."""

    def __init__(self, assignment: Assignment, interrupted: Callable[[], bool] = lambda: False) -> None:
        self.assignment = assignment
        self.config: JsonObject = assignment.config
        self.seed = assignment.seed
        self.horizon = assignment.horizon_step
        """The last step of the last stage: what schedules are sized to, whatever the target is today."""
        self.directory = Path(assignment.directory)
        self.max_nan_losses = MAX_NAN_LOSSES
        """So many train losses in a row that are not finite end the attempt as diverged."""
        self._interrupted = interrupted
        self._identity: Identity | None = None
        self._tally = Tally()
        self._saved_step = 0
        self._size = 0  # of the checkpoint before, in bytes: the next will be about as large
        self._began: float | None = None  # of the step that is being timed
        self._logged_at: float | None = None
        self._ending: Ending | None = None

    @classmethod
    def from_arguments(cls, arguments: Sequence[str] | None = None) -> "Attempt":
        """The attempt of the assignment file that the first argument names; SIGTERM and SIGINT are heeded."""
        from trainer.contract.interrupt import Interrupt

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        given = sys.argv[1:] if arguments is None else arguments
        try:
            assignment = Assignment.model_validate_json(Path(given[0]).read_bytes())
        except (IndexError, OSError, ValidationError) as error:
            log.error("the first argument must be the path of an assignment: %s", error)
            raise SystemExit(ExitCode.CONFIG_ERROR) from None
        return cls(assignment, Interrupt())

    # --- from the beginning to the end ----------------------------------------------------------------

    def __enter__(self) -> "Attempt":
        self.directory.mkdir(parents=True, exist_ok=True)
        self._dialogue = Dialogue(self.assignment, self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        record = self._account(error)
        write_exit(self.directory, record)
        try:
            self._dialogue.tell_points(self.step, now=True)
            self._dialogue.reporter.close(record)
        except OSError:
            log.exception("the last reports could not be spooled")
        if record.code != ExitCode.FINISHED:
            raise SystemExit(record.code)

    def _account(self, error: BaseException | None) -> ExitRecord:
        if error is not None and not isinstance(error, Left):
            return account(error, self.step)
        early = ExitCode.CRASHED, f"the loop was left at step {self.step}, before it was told to end"
        code, message = self._ending or early
        return ExitRecord(code=code, message=message, step=self.step)

    def identify(
        self,
        facts: ConfigFacts,
        *,
        evaluation_set: str,
        tokenizer: str,
        device: str = "cpu",
        threads: int | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        """Says what makes this run comparable; the first report. `facts` are those of the kind's own check.

        `evaluation_set` is a hash of the held-out tokens; `device` begins with `cuda` on a GPU. Raises
        `ConfigMismatch` when the checkpoint to resume from is of another config, text, tokenizer or horizon.
        """
        self._identity = Identity(
            **facts.model_dump(exclude={"config", "rows_per_pass"}),
            evaluation_set=evaluation_set,
            tokenizer=tokenizer,
            horizon_step=self.horizon,
            device=device,
            threads=threads or self.assignment.threads,
            versions={"python": platform.python_version(), **(versions or {})},
        )
        kept.check_identity(self._identity)
        folder, passed_over = self._resumed
        if folder is not None:
            self._tally = kept.read(folder, self.assignment, self._identity)
            self._saved_step = self.step
            self._size = folders.size_of(folder)
        self._dialogue.reporter.emit(
            Phase.STARTING,
            self.step,
            resumed_from_step=self.step,
            identity=self._identity,
            passed_over=tuple(passed_over),
        )
        log.info("training from step %d to %d", self.step, self._dialogue.target)

    # --- what the loop asks and says --------------------------------------------------------------------

    @property
    def resume_folder(self) -> Path | None:
        """The newest checkpoint that verifies, to load from; None to begin at step 0."""
        return self._resumed[0]

    @property
    def step(self) -> int:
        """The step that is trained, counted from 1; before the first, the step resumed from."""
        return self._tally.step

    def steps(self, save: Save) -> Iterator[int]:
        """The steps to train, to wherever the service says. `save` is called when a checkpoint is due.

        That is after an evaluation and before leaving, always between two steps.
        """
        while self.goes_on(save):
            self.step_begins()
            yield self.step
            self.step_ended()

    @property
    def evaluation_due(self) -> bool:
        """This step must be evaluated: `evaluated` is to be called before it ends."""
        a, step = self.assignment, self.step
        marked = step % a.eval_every == 0 or step == self._dialogue.target or step in a.gate_steps
        return step > 0 and marked

    def log(self, **values: float | None) -> None:
        """Points of this step: `train_loss` at least now and then; None is left out.

        `learning_rate` and `grad_norm` are repeated in the next evaluation. Call it before evaluating: the
        time of the step ends here. Raises `Diverged` after `max_nan_losses` losses that are not finite.
        """
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        self._logged_at, tally = perf_counter(), self._tally
        self._dialogue.add_points(Point(step=self.step, name=n, value=v) for n, v in numbers.items())
        self._dialogue.tell_points(self.step)
        tally.learning_rate = numbers.get("learning_rate", tally.learning_rate)
        tally.grad_norm = numbers.get("grad_norm", tally.grad_norm)
        if "train_loss" in numbers:
            tally.add_loss(numbers["train_loss"])
        if tally.nan_in_a_row >= self.max_nan_losses:
            raise Diverged(
                f"{tally.nan_in_a_row} train losses in a row were not finite, the last at step {self.step}"
            )

    def evaluated(self, eval_loss: float, **measured: object) -> None:
        """The held-out loss at this step, in nats per token; the rest of an `Evaluation` is worked out.

        `measured` replaces any of that: `peak_memory_bytes` of a GPU, `routing`, `aux_loss`.
        """
        if not self.evaluation_due:
            raise Misused(f"step {self.step} is not to be evaluated: ask `evaluation_due` first")
        if self._tally.logged_step <= self._tally.window_step:
            raise Misused("log a `train_loss` between evaluations: the rules that stop a run read it")
        self.step_ended()
        tokens = self._need_identity().tokens_per_step
        self._dialogue.evaluation = self._tally.evaluate(float(eval_loss), tokens, dict(measured))
        log.info("step %d eval loss %.4f", self.step, eval_loss)

    def note(self, text: str) -> None:
        """A sentence for a person, with the next report."""
        self._dialogue.notes.append(text)

    # --- the same in parts, for a loop that calls back ----------------------------------------------------

    def step_begins(self, at: float | None = None) -> None:
        """A step is trained from now on, or since `at` by `time.perf_counter`."""
        self._tally.step += 1
        self._began, self._logged_at = at or perf_counter(), None

    def step_ended(self) -> None:
        """The step is trained; asked again it counts nothing twice."""
        if self._began is not None:
            self._tally.trained_for((self._logged_at or perf_counter()) - self._began)
            self._began = None
            speed = self._tally.steps_per_second() * self._need_identity().tokens_per_step
            self._dialogue.reporter.progress(self.step, speed)

    def goes_on(self, save: Save | None = None) -> bool:
        """Between two steps: saves and reports what is due, obeys, waits at a gate; False when told to end.

        Without `save`, a checkpoint that is needed must have been given to `seal`. Raises `StaleEpoch`.
        """
        self._settle(save)
        ending = self._dialogue.orders(self.step)
        while ending is None and self.step >= self._dialogue.target:
            self._gather_gate()
            ending = self._dialogue.wait_at_gate(self.step)
        if ending is None:
            return True
        if self.step > self._saved_step:
            self._save(save)
        self._dialogue.tell(self.step)
        self._ending = ending
        return False

    def told_to_end(self) -> bool:
        """A signal or a directive ends it at this step boundary. Raises `StaleEpoch`."""
        return self._dialogue.orders(self.step) is not None

    def seal(self, folder: Path) -> None:
        """Makes `folder`, on the disk of the attempt's directory, the checkpoint of this step."""
        self._tell_before_saving()
        with room(self.directory, self.step, 0, self._keep):  # the files of the loop are there already
            kept.write(folder, self.assignment, self._need_identity(), self._tally)
            record = folders.seal(folder, self.directory, self.step)
        self._saved_step, self._size = self.step, record.size_bytes
        evaluation = self._tally.evaluation_here()
        loss = evaluation.eval_loss if evaluation else None
        self._dialogue.checkpoints.append(record.model_copy(update={"eval_loss": loss}))
        folders.prune(self.directory, self._keep)

    # --- parts --------------------------------------------------------------------------------------------

    @cached_property
    def _resumed(self) -> tuple[Path | None, list[PassedOver]]:
        return folders.newest(self._directories(), self.assignment.resume_at_most, folders.verified)

    @property
    def _keep(self) -> set[int]:
        """Steps whose checkpoints outlive the retention of the others."""
        return {*self.assignment.gate_steps, self.assignment.target_step}

    def _directories(self) -> list[Path]:
        return [self.directory, *map(Path, self.assignment.resume_from)]

    def _settle(self, save: Save | None) -> None:
        """What was evaluated is reported and saved; at the target the gate's report carries both."""
        self._need_identity()
        if self.evaluation_due and self._tally.evaluation_here() is None:
            raise Misused(f"step {self.step} was not evaluated: call `evaluated` when `evaluation_due`")
        if self._dialogue.evaluation is not None and self.step > self._saved_step:
            self._save(save)
        untold = self._dialogue.evaluation is not None or self._dialogue.checkpoints
        if untold and self.step < self._dialogue.target:
            self._dialogue.tell(self.step)

    def _tell_before_saving(self) -> None:
        """What is resumed from has its losses in the spool, whenever the worker is killed.

        The evaluation at the target alone goes with its checkpoint, and is told again when resumed there.
        """
        if self.step < self._dialogue.target:
            self._dialogue.tell(self.step)
        else:
            self._dialogue.tell_points(self.step, now=True)

    def _gather_gate(self) -> None:
        """The evaluation and checkpoint of the target, once more if the run was resumed there."""
        evaluation = self._dialogue.evaluation = self._tally.evaluation_here()
        loss = evaluation.eval_loss if evaluation else None
        found = [p for p in folders.candidates(self._directories()) if folders.step_of(p) == self.step]
        records = [folders.record(path).model_copy(update={"eval_loss": loss}) for path in found[:1]]
        self._dialogue.checkpoints = records

    def _save(self, save: Save | None) -> None:
        if save is None:
            raise Misused(f"there is no checkpoint of step {self.step}: give its folder to `seal`")
        with room(self.directory, self.step, self._size, self._keep):
            folder = folders.building(self.directory, self.step)
            try:
                save(folder)
                self.seal(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _need_identity(self) -> Identity:
        if self._identity is None:
            raise Misused("call `identify` before the first step")
        return self._identity
