"""AdamW, fused, with its state by parameter name. The same numbers as torch.optim.AdamW(fused=True).

Torch's own class imports the compiler when it is made, which doubles the start-up time of a worker.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig

NOT_DECAYED = ("bias", "b_in", "b_out")


class AdamW:
    """Steps on the gradients of the named parameters; biases and norms are not decayed."""

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self.config = config
        self.parameters = dict(model.named_parameters())
        self.first = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        self.second = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        self.steps = {n: torch.zeros((), device=p.device) for n, p in self.parameters.items()}
        names = list(self.parameters)
        plain = [n for n in names if _not_decayed(n)]
        self._groups = [([n for n in names if n not in plain], config.weight_decay), (plain, 0.0)]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the gradients as they are."""
        beta1, beta2 = self.config.betas
        for group, decay in self._groups:
            # An expert that no token reached still has a (zero) gradient: the stacked weights share one.
            names = [n for n in group if self.parameters[n].grad is not None]
            steps = [self.steps[n] for n in names]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                [self.parameters[n] for n in names],
                [_gradient(self.parameters[n]) for n in names],
                [self.first[n] for n in names],
                [self.second[n] for n in names],
                [],
                steps,
                lr=learning_rate,
                beta1=beta1,
                beta2=beta2,
                weight_decay=decay,
                eps=self.config.eps,
                amsgrad=False,
                maximize=False,
            )

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on: each kind in one piece, in the order of the parameters.

        Hundreds of small tensors would take a checkpoint longer to write than a tiny model a step.
        """
        return {kind: torch.cat([t.reshape(-1) for t in part.values()]) for kind, part in self._kinds.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a saved state. Raises `KeyError` when a tensor is missing."""
        for kind, part in self._kinds.items():
            if kind in state:
                pieces = torch.split(state[kind], [t.numel() for t in part.values()])
            else:  # as it was written at first: a tensor for each parameter
                pieces = tuple(state[f"{kind}.{name}"] for name in part)
            for tensor, piece in zip(part.values(), pieces, strict=True):
                tensor.copy_(piece.view_as(tensor))

    @property
    def _kinds(self) -> dict[str, dict[str, Tensor]]:
        return {"first": self.first, "second": self.second, "steps": self.steps}


@torch.no_grad()
def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """The global gradient norm before clipping, a scalar; scales gradients down to `largest` (0: never)."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if largest > 0:
        torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _not_decayed(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] in NOT_DECAYED or "norm" in parts or "norms" in parts


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "the caller filtered these"  # noqa: S101 - narrows the type
    return parameter.grad
