"""The criteria of a sound run: stable training, healthy routing, no divergence."""

import math
from bisect import bisect_left
from itertools import pairwise

from pydantic import Field

from orchestrator.domain.curves import Curve, best_so_far, trained_evaluations
from orchestrator.domain.evidence import CriterionResult, Verdict, all_of
from orchestrator.protocol.report import Routing
from orchestrator.rules.criteria import Case, Params, for_each_seed, register, unknown, verdict_of
from orchestrator.rules.routing import dead_share, is_moe, measured


class NotDiverged(Params):
    """The eval loss is finite and near its own best."""

    above_best: float = Field(default=3.0, gt=0)
    """Nats above the run's own best so far."""
    evaluations: int = Field(default=2, ge=1)
    """At how many evaluations, this one among them, it may be so far above before the run has diverged."""
    retries: int = Field(default=1, ge=0)
    """How often a diverged run starts again from the last good checkpoint before it has failed."""


@register("not_diverged", NotDiverged, needs=lambda _: 1)
def not_diverged(params: NotDiverged, case: Case) -> CriterionResult:
    """Fails when the last eval loss is not finite, or too far above the best for the second time."""
    return for_each_seed("not_diverged", case, lambda curve: _not_diverged(params, case, curve))


def _not_diverged(params: NotDiverged, case: Case, curve: Curve) -> CriterionResult:
    name = "not_diverged"
    if not curve.evaluations:
        return unknown(name, "there is no evaluation yet", params.above_best)
    last = curve.evaluations[-1]
    if not math.isfinite(last.eval_loss):
        text = f"eval loss is {last.eval_loss} at step {last.step}"
        return CriterionResult(name, Verdict.FAIL, text, threshold=params.above_best)
    limit = params.above_best + case.tolerance
    best = best_so_far(curve)[-1]
    rise = last.eval_loss - best if math.isfinite(best) else 0.0  # at step 0 there is no best yet
    diverged = rise > limit and _times_above(curve, limit) >= params.evaluations
    text = (
        f"eval loss {last.eval_loss:.3f} is {rise:.3f} above its own best at step {last.step}; "
        f"more than {params.above_best:.1f} at {params.evaluations} evaluations is divergence"
    )
    return CriterionResult(name, verdict_of(not diverged), text, rise, params.above_best)


def _times_above(curve: Curve, limit: float) -> int:
    """At how many evaluations the eval loss was finite and more than `limit` above its best until then."""
    rises = [e.eval_loss - b for e, b in zip(curve.evaluations, best_so_far(curve), strict=True)]
    return sum(rise > limit for rise in rises if math.isfinite(rise))


class HealthyRouting(Params):
    """Every layer spreads its tokens over most of its experts."""

    entropy_at_least: float = Field(default=0.5, ge=0, le=1)
    """Of the worst layer, normalised by `ln E`."""
    dead_share_below: float = Field(default=0.25, ge=0, le=1)
    """Experts with a load below `0.1 / E`, as a share, in the layer that has most of them."""
    evaluations: int = Field(default=2, ge=1)
    """In a row, before the routing is called unhealthy."""


@register("healthy_routing", HealthyRouting, needs=lambda _: 1)
def healthy_routing(params: HealthyRouting, case: Case) -> CriterionResult:
    """Passes when the last evaluation is healthy, fails after several bad ones in a row."""
    return for_each_seed("healthy_routing", case, lambda curve: _healthy_routing(params, case, curve))


def _healthy_routing(params: HealthyRouting, case: Case, curve: Curve) -> CriterionResult:
    name = "healthy_routing"
    if not is_moe(curve):
        return CriterionResult(name, Verdict.PASS, "a dense model has no routing that could collapse")
    last = trained_evaluations(curve)[-params.evaluations :]
    seen = [measured(evaluation) for evaluation in last]
    if not seen or seen[-1] is None:
        return unknown(name, "the last evaluation came without routing metrics", params.entropy_at_least)
    healthy = [routing is None or _is_healthy(params, case, routing) for routing in seen]
    text = _routing_sentence(params, seen[-1])
    entropy, limit = seen[-1].entropy_worst_layer, params.entropy_at_least
    if healthy[-1]:
        return CriterionResult(name, Verdict.PASS, text, entropy, limit)
    if any(healthy) or len(healthy) < params.evaluations:
        text = f"{text}; it counts as unhealthy after {params.evaluations} such evaluations in a row"
        return CriterionResult(name, Verdict.INCONCLUSIVE, text, entropy, limit)
    text = f"{text}, for {params.evaluations} evaluations in a row"
    return CriterionResult(name, Verdict.FAIL, text, entropy, limit)


def _is_healthy(params: HealthyRouting, case: Case, routing: Routing) -> bool:
    even = case.at_least(routing.entropy_worst_layer, params.entropy_at_least)
    return even and dead_share(routing) < params.dead_share_below - case.tolerance


def _routing_sentence(params: HealthyRouting, routing: Routing) -> str:
    return (
        f"the worst layer's entropy is {routing.entropy_worst_layer:.3f} "
        f"and {dead_share(routing):.0%} of its experts are dead; "
        f"healthy is at least {params.entropy_at_least:.3f} and fewer than {params.dead_share_below:.0%}"
    )


class Stable(Params):
    """Training goes on without restart loops and without NaN steps."""

    restarts: int = Field(default=2, ge=0)
    per_steps: int = Field(default=1000, ge=1)


@register("stable", Stable, needs=lambda _: 1)
def stable(params: Stable, case: Case) -> CriterionResult:
    """Passes with few restarts in any window of steps, progress between them, and no new NaN step."""
    return for_each_seed("stable", case, lambda curve: _stable(params, curve))


def _stable(params: Stable, curve: Curve) -> CriterionResult:
    evaluations = trained_evaluations(curve)
    if not evaluations:
        return unknown("stable", "there is no evaluation yet")
    most = _most_restarts(curve.restarts, params.per_steps)
    stuck = any(then <= now for now, then in pairwise(curve.restarts))
    before = evaluations[-2].nan_events if len(evaluations) > 1 else 0
    nan_events = max(0, evaluations[-1].nan_events - before)
    parts = (
        CriterionResult(
            "restarts",
            verdict_of(most <= params.restarts),
            f"at most {most} restarts within {params.per_steps:,} steps; {params.restarts} are allowed",
            float(most),
            float(params.restarts),
        ),
        CriterionResult(
            "progress",
            verdict_of(not stuck),
            "two restarts had no progress between them"
            if stuck
            else "each restart went on from a later step",
        ),
        CriterionResult(
            "nan_events",
            verdict_of(nan_events == 0),
            f"{nan_events} NaN events since the evaluation before",
            float(nan_events),
            0.0,
        ),
    )
    verdict = all_of([part.verdict for part in parts])
    return CriterionResult("stable", verdict, "; ".join(part.text for part in parts), parts=parts)


def _most_restarts(restarts: tuple[int, ...], per_steps: int) -> int:
    """The largest number of restarts whose steps lie within one window `[s, s + per_steps)`."""
    steps = sorted(restarts)
    return max((bisect_left(steps, step + per_steps) - i for i, step in enumerate(steps)), default=0)
