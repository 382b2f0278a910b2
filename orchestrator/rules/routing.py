"""How evenly an MoE spreads its tokens, read from an evaluation."""

import math

from orchestrator.domain.curves import Curve
from orchestrator.protocol.report import Evaluation, Routing


def is_moe(curve: Curve) -> bool:
    """Whether the run has experts to route to: it reports routing, a balance loss or idle parameters.

    A single expert leaves nothing to route.
    """
    if curve.most_experts is not None:
        return curve.most_experts > 1
    if curve.has_balance_loss:
        return True
    identity = curve.identity
    return identity is not None and identity.parameters_active < identity.parameters_total


def imbalance(routing: Routing) -> float:
    """`max load / mean load - 1`. Loads are shares that sum to 1, so the mean is `1 / E`."""
    return routing.load_max * routing.num_experts - 1


def dead_share(routing: Routing) -> float:
    """Dead experts as a share of all, in the layer that has most of them."""
    return routing.dead_experts / routing.num_experts


def measured(evaluation: Evaluation) -> Routing | None:
    """The routing of an evaluation, if it was recorded in finite numbers."""
    routing = evaluation.routing
    if routing is None:
        return None
    numbers = (routing.entropy, routing.entropy_worst_layer, routing.load_max)
    return routing if all(math.isfinite(number) for number in numbers) else None
