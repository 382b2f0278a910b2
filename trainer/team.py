"""The processes that train one run together: none but this one, or those that torchrun started.

Rank 0 leads: it alone reads directives, reports, evaluates and writes checkpoints, and tells the others what
to do next. Every process holds the whole model and trains on its share of each step's windows.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

import torch
from torch import Tensor

from trainer.problems import WorkerProblem
from trainer.ranks import environment_size

LONGEST_WAIT = timedelta(days=30)


class Order(IntEnum):
    """What the leader tells the others, step by step."""

    LEAVE = 0
    STEP = 1
    BEGIN = 2
    """From the step that every process must have resumed from."""


@dataclass(frozen=True)
class Team:
    """Rank and size; sums and means over all processes. A team of one costs nothing."""

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes; the tensor itself in a team of one."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    def mean(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The means over processes, by one exchange."""
        if self.size == 1:
            return tensors
        flat = self.sum(torch.cat([t.reshape(-1).float() for t in tensors])) / self.size
        parts = torch.split(flat, [t.numel() for t in tensors])
        return tuple(part.view_as(t) for part, t in zip(parts, tensors, strict=True))

    def average(self, tensors: list[Tensor]) -> None:
        """Puts the mean over processes in place of each tensor, by one exchange in the order given."""
        if self.size == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [t.numel() for t in tensors])
        torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def say(self, order: Order, step: int = 0, *, detailed: bool = False) -> None:
        """The leader's next order to the others."""
        if self.size > 1:
            torch.distributed.broadcast(torch.tensor([order, step, int(detailed)]), src=0)

    def hear(self) -> tuple[Order, int, bool]:
        """The leader's next order; waits for it."""
        message = torch.zeros(3, dtype=torch.int64)
        torch.distributed.broadcast(message, src=0)
        order, step, detailed = message.tolist()
        return Order(order), step, bool(detailed)


def join(device: str) -> Team:
    """The team of this process. Under torchrun, waits until all have joined."""
    if environment_size() == 1:
        return Team()
    if not torch.distributed.is_available():
        raise WorkerProblem("this torch was built without torch.distributed: start one process, not several")
    # Orders are small CPU tensors whatever the model trains on.
    # The others wait as long as the leader does at a gate. A dead process is seen by torchrun, not by time.
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    return Team(torch.distributed.get_rank(), torch.distributed.get_world_size())


def leave(team: Team) -> None:
    """Frees what `join` took."""
    if team.size > 1:
        torch.distributed.destroy_process_group()
