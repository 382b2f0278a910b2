"""What a comparison amounts to: means over paired seeds with their confidence, and the time to a loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.domain.curves import Curve, trained_evaluations
from orchestrator.rules.statistics import seed_noise

# The 0.975 quantile of Student's t for 1 to 30 degrees of freedom: NIST/SEMATECH e-Handbook, 1.3.6.7.2.
T_975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
Z_975 = 1.959964


def t_975(degrees: int) -> float:
    """The 0.975 quantile of Student's t: half the width of a 95% interval in standard errors.

    From the table, and above 30 degrees of freedom from Abramowitz and Stegun 26.7.5, which is right to
    four digits there. Raises `ValueError` below 1.
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom: an interval needs two values at least")
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    z, n = Z_975, float(degrees)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95% confidence interval; without bounds where there is one seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


def mean_over_seeds(values: Sequence[float]) -> Interval:
    """`mean ± t_975(n - 1) * s / sqrt(n)`, with the sample standard deviation `s`.

    The values are paired differences, one for each seed. Raises `ValueError` when there are none.
    """
    if not values:
        raise ValueError("a mean needs one value at least")
    mean = math.fsum(values) / len(values)
    spread = seed_noise(values)
    if spread is None or len(values) < 2 or not math.isfinite(mean):
        return Interval(mean, None, None, len(values))
    half = t_975(len(values) - 1) * spread / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


@dataclass(frozen=True)
class Reached:
    """When a run came to a loss: seconds of training, and how well that is known."""

    seconds: float
    how: Literal["measured", "interpolated", "at_most"]
    """`at_most`: the evaluation before is missing or too far off, so it may have been earlier."""


def time_to_loss(curve: Curve, target: float, ratio: float = 2.0) -> Reached | None:
    """Training time until the eval loss was first at or below `target`; None where it has not been.

    Between two evaluations log time is linear in log loss, as `domain.curves.loss_at` has log loss linear
    in log budget, if the later is at most `ratio` times the earlier. Never extrapolated.
    """
    before: tuple[float, float] | None = None
    for evaluation in trained_evaluations(curve):
        seconds, loss = evaluation.wall_seconds, evaluation.eval_loss
        if not math.isfinite(loss) or not math.isfinite(seconds):
            continue
        if loss <= target:
            return _reached(before, (seconds, loss), target, ratio)
        before = (seconds, loss)
    return None


def _reached(
    before: tuple[float, float] | None, after: tuple[float, float], target: float, ratio: float
) -> Reached:
    seconds, loss = after
    if loss == target:
        return Reached(seconds, "measured")
    if before is None or loss <= 0 or not 0 < before[0] <= seconds <= ratio * before[0]:
        return Reached(seconds, "at_most")
    share = math.log(target / before[1]) / math.log(loss / before[1])
    return Reached(before[0] * (seconds / before[0]) ** share, "interpolated")


def percent_change(value: float | None, control: float | None) -> float | None:
    """`100 * (value / control - 1)`; None where a value is missing or not finite, or the control is 0."""
    if value is None or control is None or control <= 0:
        return None
    if not math.isfinite(value) or not math.isfinite(control):
        return None
    return 100 * (value / control - 1)
