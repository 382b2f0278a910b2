"""Small statistics in plain Python: the service loads no array library."""

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

Point = tuple[float, float]

MAX_THEIL_SEN_POINTS = 200


def trailing_mean(points: Sequence[Point], width: int) -> list[Point]:
    """Each value replaced by the mean of itself and up to `width - 1` values before it."""
    values = [y for _, y in points]
    return [(x, fmean(values[max(0, i + 1 - width) : i + 1])) for i, (x, _) in enumerate(points)]


def thin(points: Sequence[Point], at_most: int) -> list[Point]:
    """At most `at_most` of the points, evenly spread by position, the first and the last always kept."""
    if len(points) <= at_most:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (at_most - 1))] for i in range(at_most)]


def theil_sen(points: Sequence[Point]) -> float | None:
    """The median slope over all pairs of points (Theil 1950, Sen 1968); None without two distinct x.

    Quadratic in the number of points, so a longer series is thinned evenly to 200 first.
    """
    kept = thin(points, MAX_THEIL_SEN_POINTS)
    slopes = [
        (right[1] - left[1]) / (right[0] - left[0])
        for i, left in enumerate(kept)
        for right in kept[i + 1 :]
        if right[0] != left[0]
    ]
    return median(slopes) if slopes else None


def seed_noise(losses: Sequence[float]) -> float | None:
    """The sample standard deviation of the control's seeds; None with fewer than two finite losses."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    return stdev(finite) if len(finite) >= 2 else None


def apart(value: float, limit: float) -> tuple[str, str]:
    """Both numbers with the digits that tell them apart: `0.0204` and `0.0200`, not `0.020` twice.

    Three digits where even six do not tell them apart.
    """
    for digits in (3, 4, 5, 6):
        pair = f"{value:.{digits}f}", f"{limit:.{digits}f}"
        if pair[0] != pair[1]:
            return pair
    return f"{value:.3f}", f"{limit:.3f}"
