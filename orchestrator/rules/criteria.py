"""What a criterion is: a pure function of a case, registered under its name with the model of its numbers."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from orchestrator.domain.curves import Curve, Unmatched, evaluation_at, loss_at, match, trained_evaluations
from orchestrator.domain.evidence import CriterionResult, Verdict, all_of
from orchestrator.rules.statistics import apart


class Params(BaseModel):
    """The numbers of one criterion or guard: known names alone, finite, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Grid:
    """When variants can be compared: evaluations come every `every` steps, gates at the steps `stages`."""

    every: int
    stages: tuple[int, ...]
    entered: int
    """Variants that began the race, those that have left it among them; the control is not counted."""
    sigma: float = 0.0
    """Seed noise of the eval loss at the step in question, in nats; a rule without a margin ignores it."""
    tolerance: float = 1e-6
    """Nats, the policy's: a loss within this of a limit has not passed it."""

    @property
    def horizon(self) -> int:
        """The last stage's step: the full budget of one run."""
        return self.stages[-1]


@dataclass(frozen=True)
class Standing:
    """One variant at a point, in numbers alone: what the rules of the field are computed from. Nats."""

    variant: str
    order: int
    """Place in the order in which the plan named the variants: what stands for the time of arrival."""
    loss: float
    """Raw eval loss at the step; infinite where it is not finite."""
    running_mean: float
    """Mean of its eval losses up to the step."""
    best: float
    """Its lowest eval loss up to the step."""
    seeds: int = 1
    """Over how many runs these are means."""


@dataclass(frozen=True)
class Rival:
    """A variant in the field: its sound runs at the step of the question, and its place in the plan."""

    variant: str
    runs: tuple[Curve, ...]
    order: int


@dataclass(frozen=True)
class Field:
    """Everyone still in the race when all have come to one step; the control is not among them.

    A rule that compares variants with each other is asked only where the whole field is there, so that
    the order in which reports arrive cannot change what it says.
    """

    rivals: tuple[Rival, ...]
    """In the plan's order."""
    step: int
    grid: Grid
    tokens: int | None = None
    """Where tokens per step differ: the number of tokens at which losses are compared; else None."""

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """Every rival in numbers, in the plan's order."""
        return tuple(standing_of(rival, self.step, self.tokens) for rival in self.rivals)

    @cached_property
    def by_name(self) -> dict[str, Standing]:
        """The same by variant."""
        return {standing.variant: standing for standing in self.standings}

    @cached_property
    def ranked(self) -> list[Standing]:
        """Best first, without those that diverged."""
        return ranked(self.standings)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """From 1, by variant; those that diverged are not among them."""
        return {standing.variant: place for place, standing in enumerate(self.ranked, 1)}

    @cached_property
    def asked(self) -> dict[tuple[str, Params], frozenset[str]]:
        """What the rules have dropped, by criterion and its numbers: every rival asks for the same."""
        return {}


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Best raw loss first; equal losses go by the plan's order. One that diverged is in no rank."""
    finite = [standing for standing in standings if math.isfinite(standing.loss)]
    return sorted(finite, key=lambda standing: (standing.loss, standing.order, standing.variant))


def standing_of(rival: Rival, step: int, tokens: int | None = None) -> Standing:
    """Means over the rival's seeds at `step`, or at so many tokens.

    A loss that is not finite, or not there, is infinite.
    """
    seeds = [_numbers(run, step, tokens) for run in rival.runs]
    last, means, best = (
        _finite_mean([numbers[i] for numbers in seeds]) if seeds else math.inf for i in range(3)
    )
    return Standing(rival.variant, rival.order, last, means, best, len(rival.runs))


def _numbers(run: Curve, step: int, tokens: int | None) -> tuple[float, float, float]:
    """The last, the mean and the lowest eval loss of one run."""
    if tokens is None:
        at = evaluation_at(run, step)
        last = math.inf if at is None else at.eval_loss
        losses = [
            e.eval_loss for e in run.evaluations[bisect_right(run.steps, 0) : bisect_right(run.steps, step)]
        ]
    else:
        found = loss_at(run, "tokens", tokens)
        last = math.inf if found is None else found[0]
        losses = [e.eval_loss for e in trained_evaluations(run) if e.tokens <= tokens]
    mean = math.fsum(losses) / len(losses) if losses else math.inf
    return last, mean, min(filter(math.isfinite, losses), default=math.inf)


def _finite_mean(values: Sequence[float]) -> float:
    """Infinite as soon as one of the values is not finite: a seed that diverged is no evidence of quality."""
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


@dataclass(frozen=True)
class Case:
    """One variant before the rules: its runs at `step`, each beside the control's run of the same seed."""

    pairs: tuple[tuple[Curve, Curve | None], ...]
    step: int
    sigma: float = 0.0
    """Seed noise of the eval loss in nats; 0 when it is not known, and the floors alone apply."""
    tolerance: float = 1e-6
    ratio: float = 2.0
    """The widest pair of evaluations that a missing one may be interpolated between."""
    field: Field | None = None
    """The whole field, at a point where it is there; None at an evaluation, where a run is judged alone."""

    @cached_property
    def subjects(self) -> tuple[Curve, ...]:
        return tuple(subject for subject, _ in self.pairs)

    @cached_property
    def gaps(self) -> dict[int, "PairedGap | Unmatched"]:
        """What `paired_gap` has found, by step: several criteria and the evidence ask for the same."""
        return {}

    def at_least(self, measured: float, threshold: float) -> bool:
        """`measured >= threshold` that passes at equality, whatever the floats say."""
        return measured >= threshold - self.tolerance

    def at_most(self, measured: float, threshold: float) -> bool:
        """`measured <= threshold` that passes at equality, whatever the floats say."""
        return measured <= threshold + self.tolerance


@dataclass(frozen=True)
class FieldRule:
    """The arithmetic of a criterion that compares variants with each other, for live use and the backtest."""

    drops: Callable[[Any, Sequence[Standing], int, Grid], frozenset[str]]
    """(params, everyone still in the race, step, grid) -> the variants for which the criterion passes."""
    points: Callable[[Any, Grid], tuple[int, ...]]
    """The steps at which it can say something: runs wait there until the field is complete."""


@dataclass(frozen=True)
class Criterion:
    """A registered criterion. `needs` says how many evaluations it takes before it can pass."""

    name: str
    params: type[Params]
    ask: Callable[[Any, Case], CriterionResult]
    needs: Callable[[Any], int]
    field: FieldRule | None = None
    """Set where it compares variants with each other; None where it reads one run, or the control."""


CRITERIA: dict[str, Criterion] = {}


def register(
    name: str, params: type[P], needs: Callable[[P], int], field: FieldRule | None = None
) -> Callable[[Callable[[P, Case], CriterionResult]], Callable[[P, Case], CriterionResult]]:
    """Enter a function in the registry. Two under one name is a mistake of the programmer."""

    def enter(ask: Callable[[P, Case], CriterionResult]) -> Callable[[P, Case], CriterionResult]:
        if name in CRITERIA:
            raise ValueError(f"two criteria are called {name}")
        CRITERIA[name] = Criterion(name, params, ask, needs, field)
        return ask

    return enter


def verdict_of(passes: bool) -> Verdict:
    return Verdict.PASS if passes else Verdict.FAIL


def unknown(name: str, text: str, threshold: float | None = None) -> CriterionResult:
    """What cannot be said yet."""
    return CriterionResult(name, Verdict.INCONCLUSIVE, text, threshold=threshold)


def for_each_seed(name: str, case: Case, ask: Callable[[Curve], CriterionResult]) -> CriterionResult:
    """One seed's own result, or all seeds together: it passes when every seed passes."""
    parts = tuple(ask(subject) for subject in case.subjects)
    if len(parts) == 1:
        return parts[0]
    seeds = [subject.seed for subject in case.subjects]
    said = "; ".join(f"seed {seed}: {part.text}" for seed, part in zip(seeds, parts, strict=True))
    named = tuple(
        part._replace(name=f"{part.name} (seed {seed})") for seed, part in zip(seeds, parts, strict=True)
    )
    return CriterionResult(name, all_of([part.verdict for part in parts]), said or "no run", parts=named)


class PairedGap(NamedTuple):
    """Mean losses over the pairs of a case at one step; `gap` is positive when the variant is behind."""

    step: int
    where: str
    loss: float
    control_loss: float
    gap: float
    seeds: int
    interpolated: bool
    other: str = "the control"
    """What the variant is compared with, as a sentence names it."""

    def beside(self, limit: float) -> tuple[str, str]:
        """`eval loss 4.357 is 0.078 above the control's 4.279 at step 1500`; the limit in as many digits."""
        size, told = apart(abs(self.gap), abs(limit))
        side = "above" if self.gap >= 0 else "below"
        mean = f"mean over {self.seeds} seeds: " if self.seeds > 1 else ""
        how = " (interpolated)" if self.interpolated else ""
        sentence = (
            f"{mean}eval loss {self.loss:.3f} is {size} {side} "
            f"{self.other}'s {self.control_loss:.3f}{how} at {self.where}"
        )
        return sentence, told


def paired_gap(case: Case, step: int) -> PairedGap | Unmatched:
    """The mean over seeds of (variant - control) at the same step or tokens, or why there is none."""
    if step not in case.gaps:
        case.gaps[step] = _paired_gap(case, step)
    return case.gaps[step]


def _paired_gap(case: Case, step: int) -> PairedGap | Unmatched:
    if not case.pairs:
        return Unmatched("there is no run to compare", invalid=False)
    found = []
    for subject, control in case.pairs:
        if control is None:
            return Unmatched(f"the control has no run at seed {subject.seed} to compare with", invalid=False)
        pair = match(subject, control, step, case.ratio)
        if isinstance(pair, Unmatched):
            return pair
        found.append(pair)
    where = f"step {step}" if found[0].axis == "step" else f"{found[0].tokens:,} tokens"
    return PairedGap(
        step=step,
        where=where,
        loss=_mean([pair.loss for pair in found]),
        control_loss=_mean([pair.other_loss for pair in found]),
        gap=_mean([pair.gap for pair in found]),
        seeds=len(found),
        interpolated=any(pair.interpolated for pair in found),
        other=_named(case.pairs[0][1]),
    )


def _named(control: Curve | None) -> str:
    """A reference, which is no run of ours and so has no run's id, is called by its name."""
    return f"the reference {control.variant}" if control and control.run_id <= 0 else "the control"


def unmatched(name: str, why: Unmatched, threshold: float | None = None) -> CriterionResult:
    """The result of a comparison that cannot be made: invalid, or not there yet."""
    verdict = Verdict.INVALID if why.invalid else Verdict.INCONCLUSIVE
    return CriterionResult(name, verdict, why.reason, threshold=threshold)


def noise_margin(floor: float, sigmas: float, sigma: float) -> float:
    """`max(floor, sigmas * sqrt(2) * sigma)`: the noise of a difference of two runs is sqrt(2) of one's."""
    return max(floor, sigmas * math.sqrt(2) * sigma)


def losses_at(curves: Sequence[Curve], step: int) -> list[float]:
    """The finite eval losses of several runs at one step."""
    found = [evaluation_at(curve, step) for curve in curves]
    return [e.eval_loss for e in found if e is not None and math.isfinite(e.eval_loss)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
