"""A trainer kind for the chaos runs: no tensors, losses that are the same each time, and a log of its own.

Each step draws the next link of a chain of hashes, kept in the checkpoints: a step that is left out or
trained twice changes every loss after it. What it did and what it was told goes line by line into a file
outside the home, which no fault of the service or of its disks can touch. The lines are written and not
synced: processes are killed here, never the machine.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.report import Answer, Phase
from orchestrator.protocol.wire import JsonObject
from trainer.attempt import Attempt
from trainer.contract.dialogue import Dialogue
from trainer.contract.http import Response
from trainer.contract.reporter import Reporter
from trainer.kind import parsed

STATE = "chain.txt"


class Config(BaseModel):
    """Every setting of this trainer."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    shift: float = 0.0
    """What is added to each loss: how variants differ."""
    salt: int = 0
    """Tells experiments apart that are alike otherwise."""
    pause: Annotated[float, Field(ge=0)] = 0.03
    """Seconds of a step."""
    ballast: Annotated[int, Field(ge=0)] = 8192
    """Bytes of a checkpoint beside its state."""


def check(config: JsonObject) -> ConfigFacts:
    """What the service asks before it accepts a config."""
    return ConfigFacts(
        config=parsed(Config, config).model_dump(mode="json"),
        parameters_total=1000,
        parameters_active=1000,
        flops_per_token=2000.0,
        tokens_per_step=128,
        schedule_family="constant",
    )


def next_link(link: str, config: Config, seed: int, step: int) -> str:
    """The chain after one more step."""
    return sha256(f"{link}/{config.salt}/{config.shift}/{seed}/{step}".encode()).hexdigest()


def losses_at(link: str, config: Config, step: int) -> tuple[float, float]:
    """(train loss, eval loss) of the step that drew `link`: a falling curve with the chain's own noise."""
    level = 3 + 4 * (step + 1) ** -0.25 + config.shift
    return level + 0.01 * int(link[:8], 16) / 2**32, level + 0.001 * int(link[8:16], 16) / 2**32


def curve(config: Config, seed: int, steps: int) -> Iterator[tuple[int, float, float]]:
    """(step, train loss, eval loss) of every step up to `steps`: what an undisturbed run has."""
    link = ""
    for step in range(1, steps + 1):
        link = next_link(link, config, seed, step)
        yield step, *losses_at(link, config, step)


class Recorder:
    """Appends to this process's file of the history; each line is written at once."""

    def __init__(self, folder: Path, assignment: Assignment) -> None:
        name = f"{assignment.attempt_id}.{os.getpid()}.jsonl"
        self._file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.say(
            "began",
            run=assignment.run_id,
            attempt=assignment.attempt_id,
            number=assignment.attempt,
            epoch=assignment.epoch,
            pid=os.getpid(),
            escaped="ASSAY_WORKER" not in os.environ,
        )

    def say(self, kind: str, **values: Any) -> None:
        """One line, with the time of the machine's monotonic clock, which all processes share."""
        os.write(self._file, json.dumps({"kind": kind, "at": monotonic(), **values}).encode() + b"\n")


class Witness(Reporter):
    """The reporter, seen by the history: what was said before it is spooled, what was answered after."""

    def __init__(self, assignment: Assignment, record: Recorder) -> None:
        self._record = record
        super().__init__(assignment)

    def emit(self, phase: Phase, step: int, **parts: Any) -> int:
        with self._changed:
            evaluations = {e.step: e.eval_loss for e in parts.get("evaluations", ())}
            points = {p.step: p.value for p in parts.get("points", ()) if p.name == "train_loss"}
            sequence = self._spool.last + 1
            self._record.say("told", sequence=sequence, evaluations=evaluations, points=points)
            return super().emit(phase, step, **parts)

    def _accept(self, answer: Answer, sequence: int | None) -> None:
        super()._accept(answer, sequence)
        self._record.say("acknowledged", sequence=sequence or 0, upto=answer.acknowledged)

    def _refuse(self, response: Response, sequence: int | None) -> None:
        super()._refuse(response, sequence)
        self._record.say("stale" if self.stale else "refused", sequence=sequence or 0, status=response.status)


class WitnessedAttempt(Attempt):
    """An attempt whose reporter is seen by the history."""

    record: Recorder

    def __enter__(self) -> "WitnessedAttempt":
        self.directory.mkdir(parents=True, exist_ok=True)
        self.record = Recorder(Path(sys.argv[2]), self.assignment)
        self._dialogue = Dialogue(self.assignment, self._interrupted, Witness(self.assignment, self.record))
        return self


def train(attempt: WitnessedAttempt) -> None:
    config, link = Config.model_validate(attempt.config), ""
    tired = threading.Event()

    def save(folder: Path) -> None:
        (folder / STATE).write_text(link)
        (folder / "ballast.bin").write_bytes(bytes(config.ballast))

    if attempt.resume_folder:
        link = (attempt.resume_folder / STATE).read_text()
    attempt.identify(check(attempt.config), evaluation_set="steady", tokenizer="none")
    for step in attempt.steps(save):
        attempt.record.say("step", step=step)
        link = next_link(link, config, attempt.seed, step)
        tired.wait(config.pause)
        train_loss, eval_loss = losses_at(link, config, step)
        attempt.log(train_loss=train_loss)
        if attempt.evaluation_due:
            attempt.evaluated(eval_loss=eval_loss)
        attempt.record.say("stepped", step=step)


if __name__ == "__main__":
    with WitnessedAttempt.from_arguments() as attempt:
        assert isinstance(attempt, WitnessedAttempt)
        train(attempt)
