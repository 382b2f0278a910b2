"""A budget in slot-hours that holds: what is spent, what is promised, and what can still be paid."""

from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = 3600.0


@dataclass(frozen=True)
class Work:
    """A run as the budget sees it. Times in seconds, each counted once for every slot that is held."""

    run_id: int
    step: int
    target_step: int
    slots: int
    spent: float
    """Slot-seconds of all its attempts so far."""
    flops_per_step: float
    """Forward FLOPs of one training step: what scales a cost from one run to another."""
    is_live: bool
    trained: int
    """Steps that its attempts trained, those that were trained twice among them."""


@dataclass(frozen=True)
class Account:
    """What an experiment may still spend."""

    limit: float
    """Slot-seconds."""
    spent: float
    committed: float
    """What live workers still need to come to their targets."""
    probing: bool
    """A live worker's cost is not known yet: until it is, no other run of unknown cost is started."""

    @property
    def left(self) -> float:
        """Slot-seconds neither spent nor promised; below 0 when a run takes longer than it seemed."""
        return self.limit - self.spent - self.committed

    @property
    def is_exhausted(self) -> bool:
        return self.spent >= self.limit

    def can_pay(self, cost: float | None) -> bool:
        """Whether a run of this cost may start; of those whose cost is unknown, one at a time may."""
        if cost is None:
            return not self.probing and self.left > 0
        return cost <= self.left

    def promise(self, cost: float | None) -> "Account":
        """The account after a start."""
        return Account(self.limit, self.spent, self.committed + (cost or 0.0), self.probing or cost is None)


def slot_seconds_per_step(work: Work, every: Sequence[Work]) -> float | None:
    """What one more step of a run costs: as measured on itself, else on the others, scaled by their FLOPs.

    Attempts are charged from launch to end, so start-up, evaluations and checkpoints are in the price.
    None when no run has trained a step yet.
    """
    if work.trained > 0:
        return work.spent / work.trained
    known = [other for other in every if other.trained > 0 and other.flops_per_step > 0]
    flops = sum(other.flops_per_step * other.trained for other in known)
    if not flops:
        return None
    return sum(other.spent for other in known) / flops * work.flops_per_step


def cost_of(work: Work, every: Sequence[Work]) -> float | None:
    """Slot-seconds from a run's step to its target; None while nothing has been measured."""
    price = slot_seconds_per_step(work, every)
    return None if price is None else price * max(0, work.target_step - work.step)


def account(slot_hours: float, every: Sequence[Work]) -> Account:
    """The state of a budget, from all runs of its experiment."""
    promised = [cost_of(work, every) for work in every if work.is_live]
    return Account(
        limit=slot_hours * SECONDS,
        spent=sum(work.spent for work in every),
        committed=sum(cost for cost in promised if cost is not None),
        probing=any(cost is None for cost in promised),
    )
