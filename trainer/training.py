"""One run's model, optimizer and data, and the step that moves them."""

from dataclasses import dataclass, field
from math import isfinite
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import Config
from trainer.data import TokenData
from trainer.devices import precision
from trainer.models.balance import Measured, StepBalance, move_biases
from trainer.models.build import build
from trainer.models.moe import Routing
from trainer.optim import AdamW, clip_gradients
from trainer.routing import routing_details
from trainer.schedules import aux_coefficient, learning_rate, micro_batches
from trainer.team import Team


@dataclass(frozen=True)
class StepResult:
    """What one step measured, over all processes."""

    loss: float
    """Cross-entropy alone, mean over the step's tokens."""
    grad_norm: float
    learning_rate: float
    finite: bool
    """False: the weights were left as they are."""
    aux_loss: float | None = None
    aux_loss_pooled: float | None = None
    aux_coef: float | None = None
    z_loss: float | None = None
    details: dict[str, float] = field(default_factory=dict)
    """Routing measurements of one forward pass, on steps that asked for them."""


class Training:
    """The mutable heart of a run. `step(n)` is a function of the seed, the weights and `n`.

    Every process of a team has one, with equal weights; each trains on its share of a step's windows.
    """

    def __init__(
        self,
        config: Config,
        data: TokenData,
        *,
        seed: int,
        horizon: int,
        device: str,
        team: Team | None = None,
        memory_factor: int = 1,
    ) -> None:
        """`memory_factor`: into how many times as many passes a step is divided as the config says."""
        self.config, self.data, self.seed, self.horizon = config, data, seed, horizon
        self.team = team or Team()
        self.device = torch.device(device)
        torch.manual_seed(seed)
        self.model = build(config).to(self.device)
        self.model.train()
        self.optimizer = AdamW(self.model, config.optimizer)
        self.precision = precision(config.train, self.device)
        """Makes what a forward pass runs under: autocast to bf16, or nothing."""
        self.memory_factor = memory_factor
        self.passes, self.rows = micro_batches(config.train, self.team.size, memory_factor)
        self._forward_model = (
            cast(nn.Module, torch.compile(self.model)) if config.train.compile else self.model
        )
        self.counts: Tensor | None = None
        """Assignments since the last evaluation: (depth applications, experts)."""
        self.dropped: Tensor | None = None
        """Of them, those over capacity: a scalar."""

    def step(self, step: int, *, detailed: bool) -> StepResult:
        """Trains on the batch of `step`. `detailed` adds routing measurements that cost a little."""
        coef = aux_coefficient(self.config.moe, step, self.horizon) if self.config.moe else 0.0
        self._seed(step)
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=self.device)
        balance = StepBalance(self.config.moe, self.team) if self.config.moe else None
        routings: list[Routing] = []
        for batch in self._batches(step):
            cross_entropy, extra, routings = self._forward(batch, coef, balance)
            torch.autograd.backward((cross_entropy + extra) / self.passes)
            loss += cross_entropy.detach() / self.passes
        return self._update(step, loss, balance.measured() if balance else None, coef, routings, detailed)

    def _seed(self, step: int) -> None:
        # Dropout is a function of seed, step and process, so no generator's state has to be kept.
        mixed = np.random.SeedSequence([self.seed, step, self.team.rank]).generate_state(1, np.uint64)
        number = int(mixed[0] >> np.uint64(1))
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def _batches(self, step: int) -> Tensor:
        """(passes, rows, T + 1): this process's share of the step's windows."""
        t = self.config.train
        windows = self.data.batch(self.seed, step, t.batch_size * t.accumulation, self.config.sequence_length)
        shared = windows.reshape(self.passes, self.team.size, self.rows, windows.shape[1])
        ids = torch.from_numpy(shared[:, self.team.rank])
        if self.device.type == "cuda":
            ids = ids.pin_memory().to(self.device, non_blocking=True)
        return ids

    def _forward(
        self, batch: Tensor, coef: float, balance: StepBalance | None
    ) -> tuple[Tensor, Tensor, list[Routing]]:
        """Cross-entropy, the weighted other losses, and routings of one (B, T + 1)."""
        with self.precision():
            output = self._forward_model(batch[:, :-1])
        cross_entropy = functional.cross_entropy(output.logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        extra = torch.zeros((), device=self.device)
        if balance is not None and self.config.moe is not None:
            z_coef = self.config.moe.z_loss_coef
            with torch.set_grad_enabled(coef > 0 or z_coef > 0):
                aux, z = balance.add(output.routings)
            # A weight of 0 leaves the term out of the graph: it is measured and has no gradient.
            extra = extra + (coef * aux if coef else 0.0) + (z_coef * z if z_coef else 0.0)
        return cross_entropy, extra, output.routings

    def _update(
        self,
        step: int,
        loss: Tensor,
        measured: Measured | None,
        coef: float,
        routings: list[Routing],
        detailed: bool,
    ) -> StepResult:
        self.team.average([p.grad for p in self.model.parameters() if p.grad is not None])
        norm = clip_gradients(self.model, self.config.optimizer.grad_clip)
        (loss,) = self.team.mean(loss)
        aux = (measured.aux, measured.pooled, measured.z) if measured else ()
        values = torch.stack((loss, norm, *aux)).tolist()  # the one host sync
        rate = learning_rate(self.config.schedule, self.config.optimizer.lr, step, self.horizon)
        finite = all(map(isfinite, values))
        if finite:
            self.optimizer.step(rate)
        if measured is None:
            return StepResult(values[0], values[1], rate, finite)
        self._count(measured)
        if finite and self.config.moe and self.config.moe.bias_update_rate:
            move_biases(routings, measured.counts, self.config.moe.bias_update_rate)
        details = routing_details(routings) if detailed else {}
        return StepResult(values[0], values[1], rate, finite, values[2], values[3], coef, values[4], details)

    def _count(self, measured: Measured) -> None:
        self.counts = measured.counts if self.counts is None else self.counts + measured.counts
        self.dropped = measured.dropped if self.dropped is None else self.dropped + measured.dropped
