"""The experiments of a chaos run, and how each ends when nobody disturbs it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import event
from worlds import Worker, World

from chaos.rows import Outcome, outcomes
from chaos.steady import Config, check, curve
from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.report import CheckpointRecord, Evaluation, Identity, Phase, Point
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.context import Context, Trainer
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade

KIND = "steady"
SHIFTS = {"base": 0.0, "better": -0.2, "alike": 0.0005, "worse": 0.4}


def spec(number: int, *, steps: int = 40, pause: float = 0.03) -> JsonObject:
    """Experiment `number`: four variants, three stages of `steps`, twice and four times as many."""
    variants: dict[str, Any] = {name: {"shift": shift} for name, shift in SHIFTS.items()}
    stages: list[Any] = [
        {"name": "screen", "steps": steps, "variants": variants},
        {"name": "confirm", "steps": 2 * steps, "promote": {"best": 2, "eligible": "all"}},
        {"name": "long", "steps": 4 * steps, "promote": {"best": 1, "eligible": "all"}},
    ]
    return {
        "name": f"chaos-{number}",
        "trainer": KIND,
        "base": {"salt": number, "pause": pause},
        "control": "base",
        "eval_every": max(1, steps // 4),
        "retries": {"restarts": 1000, "within_steps": 1},
        "stages": stages,
    }


class SteadyWorker(Worker):
    """A scripted worker that says what the real trainer of this kind would."""

    def _curve(self) -> list[tuple[int, float, float]]:
        config = Config.model_validate(self.assignment.config)
        return list(curve(config, self.assignment.seed, self.assignment.horizon_step))

    def identity(self) -> Identity:
        told = check(self.assignment.config).model_dump().items()
        facts = {name: value for name, value in told if name in Identity.model_fields}
        return Identity(
            **facts,
            evaluation_set="steady",
            tokenizer="none",
            horizon_step=self.assignment.horizon_step,
            device="cpu",
        )

    def evaluation(self, step: int) -> Evaluation:
        known, every = self._curve(), self.assignment.eval_every
        window = [train for at, train, _ in known if step - every < at <= step]
        measured = super().evaluation(step).model_dump()
        total = 0.0
        for loss in window:  # added up in the order of the trainer, whose last bit this gives
            total += loss
        own = {"eval_loss": known[step - 1][2], "train_loss": total / len(window)}
        return Evaluation.model_validate(measured | own)

    def advance(self, context: Context) -> None:
        target = self.answer.directive.target_step if self.answer else self.assignment.target_step
        if self.step >= target:
            self.ask(context)
            return
        before, self.step = self.step, self.step + self.assignment.eval_every
        self.reported.append(self.step)
        train = [(at, value) for at, value, _ in self._curve() if before < at <= self.step]
        self.report(
            context,
            phase=Phase.AT_GATE if self.step >= target else Phase.TRAINING,
            evaluations=(self.evaluation(self.step),),
            points=tuple(Point(step=at, name="train_loss", value=value) for at, value in train),
            checkpoints=(self._checkpoint(),),
        )

    def _checkpoint(self) -> CheckpointRecord:
        path = f"{self.assignment.directory}/checkpoints/step-{self.step:08d}"
        return CheckpointRecord(step=self.step, path=path, manifest_sha256="0" * 64, size_bytes=1)


class CalmWorld(World):
    """The same service with the fake engine: nothing ever breaks."""

    def boot(self) -> Context:
        return replace(super().boot(), trainers={KIND: Trainer(("trainer", "{assignment}"), check)})

    def adopt(self) -> None:
        for key, started in self.machine.workers.items():
            if key not in self.workers:
                text = (started.spec.directory / "assignment.json").read_text()
                assignment = Assignment.model_validate_json(text)
                self.workers[key] = SteadyWorker(assignment, self.loss, self.checkpoint(assignment))


def calm_outcomes(specs: list[JsonObject], folder: Path) -> dict[str, Outcome]:
    """How each experiment ends undisturbed, by name; worked out in this process, in `folder`."""
    database = Database(f"sqlite:///{folder / 'calm.sqlite3'}")
    event.listen(database.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    upgrade(database)
    world = CalmWorld(database, folder / "calm", slots=4)
    for document in specs:
        world.run_to_end(world.submit(**document))
    found = outcomes(database)
    database.close()
    return found
