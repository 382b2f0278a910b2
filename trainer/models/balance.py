"""The balance of a router's loads: the loss that is trained on, and what is told about it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import MoeConfig
from trainer.models.moe import Routing
from trainer.team import Team


@dataclass(frozen=True)
class Measured:
    """Of one step, over all its forward passes and processes: scalars without gradient."""

    aux: Tensor
    """The balance loss as the config defines it."""
    pooled: Tensor
    """The same of the loads pooled over depth."""
    z: Tensor
    dropped: Tensor
    """Assignments over capacity."""
    counts: Tensor
    """(D, E) assignments of each router application."""


def balance_loss(importance: Tensor, counts: Tensor, *, pooled: bool, reduction: str) -> Tensor:
    """`E * sum_i(importance_i * load_i)`: 1 when uniform, `E / k` at collapse. Scalar.

    Fedus et al. 2021 (equation 4) for top-1, adapted to top-k: `importance` (D, E) is the mean probability,
    load the share of the assignments `counts` (D, E). Per depth application, then mean (or sum) over them;
    `pooled` balances the mean over depth instead.
    """
    load = counts / counts.sum(-1, keepdim=True)
    depths, num_experts = importance.shape
    if pooled:
        per_depth = num_experts * (importance.mean(0) * load.mean(0)).sum().expand(depths)
    else:
        per_depth = num_experts * (importance * load).sum(-1)  # (D)
    return per_depth.sum() if reduction == "sum" else per_depth.mean()


class StepBalance:
    """The balance terms of one step, forward pass by forward pass.

    With `aux_batch` global the loss of a pass sees the loads of the step so far on all processes, and its own
    importance: that has the gradient of the loss over the whole batch but for the loads still to come
    (Qiu et al. 2025, section 3). What is measured is exact over the whole step.
    """

    def __init__(self, config: MoeConfig, team: Team) -> None:
        self.config, self.team = config, team
        self._passes = 0

    def add(self, routings: list[Routing]) -> tuple[Tensor, Tensor]:
        """The balance loss and the z-loss of one forward pass, with gradients."""
        importance = torch.stack([r.probabilities.mean(0) for r in routings])  # (D, E)
        own = torch.stack([r.counts for r in routings])  # (D, E)
        counts = self.team.sum(own)
        z = torch.stack([r.z for r in routings]).mean()
        dropped = torch.stack([r.dropped for r in routings]).sum()
        if self._passes == 0:
            self._importance, self._counts = importance.detach(), counts
            self._z, self._dropped, self._aux = z.detach(), dropped, torch.zeros_like(z)
        else:
            self._importance = self._importance + importance.detach()
            self._counts = self._counts + counts
            self._z, self._dropped = self._z + z.detach(), self._dropped + dropped
        self._passes += 1
        loss = self._loss(importance, self._counts if self.config.aux_batch == "global" else own)
        self._aux = self._aux + loss.detach()
        return loss, z

    def measured(self) -> Measured:
        """Over everything that was added, on every process."""
        importance, z, aux = self.team.mean(self._importance, self._z, self._aux)
        importance = importance / self._passes
        exact = self._loss(importance, self._counts)
        pooled = balance_loss(importance, self._counts, pooled=True, reduction=self.config.aux_reduction)
        return Measured(
            aux=exact if self.config.aux_batch == "global" else aux / self._passes,
            pooled=pooled,
            z=z / self._passes,
            dropped=self.team.sum(self._dropped),
            counts=self._counts,
        )

    def _loss(self, importance: Tensor, counts: Tensor) -> Tensor:
        pooled, reduction = self.config.aux_scope == "pooled", self.config.aux_reduction
        return balance_loss(importance, counts, pooled=pooled, reduction=reduction)


@torch.no_grad()
def move_biases(routings: list[Routing], counts: Tensor, rate: float) -> None:
    """Bias balancing: a router's bias rises by `rate` for experts below the mean load, falls for others.

    Wang et al. 2024, algorithm 1. `counts` (D, E) of the whole step; applications of one router are summed.
    """
    loads: dict[int, tuple[Tensor, Tensor]] = {}
    for routing, applied in zip(routings, counts, strict=True):
        if routing.bias is not None:
            bias, load = loads.get(id(routing.bias), (routing.bias, torch.zeros_like(routing.bias)))
            loads[id(bias)] = (bias, load + applied)
    for bias, load in loads.values():
        bias += rate * torch.sign(load.mean() - load)
