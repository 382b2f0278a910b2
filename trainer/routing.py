"""Closer looks at one forward pass's routing, for log steps: they cost milliseconds, not nothing."""

from math import log

import torch
from torch import Tensor

from trainer.models.moe import Routing, expert_capacity

WOULD_BE_CAPACITY = 1.25
"""Where assignments would be dropped by the capacity factor that most papers use, dropless or not."""


@torch.no_grad()
def routing_details(routings: list[Routing]) -> dict[str, float]:
    """Means over router applications, each in one number; one wait for the device."""
    probabilities = torch.stack([r.probabilities for r in routings])  # (D, N, E)
    counts = torch.stack([r.counts for r in routings])  # (D, E)
    chosen = torch.stack([r.chosen for r in routings])  # (D, N, k)
    assignments, num_experts = chosen[0].numel(), counts.shape[-1]
    uniform = log(num_experts)
    values = {
        # Of each token's distribution, and of the mean one: sharp choices that differ give low, high.
        "token_entropy": torch.special.entr(probabilities).sum(-1).mean() / uniform,
        "mean_entropy": torch.special.entr(probabilities.mean(1)).sum(-1).mean() / uniform,
        "would_drop_share": _over(counts, expert_capacity(assignments, num_experts, WOULD_BE_CAPACITY))
        / (assignments * len(routings)),
        "load_max": counts.max() / assignments,
        "depth_overlap": _overlap(chosen),
    }
    return dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))


def _over(counts: Tensor, capacity: int) -> Tensor:
    return (counts - capacity).clamp(min=0).sum()


def _overlap(chosen: Tensor) -> Tensor:
    """Share of a token's experts that it also chose at the depth before; 1 with a single depth."""
    if len(chosen) < 2:
        return chosen.new_ones(())
    same = chosen[1:].unsqueeze(-1) == chosen[:-1].unsqueeze(-2)  # (D - 1, N, k, k)
    return same.any(-1).float().mean()
