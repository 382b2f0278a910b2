"""Scripted workers that speak the contract as the real ones do: spool, post, resend, obey, leave a record."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from services.worlds import check

from orchestrator.domain.ids import number_of
from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import (
    Answer,
    CheckpointRecord,
    DirectiveKind,
    Evaluation,
    Heartbeat,
    Identity,
    PassedOver,
    Phase,
    Point,
    Report,
)
from simulation.shapes import Shape

GATE_PATIENCE = 60.0
"""Seconds that a worker waits at a gate for a service that does not answer."""


class Mode(StrEnum):
    UP = "up"
    HUNG = "hung"
    STALLED = "stalled"
    ZOMBIE = "zombie"


@dataclass
class Saved:
    """One checkpoint on a disk that is not there."""

    step: int
    directory: str
    poisoned: bool = False
    damaged: bool = False

    @property
    def path(self) -> str:
        return f"{self.directory}/checkpoints/step-{self.step:08d}"


Post = Callable[["Worker", Report], Answer | None]
"""Sends a report through the network; None when no answer came. Raises `StaleEpoch`."""
Beat = Callable[["Worker", Heartbeat], Answer | None]


@dataclass
class Worker:
    """One attempt at a run. Trains `eval_every` steps in a move."""

    key: str
    assignment: Assignment
    shape: Shape
    disk: list[Saved]
    """Of all workers: they resume from each other's."""
    step: int = 0
    spooled: list[Report] = field(default_factory=list)
    acknowledged: int = 0
    answer: Answer | None = None
    heard_at: float = 0.0
    mode: Mode = Mode.UP
    poisoned: bool = False
    exited: bool = False
    passed_over: list[Saved] = field(default_factory=list)
    told: int = 0
    """The step of the newest evaluation that it spooled."""

    @property
    def attempt(self) -> int:
        return number_of("att", self.assignment.attempt_id)

    @property
    def run(self) -> int:
        return number_of("run", self.assignment.run_id)

    @property
    def directory(self) -> Path:
        return Path(self.assignment.directory)

    @property
    def target(self) -> int:
        told = self.answer.directive if self.answer else None
        further = told.target_step if told and told.kind is DirectiveKind.CONTINUE else 0
        return max(self.assignment.target_step, further)

    def candidates(self) -> list[Saved]:
        """Checkpoints that it may resume from, newest first."""
        most = self.assignment.resume_at_most
        folders = (self.assignment.directory, *self.assignment.resume_from)
        found = [s for s in self.disk if s.directory in folders and (most is None or s.step <= most)]
        return sorted(found, key=lambda saved: (-saved.step, folders.index(saved.directory)))

    def resume(self) -> None:
        """Goes on from the newest checkpoint that is whole, and says what it passed over."""
        for saved in self.candidates():
            if not saved.damaged:
                self.step, self.poisoned = saved.step, saved.poisoned
                break
            self.passed_over.append(saved)

    def spool(self, phase: Phase, *, torn: bool = False, **parts: object) -> None:
        """One more line; a torn one is the last thing that a killed worker did."""
        report = Report(
            epoch=self.assignment.epoch,
            sequence=len(self.spooled) + 1,
            phase=phase,
            step=self.step,
            **parts,  # type: ignore[arg-type]  # the fields of a report
        )
        line = report.model_dump_json() + "\n"
        with (self.directory / "spool.jsonl").open("a") as stream:
            stream.write(line[: len(line) // 2] if torn else line)
        if not torn:
            self.spooled.append(report)

    def begin(self) -> None:
        """The first report: from where it goes on, and as what."""
        over = tuple(PassedOver(step=s.step, path=s.path, problem="is torn") for s in self.passed_over)
        identity = self._identity()
        self.spool(Phase.STARTING, resumed_from_step=self.step, identity=identity, passed_over=over)

    def train(self, *, torn: bool = False) -> None:
        """To the next evaluation, and what it measured there."""
        before, self.step = self.step, self.step + self.assignment.eval_every
        saved = Saved(self.step, self.assignment.directory, self.poisoned)
        if not torn:  # what is resumed from has its evaluation in the spool
            self.disk.append(saved)
        record = CheckpointRecord(
            step=self.step, path=saved.path, manifest_sha256="0" * 64, size_bytes=1, eval_loss=None
        )
        points = tuple(
            Point(step=step, name="train_loss", value=self.loss(step))
            for step in range(before + 5, self.step + 1, 5)
        )
        self.tell(torn=torn, points=points, checkpoints=(record,))

    def tell(self, *, torn: bool = False, **parts: object) -> None:
        """The evaluation of the step it is at; at its target once more if it was resumed there."""
        phase = Phase.AT_GATE if self.step >= self.target else Phase.TRAINING
        self.told = self.step
        self.spool(phase, torn=torn, evaluations=(self.evaluation(self.step),), **parts)

    def loss(self, step: int) -> float:
        true = self.shape.loss(self.assignment.variant, self.assignment.seed, step)
        return math.nan if self.poisoned else true

    def evaluation(self, step: int) -> Evaluation:
        loss = self.loss(step)
        return Evaluation(
            step=step,
            tokens=step * 128,
            eval_loss=loss,
            perplexity=math.exp(loss) if math.isfinite(loss) else loss,
            train_loss=loss,
            learning_rate=0.001,
            grad_norm=1.0,
            tokens_per_second=1000.0,
            wall_seconds=step / 10,
        )

    def beat(self) -> Heartbeat:
        phase = Phase.AT_GATE if self.step >= self.target else Phase.TRAINING
        return Heartbeat(epoch=self.assignment.epoch, phase=phase, step=self.step)

    def deliver(self, post: Post, order: Callable[[list[Report]], Sequence[Report]]) -> None:
        """Sends what is not acknowledged, in the order that the network makes of it."""
        for report in order(self.spooled[self.acknowledged :][:5]):
            answer = post(self, report)
            if answer is None:
                return
            self.hear(answer)

    def hear(self, answer: Answer) -> None:
        self.answer = answer
        self.acknowledged = max(self.acknowledged, answer.acknowledged)

    @property
    def is_told(self) -> bool:
        """Whether the newest answer was given in knowledge of all that it spooled."""
        return self.answer is not None and self.answer.acknowledged == len(self.spooled)

    def ending(self, now: float) -> ExitCode | None:
        """How it must leave now, by its last orders or for want of any."""
        if self.is_told and self.answer is not None:
            directive = self.answer.directive
            if directive.kind is DirectiveKind.YIELD:
                return ExitCode.AT_GATE
            if directive.kind is DirectiveKind.STOP:
                finished = directive.reason == "finished" and self.step >= self.target
                return ExitCode.FINISHED if finished else ExitCode.STOPPED
        silent = self.step >= self.target and now - self.heard_at > GATE_PATIENCE
        return ExitCode.AT_GATE if silent else None

    def account(self, code: ExitCode) -> None:
        """The last report, and `exit.json`."""
        record = ExitRecord(code=code, message="", step=self.step)
        self.spool(Phase.ENDED, exit=record)
        (self.directory / "exit.json").write_text(record.model_dump_json())

    def _identity(self) -> Identity:
        facts = check(self.assignment.config)
        return Identity(
            evaluation_set="e" * 8,
            tokenizer="t" * 8,
            schedule_family="cosine",
            horizon_step=self.assignment.horizon_step,
            tokens_per_step=128,
            parameters_total=facts.parameters_total,
            parameters_active=facts.parameters_active,
            flops_per_token=facts.flops_per_token,
            device="cpu",
        )
