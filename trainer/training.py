"""One run's model, optimizer and data, and the step that moves them."""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import Config
from trainer.data import TokenData
from trainer.models.build import build
from trainer.models.moe import Routing, balance_loss
from trainer.optim import AdamW, clip_gradients
from trainer.schedules import aux_coefficient, learning_rate


@dataclass(frozen=True)
class StepResult:
    """What one step measured."""

    loss: float
    """Cross-entropy alone, mean over the step's tokens."""
    grad_norm: float
    learning_rate: float
    finite: bool
    """False: the weights were left as they are."""
    aux_loss: float | None = None
    aux_loss_pooled: float | None = None
    aux_coef: float | None = None
    token_entropy: float | None = None


class Training:
    """The mutable heart of a run. `step(n)` is a function of the seed, the weights and `n`."""

    def __init__(self, config: Config, data: TokenData, *, seed: int, horizon: int, device: str) -> None:
        self.config, self.data, self.seed, self.horizon = config, data, seed, horizon
        self.device = torch.device(device)
        torch.manual_seed(seed)
        self.model = build(config).to(self.device)
        self.model.train()
        self.optimizer = AdamW(self.model, config.optimizer)
        self.counts: Tensor | None = None
        """Assignments since the last evaluation: (depth applications, experts)."""

    def step(self, step: int, *, detailed: bool) -> StepResult:
        """Trains on the batch of `step`. `detailed` adds routing measurements that cost a little."""
        t = self.config.train
        windows = self.data.batch(self.seed, step, t.batch_size * t.accumulation, self.config.sequence_length)
        micro = torch.from_numpy(windows).to(self.device).view(t.accumulation, t.batch_size, -1)
        coef = aux_coefficient(self.config.moe, step, self.horizon) if self.config.moe else 0.0
        self.optimizer.zero_grad()
        loss, aux = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        routings: list[Routing] = []
        for batch in micro:
            cross_entropy, balance, routings = self._forward(batch, coef)
            torch.autograd.backward((cross_entropy + coef * balance) / len(micro))
            loss += cross_entropy.detach() / len(micro)
            aux += balance.detach() / len(micro)
        return self._update(step, loss, aux, coef, routings if detailed else [])

    def _forward(self, batch: Tensor, coef: float) -> tuple[Tensor, Tensor, list[Routing]]:
        """Cross-entropy, balance loss (no gradient when its weight is 0) and routings of one (B, T + 1)."""
        output = self.model(batch[:, :-1])
        cross_entropy = functional.cross_entropy(output.logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        if self.config.moe is None:
            return cross_entropy, torch.zeros((), device=self.device), []
        self._count(output.routings)
        with torch.set_grad_enabled(coef > 0):
            balance = self._balance(output.routings, self.config.moe.aux_scope == "pooled")
        return cross_entropy, balance, output.routings

    def _update(
        self, step: int, loss: Tensor, aux: Tensor, coef: float, routings: list[Routing]
    ) -> StepResult:
        norm = clip_gradients(self.model, self.config.optimizer.grad_clip)
        loss_value, aux_value, norm_value = torch.stack((loss, aux, norm)).tolist()  # the one host sync
        rate = learning_rate(self.config.schedule, self.config.optimizer.lr, step, self.horizon)
        finite = isfinite(loss_value) and isfinite(aux_value) and isfinite(norm_value)
        if finite:
            self.optimizer.step(rate)
        moe = self.config.moe is not None
        return StepResult(
            loss=loss_value,
            grad_norm=norm_value,
            learning_rate=rate,
            finite=finite,
            aux_loss=aux_value if moe else None,
            aux_coef=coef if moe else None,
            **self._details(routings),
        )

    @torch.no_grad()
    def _details(self, routings: list[Routing]) -> dict[str, float]:
        if not routings:
            return {}
        p = torch.stack([r.probabilities for r in routings])  # (D, N, E)
        entropy = torch.special.entr(p).sum(-1).mean() / torch.log(torch.tensor(float(p.shape[-1])))
        return {
            "token_entropy": entropy.item(),
            "aux_loss_pooled": self._balance(routings, pooled=True).item(),
        }

    def _balance(self, routings: list[Routing], pooled: bool) -> Tensor:
        reduction = self.config.moe.aux_reduction if self.config.moe else "mean"
        return balance_loss(routings, pooled=pooled, reduction=reduction)

    def _count(self, routings: list[Routing]) -> None:
        counts = torch.stack([r.counts for r in routings])  # (D, E)
        self.counts = counts if self.counts is None else self.counts + counts
