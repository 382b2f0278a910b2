"""How large seed noise is in recorded curves, and what the margins of a policy are beside it."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import variance
from typing import Literal

from orchestrator.rules.nodes import Combined, Leaf
from orchestrator.rules.policies import Policy

Of = Literal["difference of two runs", "one run", "change of a difference"]

DIFFERENCE: Of = "difference of two runs"
ONE: Of = "one run"
CHANGE: Of = "change of a difference"
SPREAD: Mapping[Of, float] = {ONE: 1.0, DIFFERENCE: math.sqrt(2), CHANGE: 2.0}
"""Standard deviations in units of one run's, of independent runs: a change has two differences in it."""

MARGINS: Mapping[tuple[str, str], Of] = {
    ("beats_control", "margin"): DIFFERENCE,
    ("same_loss", "floor"): DIFFERENCE,
    ("first_gap", "at_most"): DIFFERENCE,
    ("behind_leader", "floor"): DIFFERENCE,
    ("non_widening", "floor"): CHANGE,
    ("no_improvement", "threshold"): ONE,
    ("plateau", "floor"): ONE,
}
"""The numbers of a policy that are nats of eval loss, and what each is held against.

An improvement is of one run: its evaluations are not independent, so its own noise is below this, and
the figure says how the margin stands beside the noise of where the curve lies.
"""


@dataclass(frozen=True)
class Sigma:
    """Seed noise of one run at a step, in nats."""

    step: int
    sigma: float
    freedom: int
    configs: int
    runs: int


def pooled_sigma(step: int, losses: Mapping[str, Sequence[float]]) -> Sigma | None:
    """The pooled within-config standard deviation: `sqrt(sum((n - 1) s^2) / sum(n - 1))` over configs.

    `losses` are those of each config's runs at the step; what is not finite is left out. None where no
    config has two runs.
    """
    finite = {name: [loss for loss in found if math.isfinite(loss)] for name, found in losses.items()}
    groups = [found for found in finite.values() if len(found) >= 2]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return None
    within = math.fsum((len(group) - 1) * variance(group) for group in groups)
    return Sigma(step, math.sqrt(within / freedom), freedom, len(groups), sum(map(len, groups)))


def noise_by_step(runs: Sequence[tuple[str, Mapping[int, float]]], steps: Sequence[int]) -> tuple[Sigma, ...]:
    """Seed noise at each of the steps where it can be told. `runs` are (config, eval loss by step)."""
    found = []
    for step in steps:
        losses: dict[str, list[float]] = defaultdict(list)
        for config, by_step in runs:
            if step in by_step:
                losses[config].append(by_step[step])
        found.append(pooled_sigma(step, losses))
    return tuple(sigma for sigma in found if sigma is not None)


@dataclass(frozen=True)
class Margin:
    """One margin of a policy, in nats."""

    field: str
    value: float
    of: Of

    def in_sigmas(self, sigma: float) -> float | None:
        """The margin over the standard deviation of what it is held against; None where there is no noise."""
        return self.value / (SPREAD[self.of] * sigma) if sigma > 0 else None

    def sentence(self, noise: Sequence[Sigma]) -> str:
        """`0.05 is 18 sigma of one run (13 of a difference of two runs) at step 1,000`, and at the last."""
        known = [found for found in noise if found.sigma > 0]
        if not known:
            return f"{self.value:g}: the noise is not known"
        ends = [known[0], *known[-1:]] if len(known) > 1 else known
        return f"{self.value:g} is {' and '.join(self._at(found) for found in ends)}"

    def _at(self, found: Sigma) -> str:
        one = f"{_short(self.value / found.sigma)} sigma of one run"
        other = "" if self.of == ONE else f" ({_short(self.in_sigmas(found.sigma) or 0.0)} of a {self.of})"
        return f"{one}{other} at step {found.step:,}"


def _short(sigmas: float) -> str:
    return f"{sigmas:.0f}" if sigmas >= 10 else f"{sigmas:.1f}"


def margins_of(policy: Policy) -> list[Margin]:
    """Every margin in a policy's rules and its ties, in nats, by its place in the document."""
    found = [*_margins(policy.stop, "stop"), *_margins(policy.promote, "promote")]
    return [*found, Margin("ties.floor", policy.ties.floor, DIFFERENCE)]


def _margins(node: Combined | Leaf, path: str) -> Iterator[Margin]:
    if isinstance(node, Combined):
        for place, part in enumerate(node.parts):
            yield from _margins(
                part, f"{path}.{node.how}" if node.how == "not" else f"{path}.{node.how}[{place}]"
            )
        return
    for (criterion, name), of in MARGINS.items():
        if criterion == node.criterion:
            yield Margin(f"{path}.{criterion}.{name}", float(getattr(node.params, name)), of)


def spread_steps(steps: Sequence[int], at_most: int = 8) -> list[int]:
    """At most so many of the steps, evenly spread by position, the first and the last among them."""
    ordered = sorted(set(steps))
    if len(ordered) <= at_most:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(i * last / (at_most - 1))] for i in range(at_most)]
