"""The criteria that spare the front of the field: behind the leader, not among the best."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from pydantic import Field as Bounded

from orchestrator.rules.criteria import Field, Grid, Params, Standing, noise_margin, ranked
from orchestrator.rules.field import Told, compares, diverged, points_every, ranked_sentence
from orchestrator.rules.statistics import apart


class BehindLeader(Params):
    """The gap to the best variant is above the noise of a difference."""

    floor: float = Bounded(default=0.0, ge=0)
    """Nats."""
    sigmas: float = Bounded(default=2.0, ge=0)
    """The gap must be above this many times `sqrt(2) * sigma`."""
    every: int = Bounded(default=5, ge=1)
    """Evaluations from point to point."""


def leader_drops(
    params: BehindLeader, standings: Sequence[Standing], step: int, grid: Grid
) -> frozenset[str]:
    """Those more than `max(floor, sigmas * sqrt(2) * sigma)` above the lowest loss."""
    sound = ranked(standings)
    if not sound:
        return diverged(standings)
    limit = sound[0].loss + noise_margin(params.floor, params.sigmas, grid.sigma) + grid.tolerance
    return diverged(standings) | {s.variant for s in sound if s.loss > limit}


def leader_points(params: BehindLeader, grid: Grid) -> tuple[int, ...]:
    return points_every(grid, params.every)


@compares("behind_leader", BehindLeader, drops=leader_drops, points=leader_points)
def _tell_leader(params: BehindLeader, field: Field, standing: Standing) -> Told:
    leader = field.ranked[0]
    limit = noise_margin(params.floor, params.sigmas, field.grid.sigma)
    gap = standing.loss - leader.loss
    if leader is standing:
        return f"{ranked_sentence(field, standing)}: it is the leader", gap, limit
    behind, allowed = apart(gap, limit)
    text = f"{ranked_sentence(field, standing)}, {behind} behind {leader.variant}; noise explains {allowed}"
    return text, gap, limit


class NotAmongBest(Params):
    """Not among the best, or past so much of its stage that this protects nobody any more."""

    count: int = Bounded(default=2, ge=1)
    """So many are protected"""
    share: float = Bounded(default=0.5, ge=0, le=1)
    """up to this share of their stage."""
    every: int = Bounded(default=5, ge=1)
    """Evaluations from point to point."""


def protected_until(params: NotAmongBest, step: int, grid: Grid) -> float:
    """The step that ends the protection: the share of the way from the gate before to the stage's own."""
    stage = min(bisect_left(grid.stages, step), len(grid.stages) - 1)
    begin = grid.stages[stage - 1] if stage else 0
    return begin + params.share * (grid.stages[stage] - begin)


def best_drops(params: NotAmongBest, standings: Sequence[Standing], step: int, grid: Grid) -> frozenset[str]:
    """Those ranked below `count`; everybody in the later part of a stage."""
    if step >= protected_until(params, step, grid):
        return frozenset(standing.variant for standing in standings)
    return diverged(standings) | {standing.variant for standing in ranked(standings)[params.count :]}


def best_points(params: NotAmongBest, grid: Grid) -> tuple[int, ...]:
    return points_every(grid, params.every)


@compares("not_among_best", NotAmongBest, drops=best_drops, points=best_points)
def _tell_best(params: NotAmongBest, field: Field, standing: Standing) -> Told:
    until = math.ceil(protected_until(params, field.step, field.grid))
    text = f"{ranked_sentence(field, standing)}; the best {params.count} are spared before step {until:,}"
    return text, float(field.ranks[standing.variant]), float(params.count)
