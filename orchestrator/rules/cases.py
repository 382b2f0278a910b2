"""Cases from curves: one run alone, a variant beside the control at one step, the field of all variants."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.domain.curves import Curve, Unmatched, comparable, evaluation_at, loss_at
from orchestrator.rules.criteria import Case, Field, Grid, Rival, losses_at
from orchestrator.rules.policies import Policy, sigma_at
from orchestrator.rules.statistics import seed_noise


def own_case(subject: Curve, step: int, policy: Policy) -> Case:
    """A case of one run with nothing to compare it with."""
    return _case(((subject, None),), step, policy, noise=None, field=None)


def paired_case(
    curves: Sequence[Curve],
    controls: Sequence[Curve],
    step: int,
    policy: Policy,
    noise: float | None = None,
    field: Field | None = None,
) -> Case:
    """A variant's case: seeds that the control has too, or all of its own where there is none of them.

    `noise` is `control_noise`, where the caller has it for many variants; else it is worked out. With `field`
    the variant can be compared with the others too.
    """
    by_seed = {control.seed: control for control in controls}
    paired = [curve for curve in curves if curve.seed in by_seed] or list(curves)
    measured = control_noise(controls, step) if noise is None else noise
    pairs = tuple((curve, by_seed.get(curve.seed)) for curve in paired)
    return _case(pairs, step, policy, noise=measured, field=field)


def _case(
    pairs: tuple[tuple[Curve, Curve | None], ...],
    step: int,
    policy: Policy,
    *,
    noise: float | None,
    field: Field | None,
) -> Case:
    identity = pairs[0][0].identity
    horizon = identity.horizon_step if identity else None
    sigma = sigma_at(policy, step, horizon) if noise is None else noise
    return Case(pairs, step, sigma, policy.tolerance, policy.interpolation_ratio, field)


def control_noise(controls: Sequence[Curve], step: int) -> float | None:
    """Nats, from the control's seeds at the step; None with fewer than two of them."""
    return seed_noise(losses_at(controls, step))


def in_plan_order(curves: Sequence[Curve], order: Sequence[str]) -> list[Curve]:
    """The control first, then the variants as the plan names them, others by name; seeds ascend."""
    places = {variant: place for place, variant in enumerate(order)}
    last = len(places)
    return sorted(
        curves, key=lambda c: (not c.is_control, places.get(c.variant, last), c.variant, c.seed, c.run_id)
    )


def by_variant(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The runs of each variant that is not the control, in the order of the curves."""
    found: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        if not curve.is_control:
            found[curve.variant].append(curve)
    return dict(found)


def left_out(ordered: Sequence[Curve]) -> dict[str, str]:
    """Why a variant is in no field, for each that is not comparable with the first curve: the control."""
    reasons = [(curve.variant, comparable(curve, ordered[0])) for curve in ordered]
    return {variant: reason for variant, reason in reasons if reason is not None}


def field_of(
    curves: Sequence[Curve], *, order: Sequence[str], step: int, grid: Grid, policy: Policy
) -> Field | Unmatched:
    """Everyone at `step` but the control, in the plan's order; why not, where losses cannot be compared.

    A variant that is not comparable with the control (without one: with the plan's first) is not in it.
    Where tokens per step differ, losses are compared at the fewest tokens that a run has seen at the step.
    Raises `ValueError` when a run has no evaluation at the step: the field is not complete.
    """
    missing = next((curve for curve in curves if evaluation_at(curve, step) is None), None)
    if missing is not None:
        raise ValueError(f"run {missing.run_id} ({missing.variant}) has no evaluation at step {step}")
    ordered = in_plan_order(curves, order)
    odd = left_out(ordered)
    sound = [(name, tuple(runs)) for name, runs in by_variant(ordered).items() if name not in odd]
    rivals = tuple(Rival(name, runs, place) for place, (name, runs) in enumerate(sound))
    measured = control_noise([curve for curve in ordered if curve.is_control], step)
    sigma = sigma_at(policy, step, grid.horizon) if measured is None else measured
    return _at_matched_tokens(Field(rivals, step, replace(grid, sigma=sigma, tolerance=policy.tolerance)))


def _at_matched_tokens(field: Field) -> Field | Unmatched:
    """The field as it is where all train on the same tokens per step, else at the fewest tokens seen."""
    runs = [run for rival in field.rivals for run in rival.runs]
    if len({run.identity.tokens_per_step for run in runs if run.identity}) < 2:
        return field
    tokens = min(e.tokens for run in runs if (e := evaluation_at(run, field.step)))
    for run in runs:
        if losses_at([run], field.step) and loss_at(run, "tokens", tokens) is None:
            reason = f"{run.variant} has no evaluation at {tokens:,} tokens or close around it"
            return Unmatched(reason, invalid=False)
    return replace(field, tokens=tokens)
