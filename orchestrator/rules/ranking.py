"""The order of variants at a gate: by gate value, near values settled by cost and then by name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.curves import Curve, latest_finite


@dataclass(frozen=True)
class Contender:
    """A variant in the ranking. Unknown costs are infinite, so they lose a tie."""

    variant: str
    value: float
    """Mean gate value over its seeds, in nats."""
    flops_per_token: float = math.inf
    parameters: float = math.inf


def contender_at(variant: str, curves: Sequence[Curve], step: int, after: int = 0) -> Contender:
    """A variant by the mean gate value of its runs at a step; infinite where none has a finite one.

    What was measured at or before `after`, the gate of the stage before, is no gate value.
    """
    found = [latest_finite(curve, step, after) for curve in curves]
    values = [evaluation.eval_loss for evaluation in found if evaluation is not None]
    identity = next((curve.identity for curve in curves if curve.identity is not None), None)
    return Contender(
        variant=variant,
        value=math.fsum(values) / len(values) if values else math.inf,
        flops_per_token=identity.flops_per_token if identity else math.inf,
        parameters=identity.parameters_total if identity else math.inf,
    )


def rank(contenders: Sequence[Contender], tie: float) -> list[Contender]:
    """Best first. Whatever the order of the input, the order of the output is the same.

    Nearness alone orders nothing (a may be near b and b near c, while a and c are far apart), so ties
    are settled inside groups: the best value opens a group, all values at most `tie` above that one belong to
    it, the next value opens the next group. Inside a group: fewer FLOPs per token, then fewer
    parameters, then the name.
    """
    ordered: list[Contender] = []
    group: list[Contender] = []
    for contender in sorted(contenders, key=lambda c: (c.value, c.variant)):
        if group and contender.value > group[0].value + tie:
            ordered += sorted(group, key=_cost)
            group = []
        group.append(contender)
    return ordered + sorted(group, key=_cost)


def _cost(contender: Contender) -> tuple[float, float, str]:
    return contender.flops_per_token, contender.parameters, contender.variant
