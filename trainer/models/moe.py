"""The mixture of experts: a router in fp32, experts without drops, and what the balance loss needs."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ExpertWeights = list[tuple[Tensor, Tensor, Tensor, Tensor]]
"""Per expert: w_in (C, F), b_in (F), w_out (F, C), b_out (C)."""


@dataclass(frozen=True)
class Routing:
    """Of one application of a router to N tokens."""

    probabilities: Tensor
    """(N, E) softmax over all experts; carries the gradient."""
    counts: Tensor
    """(E) assignments, `N * top_k` in sum; no gradient."""


class Router(nn.Module):
    """Scores every expert, keeps the `top_k` best, renormalises their weights. No bias, no noise."""

    def __init__(self, width: int, num_experts: int, top_k: int, init_std: float) -> None:
        super().__init__()
        self.top_k = top_k
        # A zero router scores a perfect balance while every token goes to the same experts.
        self.weight = nn.Parameter(torch.randn(num_experts, width) * init_std)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Routing]:
        """Weights (N, k) that sum to 1, experts (N, k), and the routing, for `x` (N, C)."""
        probabilities = functional.linear(x.float(), self.weight.float()).softmax(-1)  # (N, E)
        top, experts = probabilities.topk(self.top_k, dim=-1)  # (N, k)
        counts = torch.bincount(experts.reshape(-1), minlength=probabilities.shape[-1])
        return top / top.sum(-1, keepdim=True), experts, Routing(probabilities, counts)


class Experts(nn.Module):
    """E feed-forwards `C -> F -> C` with GELU and biases, stored stacked as (E, ., .)."""

    def __init__(self, num_experts: int, width: int, inner: int, init_std: float, out_std: float) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.randn(num_experts, width, inner) * init_std)
        self.b_in = nn.Parameter(torch.zeros(num_experts, inner))
        self.w_out = nn.Parameter(torch.randn(num_experts, inner, width) * out_std)
        self.b_out = nn.Parameter(torch.zeros(num_experts, width))

    def unbound(self) -> ExpertWeights:
        """One view per expert and weight. Call once per model forward: each call costs a full gradient."""
        return list(
            zip(self.w_in.unbind(), self.b_in.unbind(), self.w_out.unbind(), self.b_out.unbind(), strict=True)
        )


def expert(x: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """One expert's output (n, C) for its tokens (n, C)."""
    w_in, b_in, w_out, b_out = weights
    return torch.addmm(b_out, functional.gelu(torch.addmm(b_in, x, w_in), approximate="tanh"), w_out)


def mix_experts(
    x: Tensor, weights: Tensor, experts: Tensor, counts: Tensor, unbound: ExpertWeights
) -> Tensor:
    """Sum over k of `weights` times the chosen experts' outputs: (N, C). Sorts tokens by expert once.

    Unsorting and summing, not adding by index: that would not be deterministic on CUDA.
    """
    n, k = experts.shape
    order = torch.argsort(experts.reshape(-1), stable=True)  # (N*k)
    rows = x.index_select(0, order // k)  # (N*k, C), grouped by expert
    parts = torch.split_with_sizes(rows, counts.tolist())
    outputs = [expert(part, w) for part, w in zip(parts, unbound, strict=True) if part.shape[0]]
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(n * k, device=order.device)
    mixed = torch.cat(outputs).index_select(0, inverse).view(n, k, -1)  # (N, k, C)
    return (mixed * weights.unsqueeze(-1).to(mixed.dtype)).sum(1)


def mix_experts_naive(x: Tensor, weights: Tensor, experts: Tensor, unbound: ExpertWeights) -> Tensor:
    """The same as `mix_experts`, one token at a time: what it means, for reading and for tests."""
    tokens = []
    for token, token_weights, chosen in zip(x, weights, experts.tolist(), strict=True):
        parts = [w * expert(token[None], unbound[e])[0] for w, e in zip(token_weights, chosen, strict=True)]
        tokens.append(torch.stack(parts).sum(0))
    return torch.stack(tokens)


class MoeFeedForward(nn.Module):
    """A feed-forward of experts behind a router; `router` may be replaced per depth."""

    def __init__(self, router: Router, experts: Experts, dropout: float) -> None:
        super().__init__()
        self.router = router
        self.experts = experts
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, unbound: ExpertWeights | None = None, router: Router | None = None
    ) -> tuple[Tensor, Routing]:
        """(B, T, C) -> (B, T, C), and where the tokens went."""
        flat = x.reshape(-1, x.shape[-1])  # (N, C)
        weights, chosen, routing = (router or self.router)(flat)
        mixed = mix_experts(flat, weights, chosen, routing.counts, unbound or self.experts.unbound())
        return self.dropout(mixed.view_as(x)), routing


def balance_loss(routings: list[Routing], *, pooled: bool, reduction: str) -> Tensor:
    """`E * sum_i(importance_i * load_i)`: 1 when uniform, `E / k` at collapse.

    Per depth application then mean (or sum) over them; `pooled` balances the mean over depth instead.
    Importance is the mean probability, load the share of assignments.
    """
    importance = torch.stack([r.probabilities.mean(0) for r in routings])  # (D, E)
    load = torch.stack([r.counts for r in routings]).float()
    load = load / load.sum(-1, keepdim=True)
    depths, num_experts = importance.shape
    if pooled:
        per_depth = num_experts * (importance.mean(0) * load.mean(0)).sum().expand(depths)
    else:
        per_depth = num_experts * (importance * load).sum(-1)  # (D)
    return per_depth.sum() if reduction == "sum" else per_depth.mean()
