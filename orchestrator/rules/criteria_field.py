"""The criteria of a race: who is not among the best that the budget so far leaves in it.

Raw losses at the same step are ranked; equal losses go by the plan's order. What diverged leaves at once
and counts in no rank.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field as Bounded

from orchestrator.rules.criteria import Field, Grid, Params, Standing, ranked
from orchestrator.rules.field import EXACT, Told, compares, diverged, first_at, outside, ranked_sentence

Share = Annotated[float, Bounded(gt=0, lt=1)]


class OutsideRace(Params):
    """Survivors shrink with the square root of the budget: a variant is not among the best so many."""

    f0: float = Bounded(default=0.025, gt=0, le=1)
    """The knob: the share of the full budget up to which all may stay. 0.015 is cheap, 0.04 careful."""
    start: float = Bounded(default=0.04, ge=0, lt=1)
    """Nobody leaves before this share of the full budget."""
    at_least: int = Bounded(default=2, ge=1)
    """So many stay, whatever the square root says,"""
    at_least_late: int = Bounded(default=1, ge=1)
    """and so many from a share of the full budget on:"""
    late_share: float = Bounded(default=0.5, gt=0, le=1)


def race_cap(params: OutsideRace, step: int, grid: Grid) -> int:
    """How many may stay at a step: `max(at_least, ceil(n * min(1, sqrt(f0 * R / t))))`.

    `n` variants began, `R` is the full budget of one run, `t` the step; `n` before the start.
    """
    if step < first_at(grid, params.start):
        return grid.entered
    late = step >= params.late_share * grid.horizon
    share = min(1.0, math.sqrt(params.f0 * grid.horizon / step))
    return max(params.at_least_late if late else params.at_least, math.ceil(grid.entered * share - EXACT))


def race_drops(params: OutsideRace, standings: Sequence[Standing], step: int, grid: Grid) -> frozenset[str]:
    """Those outside the best that the cap keeps at the step, and those that diverged."""
    return diverged(standings) | outside(ranked(standings), race_cap(params, step, grid))


def race_points(params: OutsideRace, grid: Grid) -> tuple[int, ...]:
    """The evaluation steps at which the cap gets lower, below the horizon."""
    first, every, n = first_at(grid, params.start), grid.every, grid.entered
    shares = [params.late_share, *(params.f0 * (n / cap) ** 2 for cap in range(1, n))]
    near = {first_at(grid, share) + shift for share in shares if share <= 1 for shift in (-every, 0, every)}
    steps = sorted(step for step in near | {first} if first <= step < grid.horizon)
    return tuple(step for step in steps if race_cap(params, step, grid) < _cap_before(params, step, grid))


def _cap_before(params: OutsideRace, step: int, grid: Grid) -> int:
    return min(grid.entered, race_cap(params, step - grid.every, grid)) if step > grid.every else grid.entered


@compares("outside_race", OutsideRace, drops=race_drops, points=race_points)
def _tell_race(params: OutsideRace, field: Field, standing: Standing) -> Told:
    cap = race_cap(params, field.step, field.grid)
    text = f"{ranked_sentence(field, standing)}; the best {min(cap, field.grid.entered)} stay in the race"
    return text, float(field.ranks[standing.variant]), float(cap)


class Rungs(Params):
    """Rungs at shares of the full budget, or at the gates of the stages; each keeps one in `eta`."""

    eta: float = Bounded(default=3.0, gt=1)
    at: Annotated[tuple[Share, ...], Bounded(min_length=1, max_length=100)] | Literal["stages"] = (0.02, 0.1)
    """A share is met by the first evaluation at or after it; `stages` stands for the gates' steps."""


class OutsideRung(Rungs):
    """Successive halving (Jamieson and Talwalkar 2016): rung k keeps `ceil(entered / eta^(k + 1))`."""


class OutsideAsha(Rungs):
    """ASHA's stopping rule (Li et al. 2020), with the plan's order in place of the order of arrival."""


def rungs(params: Rungs, grid: Grid) -> tuple[int, ...]:
    """The steps of the rungs, ascending, below the horizon; shares with one evaluation are one rung."""
    shares = params.at
    steps = grid.stages if shares == "stages" else [first_at(grid, share) for share in shares]
    return tuple(sorted({step for step in steps if step < grid.horizon}))


def rung_cap(params: OutsideRung, step: int, grid: Grid) -> int:
    """How many the latest rung keeps, at least 1; everybody before the first rung."""
    passed = sum(rung <= step for rung in rungs(params, grid))
    return max(1, math.ceil(grid.entered / params.eta**passed - EXACT))


def rung_drops(params: OutsideRung, standings: Sequence[Standing], step: int, grid: Grid) -> frozenset[str]:
    """Those outside the best that the latest rung keeps, and those that diverged."""
    return diverged(standings) | outside(ranked(standings), rung_cap(params, step, grid))


@compares("outside_rung", OutsideRung, drops=rung_drops, points=rungs)
def _tell_rung(params: OutsideRung, field: Field, standing: Standing) -> Told:
    cap = rung_cap(params, field.step, field.grid)
    text = f"{ranked_sentence(field, standing)}; the rung keeps the best {cap} of {field.grid.entered}"
    return text, float(field.ranks[standing.variant]), float(cap)


def asha_drops(params: OutsideAsha, standings: Sequence[Standing], step: int, grid: Grid) -> frozenset[str]:
    """At a rung: those not among the best one in `eta` of the variants up to them in the plan's order."""
    gone = diverged(standings)
    if step not in rungs(params, grid):
        return gone
    sound = ranked(standings)
    return gone | {s.variant for s in sound if not _asha_stays(params, sound, s)}


def _asha_stays(params: OutsideAsha, sound: Sequence[Standing], subject: Standing) -> bool:
    place, count = place_so_far(sound, subject)
    return place <= asha_keeps(params, count)


def asha_keeps(params: OutsideAsha, count: int) -> int:
    """How many of the `count` variants that came to a rung are its best."""
    return max(1, math.floor(count / params.eta + EXACT))


def place_so_far(sound: Sequence[Standing], subject: Standing) -> tuple[int, int]:
    """(rank, number) of a variant and those before it in the plan; of equal losses the earlier is ahead."""
    before = [s.loss for s in sound if (s.order, s.variant) < (subject.order, subject.variant)]
    return 1 + sum(loss <= subject.loss for loss in before), 1 + len(before)


@compares("outside_asha", OutsideAsha, drops=asha_drops, points=rungs)
def _tell_asha(params: OutsideAsha, field: Field, standing: Standing) -> Told:
    place, count = place_so_far(field.ranked, standing)
    keeps = asha_keeps(params, count)
    text = (
        f"{ranked_sentence(field, standing)}, and rank {place} of the {count} up to it in the plan; "
        f"the rung keeps the best {keeps} of them"
    )
    return text, float(place), float(keeps)
