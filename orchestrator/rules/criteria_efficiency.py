"""The criterion of a meaningfully better routing balance or efficiency, at the same eval loss."""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from orchestrator.domain.curves import Curve, Unmatched, latest_finite, match
from orchestrator.domain.evidence import CriterionResult, Verdict, combine
from orchestrator.protocol.report import Evaluation
from orchestrator.rules.criteria import Case, Params, register, unknown, unmatched, verdict_of
from orchestrator.rules.routing import imbalance, is_moe, measured

Devices = Literal["accelerator", "any", "none"]


class MeaningfullyBetter(Params):
    """Better by enough in one measure, and worse by little in all others."""

    imbalance_share: float = Field(default=0.20, ge=0)
    """Lower by this share of the control's imbalance, ..."""
    imbalance_absolute: float = Field(default=0.05, ge=0)
    """... and by this much."""
    throughput_share: float = Field(default=0.10, ge=0)
    flops_share: float = Field(default=0.10, ge=0)
    worse_share: float = Field(default=0.05, ge=0)
    """What imbalance, FLOPs, tokens/s and peak memory may each lose."""
    imbalance_floor: float = Field(default=0.05, ge=0)
    """A rise of the imbalance up to this much is never worse: 5% of a small imbalance is noise."""
    hardware_devices: Devices = "accelerator"
    """Where tokens/s and peak memory are compared. CPU slots share cores and memory, so both depend there on
    the neighbours and on restarts: a decision that read them could not be made again."""


Measured = tuple[float, float]  # the variant's and the control's, means over the paired seeds


@register("meaningfully_better", MeaningfullyBetter, needs=lambda _: 1)
def meaningfully_better(params: MeaningfullyBetter, case: Case) -> CriterionResult:
    """Passes when one measure is better by enough and no measure is worse by too much (protocol 4b)."""
    name = "meaningfully_better"
    pairs = []
    for subject, control in case.pairs:
        if control is None:
            return unknown(name, f"the control has no run at seed {subject.seed} to compare with")
        found = match(subject, control, case.step, case.ratio)
        if isinstance(found, Unmatched):
            return unmatched(name, found)
        pairs.append((subject, control))
    if not pairs:
        return unknown(name, "there is no run to compare")
    measures = (
        _balance(params, case, pairs),
        _throughput(params, case, pairs),
        _flops(params, case, pairs),
        _memory(params, case, pairs),
    )
    better = combine("one_is_better", "any", [better for better, _ in measures if better is not None])
    none_worse = combine("none_is_worse", "all", [worse for _, worse in measures])
    if none_worse.verdict is Verdict.PASS:
        none_worse = none_worse._replace(text=f"nothing is worse by more than {params.worse_share:.0%}")
    return combine(name, "all", [better, none_worse])


Pairs = list[tuple[Curve, Curve]]
Both = tuple[CriterionResult | None, CriterionResult]  # (better by enough, not worse by too much)


def _balance(params: MeaningfullyBetter, case: Case, pairs: Pairs) -> Both:
    if not all(is_moe(subject) and is_moe(control) for subject, control in pairs):
        return _not_compared("imbalance", "imbalance is not compared: not both route to experts")
    both = _means(pairs, case, lambda e: imbalance(r) if (r := measured(e)) is not None else None)
    if both is None:
        return _not_known("imbalance", "imbalance is not known: an evaluation came without routing metrics")
    mine, control = both
    lower = control - mine
    enough = max(params.imbalance_share * control, params.imbalance_absolute)
    allowed = max(params.worse_share * control, params.imbalance_floor)
    text = f"imbalance {mine:.3f} against the control's {control:.3f}"
    return (
        CriterionResult(
            "imbalance",
            verdict_of(case.at_least(lower, enough)),
            f"{text}; better is {enough:.3f} lower",
            lower,
            enough,
        ),
        CriterionResult(
            "imbalance",
            verdict_of(case.at_most(-lower, allowed)),
            f"{text}; at most {allowed:.3f} higher is no loss",
            -lower,
            allowed,
        ),
    )


def _throughput(params: MeaningfullyBetter, case: Case, pairs: Pairs) -> Both:
    reason = next((r for pair in pairs if (r := _other_hardware(params, *pair)) is not None), None)
    if reason is not None:
        return _not_compared("tokens_per_second", f"tokens/s is not compared: {reason}")
    both = _means(pairs, case, lambda e: e.tokens_per_second)
    return _share(params, case, "tokens_per_second", "tokens/s", both, params.throughput_share, more=True)


def _flops(params: MeaningfullyBetter, case: Case, pairs: Pairs) -> Both:
    found = [
        (subject.identity.flops_per_token, control.identity.flops_per_token)
        for subject, control in pairs
        if subject.identity is not None and control.identity is not None
    ]
    both = (_mean([s for s, _ in found]), _mean([c for _, c in found])) if found else None
    return _share(params, case, "flops_per_token", "FLOPs per token", both, params.flops_share, more=False)


def _memory(params: MeaningfullyBetter, case: Case, pairs: Pairs) -> Both:
    reason = next((r for pair in pairs if (r := _other_hardware(params, *pair)) is not None), None)
    both = _means(pairs, case, lambda e: e.peak_memory_bytes)
    if both is None or reason is not None:
        text = f"peak memory is not compared: {reason or 'it is not known on both sides'}"
        return None, _not_compared("peak_memory", text)[1]
    return None, _share(params, case, "peak_memory", "peak memory", both, params.worse_share, more=False)[1]


def _share(
    params: MeaningfullyBetter,
    case: Case,
    name: str,
    label: str,
    both: Measured | None,
    enough: float,
    *,
    more: bool,
) -> Both:
    """A measure judged by its change as a share of the control's; `more` says that more of it is better."""
    if both is None or both[1] <= 0 or not all(map(math.isfinite, both)):
        return _not_known(name, f"{label} is not known on both sides")
    change = both[0] / both[1] - 1
    gain = change if more else -change
    text = f"{label} {change:+.1%} against the control"
    sign = "+" if more else "-"
    return (
        CriterionResult(
            name,
            verdict_of(case.at_least(gain, enough)),
            f"{text}; better is {sign}{enough:.0%}",
            gain,
            enough,
        ),
        CriterionResult(
            name,
            verdict_of(case.at_most(-gain, params.worse_share)),
            f"{text}; a loss of up to {params.worse_share:.0%} is allowed",
            -gain,
            params.worse_share,
        ),
    )


def _other_hardware(params: MeaningfullyBetter, subject: Curve, control: Curve) -> str | None:
    """Why tokens/s and memory say nothing about these two, or None when the hardware is the same."""
    left, right = subject.identity, control.identity
    if params.hardware_devices == "none":
        return "the policy leaves it out"
    if left is None or right is None or (left.device, left.threads) != (right.device, right.threads):
        return "the hardware differs"
    if params.hardware_devices == "accelerator" and not left.device.startswith("cuda"):
        return "on a CPU it depends on the neighbours"
    return None


def _means(pairs: Pairs, case: Case, read: Callable[[Evaluation], float | None]) -> Measured | None:
    """Means over the pairs of one number of the evaluations at the case's budget; None if one lacks it."""
    found: list[Measured] = []
    for subject, control in pairs:
        mine, theirs = latest_finite(subject, case.step), _at_budget(subject, control, case)
        values = (read(mine) if mine else None, read(theirs) if theirs else None)
        if values[0] is None or values[1] is None:
            return None
        found.append((values[0], values[1]))
    return _mean([mine for mine, _ in found]), _mean([theirs for _, theirs in found])


def _at_budget(subject: Curve, control: Curve, case: Case) -> Evaluation | None:
    """The control's last evaluation within the subject's budget of tokens (or steps, which then agree)."""
    mine = latest_finite(subject, case.step)
    if mine is None or subject.identity is None or control.identity is None:
        return None
    if subject.identity.tokens_per_step == control.identity.tokens_per_step:
        return latest_finite(control, case.step)
    within = [e for e in control.evaluations if e.tokens <= mine.tokens]
    return within[-1] if within else None


def _not_compared(name: str, text: str) -> Both:
    """A measure that says nothing: no gain, and no loss."""
    return CriterionResult(name, Verdict.FAIL, text), CriterionResult(name, Verdict.PASS, text)


def _not_known(name: str, text: str) -> Both:
    return unknown(name, text), unknown(name, text)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
