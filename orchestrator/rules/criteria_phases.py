"""The stop criteria of a calibrated rule: a plateau measured in noise, outside the schedule's phases."""

import math

from pydantic import Field

from orchestrator.domain.curves import Curve, best_so_far, trained_evaluations
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.rules.criteria import Case, Params, for_each_seed, register, unknown, verdict_of
from orchestrator.rules.statistics import apart


class Plateau(Params):
    """Over several evaluations together the best loss fell by no more than noise."""

    floor: float = Field(default=0.002, ge=0)
    """Nats."""
    sigmas: float = Field(default=2.0, ge=0)
    """The fall may be this many times sigma."""
    evaluations: int = Field(default=5, ge=1)


@register("plateau", Plateau, needs=lambda params: params.evaluations + 1)
def plateau(params: Plateau, case: Case) -> CriterionResult:
    """Passes when `best[k - evaluations] - best[k] <= max(floor, sigmas * sigma)`."""
    return for_each_seed("plateau", case, lambda curve: _plateau(params, case, curve))


def _plateau(params: Plateau, case: Case, curve: Curve) -> CriterionResult:
    name, limit = "plateau", max(params.floor, params.sigmas * case.sigma)
    best = [b for b, e in zip(best_so_far(curve), curve.evaluations, strict=True) if e.step > 0]
    needed = params.evaluations + 1
    if len(best) < needed:
        return unknown(name, f"{len(best)} of the {needed} evaluations that this takes", limit)
    if not math.isfinite(best[-needed]):
        return unknown(name, "there is no finite evaluation to improve on", limit)
    fall = best[-needed] - best[-1]
    fell, flat = apart(fall, limit)
    text = (
        f"the best eval loss fell by {fell} over the last {params.evaluations} evaluations; "
        f"a plateau is at most {flat}"
    )
    return CriterionResult(name, verdict_of(case.at_most(fall, limit)), text, fall, limit)


class OutsidePhases(Params):
    """Neither in the schedule's warm-up nor in its last decay: there a loss says little of what follows."""


@register("outside_phases", OutsidePhases, needs=lambda _: 1)
def outside_phases(params: OutsidePhases, case: Case) -> CriterionResult:
    """Passes when `warmup_steps <= step < decay_from_step`; a bound that no trainer named is no bound."""
    return for_each_seed("outside_phases", case, _outside_phases)


def _outside_phases(curve: Curve) -> CriterionResult:
    name = "outside_phases"
    evaluations = trained_evaluations(curve)
    if not evaluations:
        return unknown(name, "there is no evaluation yet")
    step, identity = evaluations[-1].step, curve.identity
    warmup = identity.warmup_steps if identity else None
    decay = identity.decay_from_step if identity else None
    if warmup is not None and step < warmup:
        text = f"step {step:,} is in the schedule's warm-up, which ends at {warmup:,}"
        return CriterionResult(name, Verdict.FAIL, text, float(step), float(warmup))
    if decay is not None and step >= decay:
        text = f"step {step:,} is in the schedule's last decay, which began at {decay:,}"
        return CriterionResult(name, Verdict.FAIL, text, float(step), float(decay))
    named = warmup is not None or decay is not None
    outside = f"step {step:,} is outside the schedule's warm-up and last decay"
    return CriterionResult(name, Verdict.PASS, outside if named else "its trainer names no phase to wait for")
