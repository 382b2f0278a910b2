"""The mixture of experts: a router in fp32 that chooses, and the feed-forward that obeys it."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import MoeConfig
from trainer.models.experts import Bank, Experts, mix
from trainer.models.rows import sorting


@dataclass(frozen=True)
class Routing:
    """Of one application of a router to N tokens."""

    probabilities: Tensor
    """(N, E) softmax over all experts; carries the gradient."""
    z: Tensor
    """Mean squared log-sum-exp of the logits, a scalar with gradient; 0 when it has no weight."""
    chosen: Tensor
    """(N, k) experts as the router chose them, dropped assignments included."""
    counts: Tensor
    """(E) assignments, `N * top_k` in sum; no gradient."""
    dropped: Tensor
    """Assignments over capacity, a scalar; 0 without a capacity."""
    bias: Tensor | None
    """The router's own (E), added for the choice alone; None without bias balancing."""


class Router(nn.Module):
    """Scores every expert in fp32 and keeps the `top_k` best. No noise."""

    bias: Tensor | None

    def __init__(self, width: int, config: MoeConfig) -> None:
        super().__init__()
        self.config = config
        # A zero router scores a perfect balance while every token goes to the same experts.
        self.weight = nn.Parameter(torch.randn(config.num_experts, width) * config.router_init_std)
        self.register_buffer("bias", torch.zeros(config.num_experts) if config.bias_update_rate else None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Routing]:
        """For `x` (N, C): weights (N, k), experts (N, k), how often each is used (E), and the routing.

        An assignment over capacity has expert E, which is none, and is in no count but the routing's.
        """
        with torch.autocast(x.device.type, enabled=False):
            logits = functional.linear(x.float(), self.weight.float())  # (N, E)
        probabilities = logits.softmax(-1)
        scores = probabilities if self.bias is None else probabilities + self.bias
        chosen = scores.topk(self.config.top_k, dim=-1).indices  # (N, k)
        weights = probabilities.gather(-1, chosen)
        if self.config.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        counts = _counts(chosen, self.config.num_experts)
        experts, used = self._within_capacity(chosen, counts)
        z = torch.logsumexp(logits, -1).square().mean() if self.config.z_loss_coef else logits.new_zeros(())
        routing = Routing(probabilities, z, chosen, counts, counts.sum() - used.sum(), self.bias)
        return weights, experts, used, routing

    def _within_capacity(self, chosen: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The choices with those over capacity replaced by E. First choices go before second ones.

        In training alone: a capacity makes a token's output depend on those after it, and on its batch.
        """
        if self.config.capacity_factor is None or not self.training:
            return chosen, counts
        capacity = expert_capacity(chosen.numel(), self.config.num_experts, self.config.capacity_factor)
        by_rank = chosen.t()  # (k, N): every token's first choice, then every second
        order, inverse = sorting(by_rank)
        place = (
            torch.arange(len(order), device=order.device)
            - (counts.cumsum(0) - counts)[by_rank.reshape(-1)[order]]
        )
        over = (place >= capacity)[inverse].view_as(by_rank).t()
        return chosen.masked_fill(over, self.config.num_experts), counts.clamp(max=capacity)


class MoeFeedForward(nn.Module):
    """A feed-forward of experts behind a router; `router` may be replaced per depth."""

    def __init__(self, router: Router, experts: Experts, dropout: float) -> None:
        super().__init__()
        self.router = router
        self.experts = experts
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, bank: Bank | None = None, router: Router | None = None
    ) -> tuple[Tensor, Routing]:
        """(B, T, C) -> (B, T, C), and where the tokens went."""
        flat = x.reshape(-1, x.shape[-1])  # (N, C)
        weights, experts, used, routing = (router or self.router)(flat)
        mixed = mix(flat, weights, experts, used, bank or self.experts.bank())
        return self.dropout(mixed.view_as(x)), routing


def expert_capacity(assignments: int, num_experts: int, factor: float) -> int:
    """The most assignments that one expert takes of a forward pass (Fedus et al. 2021, section 2.2)."""
    return ceil(factor * assignments / num_experts)


def _counts(chosen: Tensor, num_experts: int) -> Tensor:
    """How often each expert is chosen: (E)."""
    flat = chosen.reshape(-1)
    if flat.device.type == "cpu":
        return torch.bincount(flat, minlength=num_experts)
    # bincount would wait for the device and is not deterministic there.
    return (flat.unsqueeze(-1) == torch.arange(num_experts, device=flat.device)).sum(0)
