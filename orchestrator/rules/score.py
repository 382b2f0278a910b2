"""What a policy costs and what it loses, over many replayed sets; and where two policies differ."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from orchestrator.rules.history import Recorded
from orchestrator.rules.resample import DrawnSet, Estimate, clustered, percentile
from orchestrator.rules.simulate import FINISHED, Outcome, Unscorable

MOST_EXAMPLES = 3
MOST_CONFIGS = 5

Result = Outcome | Unscorable


@dataclass(frozen=True)
class Score:
    """One policy over the sets. Shares are of the scorable sets; a field is None where nothing is known."""

    sets: int
    coverage: float
    """Scorable sets as a share of all: those in which it asked for nothing past a recorded end."""
    regret_known: float
    """Sets whose every final loss is known or infinite, too, as a share of all: regret is over those."""
    cost: Estimate | None
    """Steps trained by all runs, the control among them, over those of run-all."""
    slot_hours: Estimate | None
    """The same in hours of slots, where each run's seconds per step are known."""
    regret: Estimate | None
    """Nats: the pick's final loss less the best in the set; mean over the sets."""
    regret_p90: Estimate | None
    best_kept: float | None
    """How often the run with the best final loss is kept: it came to the end, or is the control that is."""
    false_stops: float | None
    """Of the runs stopped, the share whose final loss would have beaten the pick's."""
    no_winner: float | None
    """How often no variant came to the end."""
    unscorable: tuple[tuple[str, int], ...]
    """Why the others are not scored, with how often, the most frequent first."""


@dataclass(frozen=True)
class Sets:
    """What every policy is scored on."""

    recorded: Sequence[Recorded]
    drawn: Sequence[DrawnSet]
    horizon: int

    def finals(self, drawn: DrawnSet) -> dict[int, float] | None:
        """The final loss of each run of a set; None where one is not known."""
        found = {run: self.recorded[run].final(self.horizon) for run in drawn.members}
        known = {run: final for run, final in found.items() if final is not None}
        return known if len(known) == len(found) else None

    def configs(self, drawn: DrawnSet) -> frozenset[str]:
        return frozenset(self.recorded[run].config for run in drawn.members)


Scored = list[tuple[DrawnSet, Outcome]]


def score(sets: Sets, results: Sequence[Result]) -> Score:
    """The figures of one policy; `results` stand in the order of the sets."""
    pairs = zip(sets.drawn, results, strict=True)
    scored = [(drawn, result) for drawn, result in pairs if isinstance(result, Outcome)]
    reasons = Counter(result.reason for result in results if isinstance(result, Unscorable))
    known = [(drawn, outcome) for drawn, outcome in scored if sets.finals(drawn) is not None]
    regrets = [regret(sets, drawn, outcome) for drawn, outcome in known]
    return Score(
        sets=len(results),
        coverage=len(scored) / len(results),
        regret_known=len(known) / len(results),
        cost=_estimate(sets, scored, [_steps_share(sets, *pair) for pair in scored], fmean),
        slot_hours=_slot_hours(sets, scored),
        regret=_positive(_estimate(sets, known, regrets, fmean)),
        regret_p90=_positive(_estimate(sets, known, regrets, lambda values: percentile(values, 0.9))),
        best_kept=fmean(_keeps_best(sets, *pair) for pair in known) if known else None,
        false_stops=_false_stops(sets, known),
        no_winner=fmean(not outcome.has_winner for _, outcome in scored) if scored else None,
        unscorable=tuple(reasons.most_common()),
    )


def regret(sets: Sets, drawn: DrawnSet, outcome: Outcome) -> float:
    """Nats that the pick's final loss is above the set's best. Raises `ValueError` if one is not known."""
    finals = sets.finals(drawn)
    if finals is None:
        raise ValueError("a final loss of the set is not known")
    return finals[outcome.pick] - min(finals.values())


def _estimate(
    sets: Sets, scored: Scored, values: Sequence[float], statistic: Callable[[Sequence[float]], float]
) -> Estimate | None:
    holds = [sets.configs(drawn) for drawn, _ in scored]
    return clustered(values, holds, statistic) if values else None


def _positive(found: Estimate | None) -> Estimate | None:
    """No regret is below 0, so no interval of it is."""
    return found and replace(found, low=None if found.low is None else max(found.low, 0.0))


def regret_gap(sets: Sets, results: Sequence[Result], others: Sequence[Result]) -> Estimate | None:
    """Nats of regret that the first policy has above the other on the same sets; None without such a set.

    Paired by set: what makes a set hard is the same for both, so this tells more than two intervals do.
    """
    both = []
    for drawn, one, other in zip(sets.drawn, results, others, strict=True):
        if isinstance(one, Unscorable) or isinstance(other, Unscorable):
            continue
        if sets.finals(drawn) is not None:
            both.append((drawn, regret(sets, drawn, one) - regret(sets, drawn, other)))
    holds = [sets.configs(drawn) for drawn, _ in both]
    return clustered([gap for _, gap in both], holds, fmean) if both else None


def _steps_share(sets: Sets, drawn: DrawnSet, outcome: Outcome) -> float:
    return outcome.steps / (sets.horizon * len(drawn.members))


def _slot_hours(sets: Sets, scored: Scored) -> Estimate | None:
    shares = []
    for drawn, outcome in scored:
        rates = {run: sets.recorded[run].seconds_per_step for run in drawn.members}
        if any(rate is None for rate in rates.values()):
            return None
        paid = math.fsum((rates[run] or 0.0) * left.step for run, left in outcome.exits.items())
        shares.append(paid / math.fsum((rate or 0.0) * sets.horizon for rate in rates.values()))
    return _estimate(sets, scored, shares, fmean)


def _keeps_best(sets: Sets, drawn: DrawnSet, outcome: Outcome) -> bool:
    return regret(sets, drawn, outcome) <= 0


def _false_stops(sets: Sets, known: Scored) -> float | None:
    """The control is never stopped by a rule, so it is not among them."""
    stopped = false = 0
    for drawn, outcome in known:
        finals = sets.finals(drawn) or {}
        gone = [r for r, left in outcome.exits.items() if left.reason != FINISHED and r != drawn.control]
        stopped += len(gone)
        false += sum(finals[run] < finals[outcome.pick] for run in gone)
    return false / stopped if stopped else None


@dataclass(frozen=True)
class Example:
    """One run of one set that two policies treat differently."""

    number: int
    """Of the set, from 0."""
    config: str
    run: str
    step: int
    reason: str
    other_step: int
    other_reason: str
    final: float | None


@dataclass(frozen=True)
class Earlier:
    """Where one policy stops what another keeps at the same step."""

    runs: int
    """Over all sets that both policies can be scored on."""
    of: int
    """Variants in those sets."""
    at: tuple[tuple[int, int], ...]
    """(step, how often), ascending."""
    configs: tuple[tuple[str, int], ...]
    """The most frequent ones."""
    examples: tuple[Example, ...]


def stops_earlier(sets: Sets, results: Sequence[Result], others: Sequence[Result]) -> Earlier:
    """Every variant that leaves earlier under the first policy than under the other."""
    found: list[Example] = []
    variants = 0
    for number, (drawn, one, other) in enumerate(zip(sets.drawn, results, others, strict=True)):
        if isinstance(one, Unscorable) or isinstance(other, Unscorable):
            continue
        variants += len(drawn.members) - 1
        for run in drawn.members:
            mine, theirs = one.exits[run], other.exits[run]
            if run != drawn.control and mine.step < theirs.step:
                told = sets.recorded[run]
                found.append(
                    Example(
                        number=number,
                        config=told.config,
                        run=told.run,
                        step=mine.step,
                        reason=mine.reason,
                        other_step=theirs.step,
                        other_reason=theirs.reason,
                        final=told.final(sets.horizon),
                    )
                )
    return Earlier(
        runs=len(found),
        of=variants,
        at=tuple(sorted(Counter(example.step for example in found).items())),
        configs=tuple(Counter(example.config for example in found).most_common(MOST_CONFIGS)),
        examples=tuple(found[:MOST_EXAMPLES]),
    )
