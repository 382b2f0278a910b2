"""What a run of a hand-written loop has been through, and the evaluation that is made of it."""

import resource
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any

from orchestrator.protocol.report import Evaluation
from trainer.perplexity import perplexity


@dataclass
class Tally:
    """Every number that must outlive a restart: kept in each checkpoint. `step` counts finished steps."""

    step: int = 0
    wall_seconds: float = 0.0
    nan_events: int = 0
    nan_in_a_row: int = 0
    learning_rate: float = nan
    grad_norm: float = nan
    logged_step: int = 0
    """Of the newest train loss."""
    loss_sum: float = 0.0
    loss_steps: int = 0
    window_step: int = 0
    """Of the evaluation before."""
    window_seconds: float = 0.0
    last_evaluation: dict[str, Any] | None = None

    def trained_for(self, seconds: float) -> None:
        self.wall_seconds += seconds
        self.window_seconds += seconds

    def add_loss(self, loss: float) -> None:
        """A train loss that stands for the steps since the one before; one that is not finite is counted."""
        steps, self.logged_step = max(1, self.step - self.logged_step), self.step
        if not isfinite(loss):
            self.nan_events += 1
            self.nan_in_a_row += 1
            return
        self.nan_in_a_row = 0
        self.loss_sum += loss * steps
        self.loss_steps += steps

    def steps_per_second(self) -> float:
        """Since the evaluation before, without evaluations and checkpoints."""
        return (self.step - self.window_step) / self.window_seconds if self.window_seconds > 0 else 0.0

    def evaluate(self, eval_loss: float, tokens_per_step: int, measured: dict[str, Any]) -> Evaluation:
        """The evaluation at this step; `measured` goes before what is worked out."""
        worked_out = {
            "perplexity": perplexity(eval_loss),
            "train_loss": self.loss_sum / self.loss_steps if self.loss_steps else nan,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "nan_events": self.nan_events,
            "tokens_per_second": self.steps_per_second() * tokens_per_step,
            "wall_seconds": self.wall_seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux gives KiB
        }
        fixed = {"step": self.step, "tokens": self.step * tokens_per_step, "eval_loss": eval_loss}
        evaluation = Evaluation.model_validate({**worked_out, **measured, **fixed})
        self.last_evaluation = evaluation.model_dump(mode="json")
        self.loss_sum, self.loss_steps, self.window_seconds, self.window_step = 0.0, 0, 0.0, self.step
        return evaluation

    def evaluation_here(self) -> Evaluation | None:
        """The evaluation of exactly this step, if there was one."""
        last = self.last_evaluation
        return Evaluation.model_validate(last) if last is not None and last["step"] == self.step else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
