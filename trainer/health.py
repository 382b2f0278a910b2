"""Routing health from counts of assignments: pure arithmetic on lists."""

from collections.abc import Sequence
from math import log

from orchestrator.protocol.report import Routing

LOADS_SHOWN = 5
DEAD_SHARE = 0.1  # of the uniform load


def routing_health(counts: Sequence[Sequence[int]], dropped: int = 0) -> Routing | None:
    """Health over a window from its counts (depth applications by experts); None when nothing was routed.

    `dropped` of the counted assignments were over capacity.
    """
    loads = [shares(layer) for layer in counts if sum(layer)]
    if not loads:
        return None
    entropies = [normalised_entropy(layer) for layer in loads]
    mean = [sum(column) / len(loads) for column in zip(*loads, strict=True)]
    experts = len(mean)
    return Routing(
        num_experts=experts,
        entropy=sum(entropies) / len(entropies),
        entropy_worst_layer=min(entropies),
        load_min=min(mean),
        load_max=max(mean),
        load_top=tuple(sorted(mean, reverse=True)[:LOADS_SHOWN]),
        dropped_tokens=dropped,
        dead_experts=max(sum(load < DEAD_SHARE / experts for load in layer) for layer in loads),
        layer_loads=tuple(tuple(layer) for layer in loads),
    )


def shares(counts: Sequence[int]) -> list[float]:
    """Loads that sum to 1."""
    total = sum(counts)
    return [count / total for count in counts]


def normalised_entropy(loads: Sequence[float]) -> float:
    """`H / ln E`: 1 when uniform, 0 when one expert has everything."""
    if len(loads) < 2:
        return 1.0
    return max(0.0, -sum(p * log(p) for p in loads if p > 0) / log(len(loads)))
