"""Whole experiments in memory: real services and a real database, a fake engine, a clock that is told."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from orchestrator.bootstrap import configs_folder, load_policies
from orchestrator.domain.errors import StaleEpoch
from orchestrator.domain.ids import number_of
from orchestrator.engines.fake import FakeEngine, FakeWorld
from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.kind import ConfigFacts, ConfigProblem
from orchestrator.protocol.report import (
    Answer,
    CheckpointRecord,
    DirectiveKind,
    Evaluation,
    Heartbeat,
    Identity,
    Phase,
    Point,
    Report,
)
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.context import Context, Trainer
from orchestrator.services.ingest import heartbeat, ingest
from orchestrator.services.reconcile import tick
from orchestrator.services.submit import submit
from orchestrator.store.database import Database

Loss = Callable[[str, int, int], float]
"""Eval loss of (variant, seed, step)."""


def check(config: JsonObject) -> ConfigFacts:
    """A trainer kind with two fields: `width`, which decides the size, and `rate`."""
    unknown = [
        (key, "unknown key: known are `width`, `rate`") for key in config if key not in {"width", "rate"}
    ]
    width = config.get("width", 4)
    if not isinstance(width, int) or width < 1:
        unknown.append(("width", "must be a whole number above 0"))
    if unknown:
        raise ConfigProblem(unknown)
    assert isinstance(width, int)
    return ConfigFacts(
        config={"width": width, "rate": config.get("rate", 1.0)},
        parameters_total=1000 * width,
        parameters_active=1000 * width,
        flops_per_token=2000.0 * width,
        tokens_per_step=128,
        schedule_family="cosine",
    )


def falling(offsets: dict[str, float] | None = None) -> Loss:
    """A learning curve that falls like a power of the step, with an offset for each variant."""
    shifts = offsets or {}
    return lambda variant, seed, step: 3 + 4 * (step + 1) ** -0.25 + shifts.get(variant, 0.0) + 1e-4 * seed


@dataclass
class Worker:
    """A scripted worker: trains to its target in one turn, reports every evaluation, obeys."""

    assignment: Assignment
    loss: Loss
    step: int
    sequence: int = 0
    exited: int | None = None
    answer: Answer | None = None
    reported: list[int] = field(default_factory=list)

    def report(self, context: Context, **values: Any) -> Answer:
        self.sequence += 1
        body: dict[str, Any] = {"epoch": self.assignment.epoch, "sequence": self.sequence, "step": self.step}
        report = Report(**{"phase": Phase.TRAINING} | body | values)
        self.answer = ingest(context, number_of("att", self.assignment.attempt_id), report)
        return self.answer

    def begin(self, context: Context) -> None:
        resumed = self.step
        self.report(context, phase=Phase.STARTING, resumed_from_step=resumed, identity=self.identity())

    def identity(self) -> Identity:
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

    def evaluation(self, step: int) -> Evaluation:
        loss = self.loss(self.assignment.variant, self.assignment.seed, step)
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

    def advance(self, context: Context) -> None:
        """Trains one evaluation's steps and reports, or asks again at the gate."""
        target = self.answer.directive.target_step if self.answer else self.assignment.target_step
        if self.step >= target:
            self.ask(context)
            return
        before, self.step = self.step, self.step + self.assignment.eval_every
        evaluation = self.evaluation(self.step)
        self.reported.append(self.step)
        self.report(
            context,
            phase=Phase.AT_GATE if self.step >= target else Phase.TRAINING,
            evaluations=(evaluation,),
            points=tuple(
                Point(step=step, name="train_loss", value=evaluation.train_loss)
                for step in range(before + 1, self.step + 1, 5)
            ),
            checkpoints=(
                CheckpointRecord(
                    step=self.step,
                    path=f"{self.assignment.directory}/checkpoints/step-{self.step:08d}",
                    manifest_sha256="0" * 64,
                    size_bytes=1,
                ),
            ),
        )

    def ask(self, context: Context) -> None:
        beat = Heartbeat(epoch=self.assignment.epoch, phase=Phase.AT_GATE, step=self.step)
        self.answer = heartbeat(context, number_of("att", self.assignment.attempt_id), beat)


class World:
    """A service on its home, with the workers that its engine started."""

    def __init__(self, database: Database, home: Path, *, slots: int = 2, loss: Loss | None = None) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.passed = 0.0
        self.free_bytes = 2**40
        self.database = database
        self.home = home
        self.machine = FakeWorld()
        self.slots = tuple(f"cpu:{i}" for i in range(slots))
        self.loss = loss or falling()
        self.workers: dict[str, Worker] = {}
        self.tokens = count(1)
        self.context = self.boot()

    def boot(self) -> Context:
        """A service as it comes up: nothing is remembered but rows and what the machine runs."""
        engine = FakeEngine(slots=self.slots, world=self.machine)
        return Context(
            database=self.database,
            engine=engine,
            clock=lambda: self.now,
            new_token=lambda: f"token-{next(self.tokens)}",
            home=self.home,
            address=lambda: "http://127.0.0.1:1",
            trainers={"builtin": Trainer(("trainer", "{assignment}"), check)},
            policies=load_policies(configs_folder() / "policies"),
            monotonic=lambda: self.passed,
            free_bytes=lambda: self.free_bytes,
        )

    def restart(self) -> None:
        self.context = self.boot()

    def submit(self, **changes: Any) -> int:
        return submit(self.context, spec(**changes))

    def wait(self, seconds: float) -> None:
        """Time passes, and nothing happens."""
        self.now += timedelta(seconds=seconds)
        self.passed += seconds

    def hang(self, seconds: float) -> None:
        """The service ticks on, and no worker moves."""
        for _ in range(int(seconds / 10)):
            self.wait(10)
            tick(self.context)

    def turn(self) -> None:
        """One tick of the service, then one move of every worker."""
        tick(self.context)
        self.adopt()
        for key, worker in list(self.workers.items()):
            if worker.exited is None and not self.machine.workers[key].state.is_over:
                self.move(key, worker)
        self.wait(1)

    def adopt(self) -> None:
        """A scripted worker for each that the engine started."""
        for key, started in self.machine.workers.items():
            if key not in self.workers:
                text = (started.spec.directory / "assignment.json").read_text()
                assignment = Assignment.model_validate_json(text)
                self.workers[key] = Worker(assignment, self.loss, self.checkpoint(assignment))

    def checkpoint(self, assignment: Assignment) -> int:
        """The newest step with a checkpoint of the run, or of a run whose folders it resumes from."""
        most = assignment.resume_at_most
        folders = {assignment.directory, *assignment.resume_from}
        steps = [
            step
            for other in self.workers.values()
            if other.assignment.directory in folders
            for step in other.reported
            if most is None or step <= most
        ]
        return max(steps, default=0)

    def move(self, key: str, worker: Worker) -> None:
        try:
            if worker.sequence == 0:
                worker.begin(self.context)
            else:
                worker.advance(self.context)
            self.obey(key, worker)
        except StaleEpoch:
            self.end(key, worker, ExitCode.STALE_EPOCH)

    def obey(self, key: str, worker: Worker) -> None:
        assert worker.answer is not None
        kind = worker.answer.directive.kind
        if kind is DirectiveKind.STOP:
            finished = worker.answer.directive.reason == "finished"
            self.leave(key, worker, ExitCode.FINISHED if finished else ExitCode.STOPPED)
        elif kind is DirectiveKind.YIELD:
            self.leave(key, worker, ExitCode.AT_GATE)

    def leave(self, key: str, worker: Worker, code: ExitCode, message: str = "") -> None:
        """Says why it ends, then ends."""
        record = ExitRecord(code=code, message=message, step=worker.step)
        worker.report(self.context, phase=Phase.ENDED, exit=record)
        self.end(key, worker, code)

    def end(self, key: str, worker: Worker, code: int) -> None:
        worker.exited = code
        self.machine.exit(key, code)

    def run_to_end(self, experiment_id: int, turns: int = 400) -> str:
        """The experiment's final status. Fails when it does not end."""
        from orchestrator.services.query import get_experiment

        for _ in range(turns):
            self.turn()
            status = get_experiment(self.context, experiment_id).status
            if status not in {"running", "paused"}:
                return status
        raise AssertionError("the experiment did not end")


def spec(**changes: Any) -> JsonObject:
    """Three stages of 100, 200 and 400 steps, the control `base` and three variants."""
    document: JsonObject = {
        "name": "widths",
        "base": {"width": 4},
        "control": "base",
        "eval_every": 20,
        "stages": [
            {
                "name": "screen",
                "steps": 100,
                "variants": {
                    "base": {},
                    "wide": {"width": 8},
                    "wider": {"width": 16},
                    "slow": {"rate": 0.1},
                },
            },
            {"name": "confirm", "steps": 200, "promote": {"best": 2}},
            {"name": "long", "steps": 400, "promote": {"best": 1}},
        ],
    }
    return json.loads(json.dumps(document | changes))
