"""The sentence that an experiment ends with."""

from collections.abc import Mapping, Sequence

from orchestrator.domain.curves import Curve, Unmatched
from orchestrator.rules.cases import control_noise
from orchestrator.rules.criteria import Case, PairedGap, losses_at, noise_margin, paired_gap
from orchestrator.rules.policies import Policy, sigma_at


def conclude(finished: Sequence[Curve], step: int, policy: Policy) -> str:
    """Who was best at the last step, and whether it beat the control by more than noise.

    Losses in nats per token. Each variant is compared as at a gate: with the control's same seeds, at the
    same steps or tokens, and only where that is sound. The control never wins silently.
    """
    measured = [curve for curve in finished if losses_at([curve], step)]
    controls = {curve.seed: curve for curve in measured if curve.is_control}
    others = _by_variant(measured)
    if not others:
        return "no variant finished the last stage"
    if not controls:
        return (
            f"{', '.join(sorted(others))} finished, and the control did not: there is nothing to compare with"
        )
    measured_noise = control_noise(list(controls.values()), step)
    noise = sigma_at(policy, step, step) if measured_noise is None else measured_noise
    gaps = {name: _gap(curves, controls, step, noise, policy) for name, curves in others.items()}
    compared = {name: gap for name, gap in gaps.items() if isinstance(gap, PairedGap)}
    reasons = [gap.reason for gap in gaps.values() if isinstance(gap, Unmatched)]
    if not compared:
        return f"no variant can be compared with the control: {'; '.join(reasons)}"
    level = noise_margin(policy.ties.floor, policy.ties.sigmas, noise) + policy.tolerance
    return "; ".join([_sentence(compared, level), *reasons])


def _by_variant(finished: Sequence[Curve]) -> dict[str, list[Curve]]:
    found: dict[str, list[Curve]] = {}
    for curve in finished:
        if not curve.is_control:
            found.setdefault(curve.variant, []).append(curve)
    return found


def _gap(
    curves: Sequence[Curve], controls: Mapping[int, Curve], step: int, noise: float, policy: Policy
) -> PairedGap | Unmatched:
    pairs = tuple((curve, controls[curve.seed]) for curve in curves if curve.seed in controls)
    if not pairs:
        name = curves[0].variant
        return Unmatched(f"{name} and the control finished no seed in common", invalid=False)
    case = Case(pairs, step, noise, policy.tolerance, policy.interpolation_ratio)
    return paired_gap(case, step)


def _sentence(compared: Mapping[str, PairedGap], level: float) -> str:
    best = min(compared, key=lambda name: (compared[name].gap, name))
    gap = compared[best]
    if gap.gap < -level:
        verdict = "is the winner"
    elif gap.gap <= level:
        verdict = "is the best variant, level with the control"
    else:
        verdict = "is the best variant, and the control stays ahead"
    return f"{best} {verdict}: {gap.beside(level)[0]}"
