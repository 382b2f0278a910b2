"""What a variant costs beside the control: size, speed, memory, and the time to the control's loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.domain.curves import Curve, Match
from orchestrator.rules.bands import Band
from orchestrator.rules.verdict import percent_change, time_to_loss
from orchestrator.services import views_compare as views
from orchestrator.services.compare_pairs import Pair


@dataclass(frozen=True)
class Cost:
    """Speed and memory over the pairs of a variant up to the step that is compared at."""

    pairs: tuple[Pair, ...]
    step: int | None

    def tokens_per_second(self) -> views.MeasureView:
        """The median of each run's evaluations, since the first may hold a warm-up."""
        return self._measure(lambda curve: _median_speed(curve, self.step))

    def peak_memory(self) -> views.MeasureView:
        return self._measure(lambda curve: _peak_memory(curve, self.step))

    def _measure(self, read: Callable[[Curve], float | None]) -> views.MeasureView:
        mine = mean_of([read(pair.curve) for pair in self.pairs])
        if self.pairs[0].run.is_control:
            return views.MeasureView(value=mine, control=None, percent=None)
        theirs = mean_of([read(pair.control_curve) if pair.control_curve else None for pair in self.pairs])
        same = all(pair.same_hardware for pair in self.pairs)
        percent = percent_change(mine, theirs) if same else None
        return views.MeasureView(value=mine, control=theirs, percent=percent)


def _median_speed(curve: Curve, step: int | None) -> float | None:
    speeds = [
        e.tokens_per_second for e in curve.evaluations if e.step > 0 and (step is None or e.step <= step)
    ]
    return median(speeds) if speeds else None


def _peak_memory(curve: Curve, step: int | None) -> float | None:
    kept = [e.peak_memory_bytes for e in curve.evaluations if step is None or e.step <= step]
    return max((float(memory) for memory in kept if memory is not None), default=None)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def fact(pair: Pair, name: str) -> views.MeasureView:
    value = float(getattr(pair.facts, name))
    control = None if pair.run.is_control else control_fact(pair, name)
    return views.MeasureView(value=value, control=control, percent=percent_change(value, control))


def control_fact(pair: Pair, name: str) -> float | None:
    return None if pair.control_facts is None else float(getattr(pair.control_facts, name))


def time_to_target(
    pairs: Sequence[Pair], matches: Sequence[Match], ratio: float
) -> views.TimeToTarget | None:
    """Means over the seeds of each run's time to the loss that its control has where they are matched."""
    if not matches:
        return None
    both = list(zip(pairs, matches, strict=True))
    mine = [time_to_loss(pair.curve, m.other_loss, ratio) for pair, m in both]
    theirs = [time_to_loss(pair.control_curve, m.other_loss, ratio) for pair, m in both if pair.control_curve]
    seconds = mean_of([None if found is None else found.seconds for found in mine])
    control = mean_of([None if found is None else found.seconds for found in theirs])
    same = all(pair.same_hardware for pair in pairs)
    return views.TimeToTarget(
        target_loss=mean([m.other_loss for m in matches]),
        seconds=seconds,
        control_seconds=control,
        percent=percent_change(seconds, control) if same else None,
        at_most=any(found is not None and found.how == "at_most" for found in (*mine, *theirs)),
    )


def gains(band: Band | None, cost: Cost) -> list[str]:
    """What may outweigh a weak band, which is for a person to say: the protocol leaves `major` open."""
    if band is not Band.WEAK:
        return []
    said = []
    speed, memory = cost.tokens_per_second().percent, cost.peak_memory().percent
    if speed is not None and speed > 0:
        said.append(f"tokens/s {speed:+.0f}%")
    if memory is not None and memory < 0:
        said.append(f"peak memory {memory:+.0f}%")
    return [f"weak, with {' and '.join(said)}: whether that outweighs it is for you to say"] if said else []
