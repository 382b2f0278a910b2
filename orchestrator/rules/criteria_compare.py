"""The criteria that compare eval losses with the control's at the same step, or the same tokens."""

from pydantic import Field

from orchestrator.domain.curves import Unmatched, trained_evaluations
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.rules.criteria import (
    Case,
    Params,
    noise_margin,
    paired_gap,
    register,
    unknown,
    unmatched,
    verdict_of,
)


class BeatsControl(Params):
    """The eval loss is at least `margin` below the control's."""

    margin: float = 0.05
    sigmas: float = Field(default=0.0, ge=0)
    """The margin is at least this many times `sqrt(2) * sigma`."""


@register("beats_control", BeatsControl, needs=lambda _: 1)
def beats_control(params: BeatsControl, case: Case) -> CriterionResult:
    """Passes when the lead over the control is at least the margin, equality included (protocol 4a)."""
    margin = noise_margin(params.margin, params.sigmas, case.sigma)
    gap = paired_gap(case, case.step)
    if isinstance(gap, Unmatched):
        return unmatched("beats_control", gap, margin)
    passes = case.at_least(-gap.gap, margin)
    sentence, needed = gap.beside(margin)
    text = f"{sentence}; promotion needs {needed} below"
    return CriterionResult("beats_control", verdict_of(passes), text, -gap.gap, margin)


class SameLoss(Params):
    """The eval loss is the control's, up to a floor and the seed noise."""

    floor: float = Field(default=0.005, ge=0)
    sigmas: float = Field(default=2.0, ge=0)


@register("same_loss", SameLoss, needs=lambda _: 1)
def same_loss(params: SameLoss, case: Case) -> CriterionResult:
    """Passes when `abs(gap) <= max(floor, sigmas * sqrt(2) * sigma)` (protocol 4b, first half)."""
    limit = noise_margin(params.floor, params.sigmas, case.sigma)
    gap = paired_gap(case, case.step)
    if isinstance(gap, Unmatched):
        return unmatched("same_loss", gap, limit)
    passes = case.at_most(abs(gap.gap), limit)
    sentence, within = gap.beside(limit)
    text = f"{sentence}; the same loss is within {within}"
    return CriterionResult("same_loss", verdict_of(passes), text, abs(gap.gap), limit)


class FirstGap(Params):
    """The gap at the first evaluation is small enough to go on."""

    at_most: float = 0.10


@register("first_gap", FirstGap, needs=lambda _: 1)
def first_gap(params: FirstGap, case: Case) -> CriterionResult:
    """Passes when the first evaluation is at most so far above the control's (protocol 7)."""
    first = _first_step(case)
    if first is None:
        return unknown("first_gap", "there is no evaluation yet", params.at_most)
    gap = paired_gap(case, first)
    if isinstance(gap, Unmatched):
        return unmatched("first_gap", gap, params.at_most)
    passes = case.at_most(gap.gap, params.at_most)
    sentence, allowed = gap.beside(params.at_most)
    text = f"{sentence}, its first evaluation; the screen allows {allowed} above"
    return CriterionResult("first_gap", verdict_of(passes), text, gap.gap, params.at_most)


class NonWidening(Params):
    """A gap to the control does not grow beyond noise."""

    floor: float = Field(default=0.01, ge=0)
    sigmas: float = Field(default=2.0, ge=0)


@register("non_widening", NonWidening, needs=lambda _: 2)
def non_widening(params: NonWidening, case: Case) -> CriterionResult:
    """Passes when `gap_last <= gap_first + max(floor, sigmas * sqrt(2) * sigma)`, of positive gaps only.

    A lead counts as a gap of 0, so a lead that shrinks has not widened anything (protocol 7).
    """
    name, slack = "non_widening", noise_margin(params.floor, params.sigmas, case.sigma)
    first = _first_step(case)
    if first is None or first >= case.step:
        return unknown(name, "one evaluation cannot show a trend; the next one will", slack)
    start, end = paired_gap(case, first), paired_gap(case, case.step)
    if isinstance(start, Unmatched):
        return unmatched(name, start, slack)
    if isinstance(end, Unmatched):
        return unmatched(name, end, slack)
    if end.gap <= 0:
        text = f"{end.beside(0.0)[0]}: there is no gap that could widen"
        return CriterionResult(name, Verdict.PASS, text, 0.0, slack)
    growth = end.gap - max(start.gap, 0.0)
    text = (
        f"the gap to the control went from {start.gap:+.3f} at {start.where} "
        f"to {end.gap:+.3f} at {end.where}; "
        f"it may grow by {slack:.3f}"
    )
    return CriterionResult(name, verdict_of(case.at_most(growth, slack)), text, growth, slack)


def _first_step(case: Case) -> int | None:
    """The first step at which every run of the case was evaluated."""
    steps = [{e.step for e in trained_evaluations(subject)} for subject in case.subjects]
    shared = set.intersection(*steps) if steps else set()
    return min(shared, default=None)
