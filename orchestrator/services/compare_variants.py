"""Each variant against the control over its seeds: paired means, the verdict band, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.curves import Axis, Match, Unmatched, comparable
from orchestrator.domain.lifecycle import Reason, RunStatus
from orchestrator.rules.bands import Band, band_of, perplexity_change, quality_drop
from orchestrator.rules.policies import Policy
from orchestrator.rules.verdict import Interval, mean_over_seeds, percent_change
from orchestrator.services import views_compare as views
from orchestrator.services.compare_cost import Cost, control_fact, fact, gains, mean, time_to_target
from orchestrator.services.compare_pairs import Pair, matched_to


@dataclass(frozen=True)
class Judged:
    """A variant's pairs that its means are over, and the step at which each of them is matched."""

    pairs: tuple[Pair, ...]
    matches: tuple[Match, ...]
    step: int | None
    invalid: str | None
    waiting: str | None
    notes: tuple[str, ...]


def compare_variants(pairs: Sequence[Pair], policy: Policy, axis: Axis) -> list[views.VariantCompare]:
    """One summary for each variant, the control first, then in the order of the runs."""
    names = dict.fromkeys(pair.run.variant for pair in sorted(pairs, key=lambda p: not p.run.is_control))
    grouped = [[pair for pair in pairs if pair.run.variant == name] for name in names]
    return [_variant(group, policy, axis) for group in grouped]


def _variant(pairs: Sequence[Pair], policy: Policy, axis: Axis) -> views.VariantCompare:
    first = pairs[0]
    judged = _judge(pairs, policy.interpolation_ratio)
    means = _means(judged, first, policy)
    cost = Cost(judged.pairs or tuple(pairs), judged.step)
    band = means.band
    return views.VariantCompare(
        variant=first.run.variant,
        is_control=first.run.is_control,
        seeds=[pair.run.seed for pair in judged.pairs],
        at=_where(judged, axis),
        eval_loss=means.eval_loss,
        control_loss=means.control_loss,
        gap=means.gap,
        quality_drop_percent=means.drop,
        perplexity_change_percent=means.perplexity,
        fewer_parameters_percent=_fewer_parameters(first),
        band=band,
        band_within=means.band_within,
        params_total=fact(first, "parameters_total"),
        params_active=fact(first, "parameters_active"),
        flops_per_token=fact(first, "flops_per_token"),
        tokens_per_second=cost.tokens_per_second(),
        peak_memory_bytes=cost.peak_memory(),
        time_to_target=None
        if first.run.is_control
        else time_to_target(judged.pairs, judged.matches, policy.interpolation_ratio),
        invalid=judged.invalid,
        waiting=judged.waiting,
        notes=[*judged.notes, *gains(band, cost)],
        points=_points(pairs, policy, axis),
    )


# --- who is compared, and where -------------------------------------------------------------------------


def _judge(pairs: Sequence[Pair], ratio: float) -> Judged:
    """The pairs that are sound, at the last step where every one of them is matched.

    One comparison that is not sound makes the variant's invalid, as at a gate. A seed that the control
    lacks, or that broke while others went on, is left out with a note.
    """
    sound = [pair for pair in pairs if not _diverged(pair)]
    unsound = next((reason for pair in sound or pairs if (reason := _unsound(pair))), None)
    if unsound is not None:
        return Judged((), (), None, unsound, None, ())
    kept, notes = _whole(pairs)
    found = [(pair, _matches(pair, ratio)) for pair in kept]
    notes += [f"seed {pair.run.seed} is left out: {_why_none(pair, ratio)}" for pair, m in found if not m]
    found = [(pair, matches) for pair, matches in found if matches]
    steps = set.intersection(*(set(matches) for _, matches in found)) if found else set()
    if not steps:
        return _nothing(pairs, ratio, notes)
    step = max(steps)
    chosen = tuple(matches[step] for _, matches in found)
    return Judged(tuple(pair for pair, _ in found), chosen, step, None, None, tuple(notes))


def _unsound(pair: Pair) -> str | None:
    """Why a pair must not be compared at all: not the same yardstick, or a run that diverged."""
    run = pair.run
    if _diverged(pair):
        return f"{run.variant} diverged at step {run.step} (seed {run.seed}): it is in no mean"
    if pair.control_curve is None or not pair.curve.evaluations or not pair.control_curve.evaluations:
        return None
    reason = comparable(pair.curve, pair.control_curve)
    return f"{run.variant} and {pair.control_curve.variant} are not compared: {reason}" if reason else None


def _diverged(pair: Pair) -> bool:
    run = pair.run
    return run.status is RunStatus.FAILED and run.reason == Reason.DIVERGED and not run.is_control


def _whole(pairs: Sequence[Pair]) -> tuple[list[Pair], list[str]]:
    """The pairs without those that broke, unless all did; and a note on each that is left out."""
    whole = [pair for pair in pairs if pair.run.status is not RunStatus.FAILED]
    if not whole:
        return list(pairs), []
    broken = [pair.run for pair in pairs if pair.run.status is RunStatus.FAILED]
    return whole, [f"seed {run.seed} is left out: it failed ({run.reason})" for run in broken]


def _matches(pair: Pair, ratio: float) -> dict[int, Match]:
    """The matched losses of a pair by step."""
    found = {e.step: matched_to(pair, e.step, ratio) for e in pair.curve.evaluations if e.step > 0}
    return {step: match for step, match in found.items() if isinstance(match, Match)}


def _why_none(pair: Pair, ratio: float) -> str:
    why = _why(pair, ratio)
    return why.reason if why else "it has no evaluation yet"


def _why(pair: Pair, ratio: float) -> Unmatched | None:
    """What stands in the way at a pair's last evaluation; None where it has none and may still get one."""
    if pair.control_curve is None:
        return Unmatched(f"the control has no run at seed {pair.run.seed}", invalid=True)
    if not pair.curve.evaluations:
        run = pair.run
        if run.status.is_terminal:
            return Unmatched(f"{run.variant} {run.status} before its first evaluation", invalid=True)
        return None
    found = matched_to(pair, pair.curve.evaluations[-1].step, ratio)
    return found if isinstance(found, Unmatched) else None


def _nothing(pairs: Sequence[Pair], ratio: float, notes: Sequence[str]) -> Judged:
    """No step where the pairs are matched: not sound, if nothing can come of any, else not yet."""
    whys = [_why(pair, ratio) for pair in pairs]
    open_ = next((why for why in whys if why is None or not why.invalid), None)
    if any(why is None for why in whys) or open_ is not None:
        waiting = open_.reason if open_ else f"{pairs[0].run.variant} has no evaluation yet"
        return Judged((), (), None, None, waiting, tuple(notes))
    reason = "; ".join(dict.fromkeys(why.reason for why in whys if why))
    return Judged((), (), None, reason, None, ())


def _where(judged: Judged, axis: Axis) -> int | None:
    if judged.step is None:
        return None
    return judged.step if axis == "step" else judged.matches[0].tokens


# --- means ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Means:
    """Over the seeds of a variant; None where nothing is compared. The control has only its loss."""

    eval_loss: float | None = None
    control_loss: float | None = None
    gap: views.IntervalView | None = None
    drop: views.IntervalView | None = None
    perplexity: views.IntervalView | None = None
    band: Band | None = None
    band_within: list[str] | None = None


def _means(judged: Judged, first: Pair, policy: Policy) -> Means:
    matches = judged.matches
    if not matches:
        return Means(band_within=[])
    loss = mean([m.loss for m in matches])
    if first.run.is_control:
        return Means(eval_loss=loss, band_within=[])
    drop = mean_over_seeds([quality_drop(m.loss, m.other_loss) for m in matches])
    band, within = _band(drop, first, policy)
    return Means(
        eval_loss=loss,
        control_loss=mean([m.other_loss for m in matches]),
        gap=_interval(mean_over_seeds([m.gap for m in matches])),
        drop=_interval(drop),
        perplexity=_interval(mean_over_seeds([perplexity_change(m.loss, m.other_loss) for m in matches])),
        band=band,
        band_within=within,
    )


def _band(drop: Interval, pair: Pair, policy: Policy) -> tuple[Band | None, list[str]]:
    """The band of the mean drop, and those of the interval's ends where they differ."""
    if not policy.bands.is_for(_fewer_parameters(pair), policy.tolerance):
        return None, []
    ends = [end for end in (drop.low, drop.high) if end is not None]
    within = [band_of(end, policy.bands, policy.tolerance) for end in ends]
    different = len(set(within)) > 1
    return band_of(drop.mean, policy.bands, policy.tolerance), [*map(str, within)] if different else []


def _fewer_parameters(pair: Pair) -> float:
    """Percent of the control's total; 0 where the control is not there."""
    change = percent_change(pair.facts.parameters_total, control_fact(pair, "parameters_total"))
    return 0.0 if change is None else -change


def _interval(interval: Interval) -> views.IntervalView:
    return views.IntervalView(mean=interval.mean, low=interval.low, high=interval.high, seeds=interval.seeds)


# --- every evaluation -----------------------------------------------------------------------------------


def _points(pairs: Sequence[Pair], policy: Policy, axis: Axis) -> list[views.VariantPoint]:
    """The variant at each step where one of its seeds was evaluated."""
    at: dict[int, list[tuple[int, float, Match | Unmatched]]] = {}
    for pair in pairs:
        for e in pair.curve.evaluations:
            found = matched_to(pair, e.step, policy.interpolation_ratio)
            at.setdefault(e.step, []).append((getattr(e, axis), e.eval_loss, found))
    control = pairs[0].run.is_control
    return [_point(step, at[step], control=control) for step in sorted(at)]


def _point(
    step: int, found: Sequence[tuple[int, float, Match | Unmatched]], *, control: bool
) -> views.VariantPoint:
    matches = [match for _, _, match in found if isinstance(match, Match)]
    missing = [match for _, _, match in found if isinstance(match, Unmatched)]
    invalid = next((why.reason for why in missing if why.invalid), None)
    waiting = next((why.reason for why in missing if not why.invalid), None)
    sound = bool(matches) and not control
    return views.VariantPoint(
        at=found[0][0],
        step=step,
        eval_loss=mean([m.loss for m in matches]) if matches else mean([loss for _, loss, _ in found]),
        control_loss=mean([m.other_loss for m in matches]) if sound else None,
        gap=_interval(mean_over_seeds([m.gap for m in matches])) if sound else None,
        invalid=None if matches or control else invalid,
        waiting=None if matches or control or invalid else waiting,
    )
