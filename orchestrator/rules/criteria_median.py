"""The criteria of the middle of the field: below its median, below a percentile of it."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from pydantic import Field as Bounded

from orchestrator.rules.criteria import Field, Grid, Params, Standing, ranked
from orchestrator.rules.field import Told, compares, diverged, points_every, ranked_sentence, where


class BelowMedian(Params):
    """Vizier's median stop (Golovin et al. 2017): its best is worse than the others' median mean."""

    start: float = Bounded(default=0.04, ge=0, lt=1)
    """Nobody leaves before this share of the full budget."""
    min_variants: int = Bounded(default=3, ge=2)
    """With fewer in the field nobody leaves."""
    every: int = Bounded(default=5, ge=1)
    """Evaluations from point to point."""


def median_drops(params: BelowMedian, standings: Sequence[Standing], step: int, grid: Grid) -> frozenset[str]:
    """Those whose best loss is above the median over the others of the mean loss so far."""
    gone = diverged(standings)
    sound = ranked(standings)
    if step < params.start * grid.horizon or len(sound) < params.min_variants:
        return gone
    means = sorted(s.running_mean for s in sound)
    slack = grid.tolerance
    return gone | {s.variant for s in sound if s.best > median_without(means, s.running_mean) + slack}


def median_without(ascending: Sequence[float], value: float) -> float:
    """The median of the other values, where `value` is one of at least two."""
    own, others = bisect_left(ascending, value), len(ascending) - 1
    low, high = (others - 1) // 2, others // 2
    return (ascending[low + (low >= own)] + ascending[high + (high >= own)]) / 2


def median_points(params: BelowMedian, grid: Grid) -> tuple[int, ...]:
    return points_every(grid, params.every, params.start)


@compares("below_median", BelowMedian, drops=median_drops, points=median_points)
def _tell_median(params: BelowMedian, field: Field, standing: Standing) -> Told:
    means = sorted(s.running_mean for s in field.ranked)
    if len(means) < params.min_variants:
        text = f"{ranked_sentence(field, standing)}; the median asks for {params.min_variants} variants"
        return text, None, None
    middle = median_without(means, standing.running_mean)
    text = (
        f"its best eval loss so far, {standing.best:.3f}, stands against {middle:.3f} at {where(field)}, "
        f"the median of the other {len(means) - 1} variants' means"
    )
    return text, standing.best, middle


class BelowPercentile(Params):
    """Ax's percentile stop: its loss is worse than a percentile of the losses at the same step."""

    percentile: float = Bounded(default=50.0, gt=0, lt=100)
    """Of the field that may stay, best first; 50 is Ax's default."""
    start: float = Bounded(default=0.04, ge=0, lt=1)
    min_variants: int = Bounded(default=5, ge=2)
    """With fewer in the field nobody leaves; 5 is Ax's default."""
    every: int = Bounded(default=5, ge=1)


def percentile_drops(
    params: BelowPercentile, standings: Sequence[Standing], step: int, grid: Grid
) -> frozenset[str]:
    """Those whose loss is above the percentile of all losses at the step."""
    gone = diverged(standings)
    sound = ranked(standings)
    if step < params.start * grid.horizon or len(sound) < params.min_variants:
        return gone
    limit = percentile_of([s.loss for s in sound], params.percentile) + grid.tolerance
    return gone | {s.variant for s in sound if s.loss > limit}


def percentile_of(ascending: Sequence[float], percentile: float) -> float:
    """Linear between the two nearest values, as NumPy's default is."""
    place = (len(ascending) - 1) * percentile / 100
    low = math.floor(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (place - low) * (ascending[high] - ascending[low])


def percentile_points(params: BelowPercentile, grid: Grid) -> tuple[int, ...]:
    return points_every(grid, params.every, params.start)


@compares("below_percentile", BelowPercentile, drops=percentile_drops, points=percentile_points)
def _tell_percentile(params: BelowPercentile, field: Field, standing: Standing) -> Told:
    losses = [s.loss for s in field.ranked]
    if len(losses) < params.min_variants:
        text = f"{ranked_sentence(field, standing)}; the percentile asks for {params.min_variants} variants"
        return text, None, None
    limit = percentile_of(losses, params.percentile)
    text = f"{ranked_sentence(field, standing)}; the best {params.percentile:g}% are within {limit:.3f}"
    return text, standing.loss, limit
