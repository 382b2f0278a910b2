"""Sets drawn from recorded configs, and what is said of a policy over many of them.

Sets share configs, so they are no independent samples: intervals come from leaving out one config at a time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol, TypeVar

from orchestrator.rules.verdict import t_975

T = TypeVar("T")


class Draws(Protocol):
    """Where chance comes from: `random.Random` with a seed, handed in."""

    def randint(self, a: int, b: int) -> int:
        """A whole number from `a` to `b`, both included."""

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """`k` different members."""

    def choice(self, seq: Sequence[T]) -> T:
        """One member."""


@dataclass(frozen=True)
class DrawnSet:
    """One run of each of several configs, in the plan's order; one of them stands as the control."""

    members: tuple[int, ...]
    control: int


def draw_sets(
    draws: Draws,
    configs: Mapping[str, Sequence[int]],
    *,
    count: int,
    smallest: int,
    largest: int,
    control: str | None = None,
) -> list[DrawnSet]:
    """Sets of `smallest` to `largest` configs, the control among them: the one named, or the first drawn.

    `configs` holds the runs of each. Equal draws give equal sets whatever the order of the mapping.
    Raises `ValueError` where there are fewer configs than the largest set takes.
    """
    others = sorted(name for name in configs if name != control)
    fixed = [control] if control is not None else []
    if len(others) + len(fixed) < largest:
        raise ValueError(f"{len(configs)} configs are fewer than {largest}")
    drawn = []
    for _ in range(count):
        size = draws.randint(smallest, largest)
        names = fixed + draws.sample(others, size - len(fixed))
        members = tuple(draws.choice(configs[name]) for name in names)
        drawn.append(DrawnSet(members, members[0]))
    return drawn


@dataclass(frozen=True)
class Estimate:
    """A statistic over the sets with its 95% interval; none where no config could be left out."""

    value: float
    low: float | None
    high: float | None


def clustered(
    values: Sequence[float], holds: Sequence[frozenset[str]], statistic: Callable[[Sequence[float]], float]
) -> Estimate:
    """The statistic of the sets' values, with the delete-one-config jackknife's interval.

    `holds` names the configs of each set. With `G` configs, and `s_g` the statistic over the sets without
    config `g`, the variance is `(G - 1) / G * sum((s_g - mean(s))^2)`; the interval takes Student's t with
    `G - 1` degrees of freedom. For statistics over subsets of a sample, quantiles of them among them, the
    jackknife is consistent (Arvesen 1969; Serfling 1984) and errs to the wide side (Efron and Stein 1981);
    that only so many sets were drawn widens it further. A config that is in every set, a named control, is a
    condition and is never left out. Raises `ValueError` without a value.
    """
    if not values:
        raise ValueError("there is no set to say anything of")
    value = statistic(values)
    names = sorted(frozenset().union(*holds) - holds[0].intersection(*holds))
    without = [[v for v, held in zip(values, holds, strict=True) if name not in held] for name in names]
    left = [statistic(kept) for kept in without]
    if len(left) < 2:
        return Estimate(value, None, None)
    middle = fmean(left)
    error = math.sqrt((len(left) - 1) / len(left) * math.fsum((x - middle) ** 2 for x in left))
    reach = t_975(len(left) - 1) * error
    return Estimate(value, value - reach, value + reach)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies, linear between neighbours (Hyndman and Fan's type 7)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
