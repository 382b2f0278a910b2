"""The criteria that stop a run early. They read its own curve alone, so arrival order cannot move them."""

import math
from itertools import pairwise

from pydantic import Field

from orchestrator.domain.curves import Curve, best_so_far, trained_evaluations
from orchestrator.domain.evidence import CriterionResult, Verdict, all_of
from orchestrator.rules.criteria import Case, Params, for_each_seed, register, unknown, verdict_of
from orchestrator.rules.routing import imbalance, is_moe, measured
from orchestrator.rules.statistics import apart, theil_sen, trailing_mean


class NoImprovement(Params):
    """Every one of the last evaluations improved the best by at most `threshold` nats."""

    threshold: float = Field(default=0.02, ge=0)
    evaluations: int = Field(default=3, ge=1)


@register("no_improvement", NoImprovement, needs=lambda params: params.evaluations + 1)
def no_improvement(params: NoImprovement, case: Case) -> CriterionResult:
    """Passes when no step from `best_before` to `best_after` was above the threshold (protocol 3a)."""
    return for_each_seed("no_improvement", case, lambda curve: _no_improvement(params, case, curve))


def _no_improvement(params: NoImprovement, case: Case, curve: Curve) -> CriterionResult:
    name, needed = "no_improvement", params.evaluations + 1
    count = len(trained_evaluations(curve))
    if count < needed:
        text = f"{count} of the {needed} evaluations that this takes"
        return unknown(name, text, params.threshold)
    best = best_so_far(curve)[-needed:]
    if not math.isfinite(best[0]):
        return unknown(name, "there is no finite evaluation to improve on", params.threshold)
    largest = max(before - after for before, after in pairwise(best))
    passes = case.at_most(largest, params.threshold)
    fell, plateau = apart(largest, params.threshold)
    text = (
        f"the best eval loss fell by {fell} at most in the last {params.evaluations} evaluations; "
        f"a plateau is at most {plateau} in each"
    )
    return CriterionResult(name, verdict_of(passes), text, largest, params.threshold)


class NearFlatSlope(Params):
    """The smoothed train loss is near flat over the last part of the run."""

    threshold: float = Field(default=0.01, gt=0)
    """Nats per 1,000 steps; the slope's size must be below it."""
    window_steps: int = Field(default=500, ge=1)
    window_share: float = Field(default=0.20, ge=0, le=1)
    """Of the steps trained so far; the longer of the two windows is used."""
    points: int = Field(default=20, ge=2)
    smoothing: int = Field(default=10, ge=1)
    """Each point is the mean of itself and the up to `smoothing - 1` points before it."""


@register("near_flat_slope", NearFlatSlope, needs=lambda _: 1)
def near_flat_slope(params: NearFlatSlope, case: Case) -> CriterionResult:
    """Passes when the Theil-Sen slope of the smoothed train loss is below the threshold (protocol 3b)."""
    return for_each_seed("near_flat_slope", case, lambda curve: _near_flat_slope(params, case, curve))


def _near_flat_slope(params: NearFlatSlope, case: Case, curve: Curve) -> CriterionResult:
    name = "near_flat_slope"
    finite = [(float(step), loss) for step, loss in curve.train_loss if math.isfinite(loss)]
    now = curve.evaluations[-1].step if curve.evaluations else case.step
    window = max(params.window_steps, params.window_share * now)
    inside = [p for p in trailing_mean(finite, params.smoothing) if now - window < p[0] <= now]
    if len(inside) < params.points:
        text = f"{len(inside)} train-loss points in the last {window:,.0f} steps; this takes {params.points}"
        return unknown(name, text, params.threshold)
    slope = theil_sen(inside)
    if slope is None:
        return unknown(name, "all train-loss points are at one step", params.threshold)
    per_thousand = 1000 * slope
    passes = abs(per_thousand) < params.threshold - case.tolerance
    text = (
        f"the train loss moves by {per_thousand:+.4f} per 1k steps over the last {window:,.0f}; "
        f"near flat is within {params.threshold:.3f}"
    )
    return CriterionResult(name, verdict_of(passes), text, abs(per_thousand), params.threshold)


class RoutingNotImproving(Params):
    """Routing entropy and load imbalance stand still."""

    evaluations: int = Field(default=4, ge=2)
    entropy_range: float = Field(default=0.01, ge=0)
    imbalance_range: float = Field(default=0.05, ge=0)


@register("routing_not_improving", RoutingNotImproving, needs=lambda params: params.evaluations)
def routing_not_improving(params: RoutingNotImproving, case: Case) -> CriterionResult:
    """Passes when both ranges are small; true of itself for a dense model (protocol 3c)."""
    return for_each_seed(
        "routing_not_improving", case, lambda curve: _routing_not_improving(params, case, curve)
    )


def _routing_not_improving(params: RoutingNotImproving, case: Case, curve: Curve) -> CriterionResult:
    name = "routing_not_improving"
    if not is_moe(curve):
        return CriterionResult(name, Verdict.PASS, "a dense model has no routing that could improve")
    last = trained_evaluations(curve)[-params.evaluations :]
    seen = [routing for routing in map(measured, last) if routing is not None]
    if len(seen) < len(last):
        return unknown(name, "an evaluation came without routing metrics, so their range is not known")
    if len(last) < params.evaluations:
        return unknown(name, f"{len(last)} of the {params.evaluations} evaluations that this takes")
    entropy = _range([routing.entropy for routing in seen])
    balance = _range([imbalance(routing) for routing in seen])
    entropy_still = case.at_most(entropy, params.entropy_range)
    balance_still = case.at_most(balance, params.imbalance_range)
    over = f"over {params.evaluations} evaluations"
    entropy_moved, entropy_still_at = apart(entropy, params.entropy_range)
    balance_moved, balance_still_at = apart(balance, params.imbalance_range)
    parts = (
        CriterionResult(
            "entropy_range",
            verdict_of(entropy_still),
            f"entropy moved within {entropy_moved} {over}; still is at most {entropy_still_at}",
            entropy,
            params.entropy_range,
        ),
        CriterionResult(
            "imbalance_range",
            verdict_of(balance_still),
            f"imbalance moved within {balance_moved} {over}; still is at most {balance_still_at}",
            balance,
            params.imbalance_range,
        ),
    )
    verdict = all_of([part.verdict for part in parts])
    return CriterionResult(name, verdict, "; ".join(part.text for part in parts), parts=parts)


def _range(values: list[float]) -> float:
    return max(values) - min(values)
