"""Cases from curves: one run alone, or a variant beside the control at one step."""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.curves import Curve
from orchestrator.rules.criteria import Case, losses_at
from orchestrator.rules.policies import Policy, sigma_at
from orchestrator.rules.statistics import seed_noise


def own_case(subject: Curve, step: int, policy: Policy) -> Case:
    """A case of one run with nothing to compare it with."""
    horizon = subject.identity.horizon_step if subject.identity else None
    return Case(
        pairs=((subject, None),),
        step=step,
        sigma=sigma_at(policy, step, horizon),
        tolerance=policy.tolerance,
        ratio=policy.interpolation_ratio,
    )


def paired_case(
    curves: Sequence[Curve], controls: Sequence[Curve], step: int, policy: Policy, noise: float | None = None
) -> Case:
    """A variant's case: seeds that the control has too, or all of its own where there is none of them.

    `noise` is `control_noise`, where the caller has it for many variants; else it is worked out.
    """
    by_seed = {control.seed: control for control in controls}
    paired = [curve for curve in curves if curve.seed in by_seed] or list(curves)
    alone = own_case(paired[0], step, policy)
    measured = control_noise(controls, step) if noise is None else noise
    return replace(
        alone,
        pairs=tuple((curve, by_seed.get(curve.seed)) for curve in paired),
        sigma=alone.sigma if measured is None else measured,
    )


def control_noise(controls: Sequence[Curve], step: int) -> float | None:
    """Nats, from the control's seeds at the step; None with fewer than two of them."""
    return seed_noise(losses_at(controls, step))
