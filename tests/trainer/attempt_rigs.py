"""A hand-written loop whose whole state is one number, and what it needs to be an attempt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer_rigs import make_assignment

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.kind import ConfigFacts
from trainer.attempt import Attempt

FACTS = ConfigFacts(
    config={"rate": 1},
    parameters_total=10,
    parameters_active=10,
    flops_per_token=20.0,
    tokens_per_step=8,
    schedule_family="constant",
)
IDENTITY = {"evaluation_set": "text", "tokenizer": "bytes"}
Step = Callable[[Attempt, int], None]


def assign(directory: Path, **changes: Any) -> Assignment:
    """To step 20 of 40, evaluated every 10."""
    gates = {"gate_steps": (20, 40)}
    return make_assignment(directory, directory / "cache", **{"config": {"rate": 1}, **gates, **changes})


class Toy:
    """Adds the step's number to its total; the total is what a checkpoint must bring back."""

    def __init__(self, loss: Callable[[int], float] = lambda step: 1.0 / step) -> None:
        self.loss = loss
        self.trained: list[int] = []
        self.total = 0
        self.interrupt_at = 0
        self.after: Step = lambda _attempt, _step: None

    def run(self, assignment: Assignment) -> int:
        """Its exit code."""
        try:
            with Attempt(assignment, lambda: self._now() == self.interrupt_at) as attempt:
                self.loop(attempt)
        except SystemExit as left:
            return int(str(left.code))
        return 0

    def loop(self, attempt: Attempt) -> None:
        if attempt.resume_folder:
            self.total = json.loads((attempt.resume_folder / "state" / "total.json").read_text())
        attempt.identify(FACTS, **IDENTITY)
        for step in attempt.steps(self.save):
            self.trained.append(step)
            self.total += step
            attempt.log(train_loss=self.loss(step), learning_rate=0.1)
            if attempt.evaluation_due:
                attempt.evaluated(eval_loss=self.loss(step))
            self.after(attempt, step)

    def save(self, folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "state" / "total.json").write_text(json.dumps(self.total))

    def _now(self) -> int:
        return self.trained[-1] if self.trained else -1
