"""Experiments with what a report must bear: experts, seeds, smaller models, runs that break."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worlds import Worker, World, falling

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.report import Evaluation, Routing

HALF = {
    "control": "base",
    "stages": [
        {"name": "screen", "steps": 60, "variants": {"base": {"width": 8}, "half": {"width": 4}}},
    ],
}


def routing(step: int, experts: int = 4, layers: int = 3) -> Routing:
    """Loads that even out with the steps."""
    tilt = 1 / (1 + step / 50)
    row = [(1 + tilt * (expert - (experts - 1) / 2) / experts) / experts for expert in range(experts)]
    return Routing(
        num_experts=experts,
        entropy=1 - 0.2 * tilt,
        entropy_worst_layer=1 - 0.3 * tilt,
        load_min=min(row),
        load_max=max(row),
        load_top=tuple(sorted(row, reverse=True)[:3]),
        layer_loads=tuple(tuple(row) for _ in range(layers)),
    )


@dataclass
class MoeWorker(Worker):
    """Says how its experts are used, and how much memory it took."""

    def evaluation(self, step: int) -> Evaluation:
        found = super().evaluation(step)
        changes: dict[str, Any] = {
            "aux_loss": 1.0 + 1 / step,
            "aux_coef": 0.01,
            "routing": routing(step),
            "peak_memory_bytes": 2**20 * step,
        }
        return found.model_copy(update=changes)


class MoeWorld(World):
    """A world whose workers train mixtures of experts."""

    def adopt(self) -> None:
        super().adopt()
        for key, worker in self.workers.items():
            if not isinstance(worker, MoeWorker):
                self.workers[key] = MoeWorker(worker.assignment, worker.loss, worker.step)


def half_as_good(seed_gaps: dict[int, float]) -> Callable[[str, int, int], float]:
    """`half` is behind the control by its seed's gap, at every step."""
    curve = falling()

    def loss(variant: str, seed: int, step: int) -> float:
        return curve("base", seed, step) + (seed_gaps[seed] if variant == "half" else 0.0)

    return loss


def nan_from(step: int, variant: str) -> Callable[[str, int, int], float]:
    curve = falling()
    return lambda name, seed, at: math.nan if name == variant and at >= step else curve(name, seed, at)


def break_worker(world: World, variant: str, code: ExitCode) -> None:
    """The worker of `variant` ends with `code`."""
    for key, worker in world.workers.items():
        if worker.assignment.variant == variant and worker.exited is None:
            world.leave(key, worker, code, "it broke")
