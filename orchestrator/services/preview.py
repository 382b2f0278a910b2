"""What a spec would do, before anything is written."""

from collections.abc import Sequence

from sqlalchemy import Connection

from orchestrator.domain.expand import Variant, Waiting
from orchestrator.domain.spec import spec_hash
from orchestrator.domain.spec_models import ExperimentSpec, Promote
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.policies import policy_hash, unable_to_fire
from orchestrator.services import views
from orchestrator.services.context import Context
from orchestrator.services.submit import CheckedPlan, check_plan
from orchestrator.store.links import seconds_per_step


def preview(context: Context, document: JsonObject) -> views.PlanView:
    """The plan of a spec with its cost and its warnings. Raises `Invalid` with every field that is wrong."""
    checked = check_plan(context, document)
    spec = checked.spec
    stages = _stages(checked)
    budgets = [(stage.name, stage.steps) for stage in spec.stages]
    with context.database.read() as connection:
        hours = _slot_hours(connection, checked, stages)
    return views.PlanView(
        name=spec.name,
        control=spec.control,
        policy=views.PolicyName(name=checked.policy.name, hash=policy_hash(checked.policy)),
        spec_hash=spec_hash(spec),
        stages=stages,
        variants=[_variant(variant, spec) for variant in checked.variants],
        waiting=[_waiting(waiter, spec) for waiter in checked.expansion.waiting],
        left_out=checked.expansion.left_out,
        seeds=list(spec.seeds),
        runs=len(checked.runs),
        most_runs=sum(stage.new_runs for stage in stages),
        most_steps=sum(stage.most_steps for stage in stages),
        tokens_per_step=checked.variants[0].facts.tokens_per_step,
        slot_hours=hours,
        warnings=[
            *unable_to_fire(checked.policy, budgets, spec.eval_every, checked.protocol.points),
            *_cap_warnings(spec),
            *_token_warnings(checked),
            *_family_warnings(checked),
            *_budget_warnings(spec, hours),
        ],
    )


def _variant(variant: Variant, spec: ExperimentSpec) -> views.PlannedVariant:
    return views.PlannedVariant(
        name=variant.name,
        stage=spec.stages[variant.stage].name,
        is_control=variant.is_control,
        overrides=variant.overrides,
        config_hash=variant.config_hash,
        params_total=variant.facts.parameters_total,
        params_active=variant.facts.parameters_active,
        flops_per_token=variant.facts.flops_per_token,
    )


def _waiting(waiter: Waiting, spec: ExperimentSpec) -> views.WaitingVariant:
    return views.WaitingVariant(
        name=waiter.name,
        stage=spec.stages[waiter.stage].name,
        kind=waiter.kind,
        sources=list(waiter.sources),
        overrides=waiter.overrides,
        status="waiting",
        detail=None,
    )


def _stages(checked: CheckedPlan) -> list[views.PlannedStage]:
    """Each stage with the most it can cost: every place of its cap taken, and the control beside them."""
    spec, planned = checked.spec, []
    variants, before = 0, 0
    for position, stage in enumerate(spec.stages):
        kept = {variant.name for variant in checked.variants if variant.stage == position}
        new = len([name for name in stage.names if name in kept or name not in stage.static])
        promote = stage.promote or Promote()
        carried = min(promote.best, max(0, variants - 1)) + 1 if position else 0
        seeds = set(spec.seeds_of(position))
        old = len(seeds & set(spec.seeds_of(position - 1))) if position else 0
        fresh = (carried + new) * len(seeds) - carried * old
        planned.append(
            views.PlannedStage(
                name=stage.name,
                steps=stage.steps,
                evaluations=stage.steps // spec.eval_every - before // spec.eval_every,
                entrants=_entrants(promote, carried, new, position),
                seeds=spec.seeds_of(position),
                points=[point for point in checked.protocol.points if before < point < stage.steps],
                most_runs=(carried + new) * len(seeds),
                new_runs=fresh,
                most_steps=carried * old * (stage.steps - before) + fresh * stage.steps,
            )
        )
        variants, before = carried + new, stage.steps
    return planned


def _entrants(promote: Promote, carried: int, new: int, position: int) -> str:
    if not position:
        return f"{new} variants from step 0, the control among them"
    rule = "that pass the promote criteria" if promote.eligible == "policy" else "whatever the criteria say"
    early = ", each as soon as its place is certain" if promote.eager else ""
    text = f"the best {carried - 1} {rule}{early}, and the control"
    return f"{text}; {new} new variants from step 0" if new else text


def _slot_hours(
    connection: Connection, checked: CheckedPlan, stages: Sequence[views.PlannedStage]
) -> float | None:
    """At most, as long as steps take as long as they took for the control's config before; None if never."""
    (control,) = [variant for variant in checked.variants if variant.is_control]
    seconds = seconds_per_step(connection, control.config_hash, control.facts.tokens_per_step)
    if seconds is None:
        return None
    cost = [variant.facts.flops_per_token * variant.facts.tokens_per_step for variant in checked.variants]
    own = control.facts.flops_per_token * control.facts.tokens_per_step
    mean = sum(cost) / len(cost) / own if own else 1.0
    steps = sum(stage.most_steps for stage in stages)
    return steps * seconds * mean * checked.spec.resources.slots / 3600


def _budget_warnings(spec: ExperimentSpec, hours: float | None) -> list[str]:
    if spec.budget is None or hours is None or hours <= spec.budget.slot_hours:
        return []
    return [
        f"the plan can take {hours:.1f} slot-hours and the budget is {spec.budget.slot_hours:g}: "
        f"what it cannot pay for is not started"
    ]


def _cap_warnings(spec: ExperimentSpec) -> list[str]:
    return [
        f"stage {stage.name} says no `promote`: the best 1 that passes the promote criteria enters it"
        for stage in spec.stages[1:]
        if stage.promote is None
    ]


def _token_warnings(checked: CheckedPlan) -> list[str]:
    """At its gates a variant that sees more tokens a step is past the last loss of the control."""
    (control,) = [variant.facts for variant in checked.variants if variant.is_control]
    return [
        f"{variant.name} trains {variant.facts.tokens_per_step:,} tokens a step and the control "
        f"{control.tokens_per_step:,}: at its gates the control has not seen as many, so none compares them"
        for variant in checked.variants
        if variant.facts.tokens_per_step > control.tokens_per_step
    ]


def _family_warnings(checked: CheckedPlan) -> list[str]:
    (control,) = [variant.facts for variant in checked.variants if variant.is_control]
    return [
        f"{variant.name} has a {variant.facts.schedule_family} schedule and the control a "
        f"{control.schedule_family} one: losses under different schedules are never compared"
        for variant in checked.variants
        if variant.facts.schedule_family != control.schedule_family
    ]
