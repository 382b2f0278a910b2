"""What a run has been through so far: every number that the loop keeps between steps, and in checkpoints."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Window:
    """Sums over the steps since the evaluation before."""

    loss: float = 0.0
    losses: int = 0
    aux: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    counts: list[list[int]] = field(default_factory=list)
    """Assignments, depth applications by experts."""
    dropped: int = 0
    """Of them, those over capacity."""

    def add(self, loss: float, aux: float) -> None:
        self.loss += loss
        self.aux += aux
        self.losses += 1

    @property
    def mean_loss(self) -> float:
        return self.loss / self.losses if self.losses else float("nan")

    @property
    def mean_aux(self) -> float:
        return self.aux / self.losses if self.losses else float("nan")

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass
class Progress:
    """Where the run is. `step` counts finished steps, skipped ones included."""

    step: int = 0
    tokens: int = 0
    wall_seconds: float = 0.0
    nan_events: int = 0
    nan_in_a_row: int = 0
    grad_norm: float = 0.0
    window: Window = field(default_factory=Window)
    last_evaluation: dict[str, Any] | None = None
    reached: dict[str, dict[str, float]] = field(default_factory=dict)
    """By target loss: the step, tokens and seconds of the first evaluation at or below it."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Progress":
        """Raises `TypeError` and `KeyError` for what another version wrote."""
        return cls(**{**data, "window": Window(**data["window"])})
