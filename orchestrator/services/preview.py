"""What a spec would do, before anything is written."""

from orchestrator.domain.spec import ExperimentSpec, Promote, spec_hash
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.policies import policy_hash, unable_to_fire
from orchestrator.services import views
from orchestrator.services.context import Context
from orchestrator.services.submit import CheckedPlan, check_plan


def preview(context: Context, document: JsonObject) -> views.PlanView:
    """The plan of a spec with its cost and its warnings. Raises `Invalid` with every field that is wrong."""
    checked = check_plan(context, document)
    spec = checked.spec
    stages = _stages(checked)
    budgets = [(stage.name, stage.steps) for stage in spec.stages]
    return views.PlanView(
        name=spec.name,
        control=spec.control,
        policy=views.PolicyName(name=checked.policy.name, hash=policy_hash(checked.policy)),
        spec_hash=spec_hash(spec),
        stages=stages,
        variants=[
            views.PlannedVariant(
                name=variant.name,
                stage=spec.stages[variant.stage].name,
                is_control=variant.is_control,
                overrides=variant.overrides,
                config_hash=variant.config_hash,
                params_total=variant.facts.parameters_total,
                params_active=variant.facts.parameters_active,
                flops_per_token=variant.facts.flops_per_token,
            )
            for variant in checked.variants
        ],
        seeds=list(spec.seeds),
        runs=len(checked.runs),
        most_steps=sum(stage.most_steps for stage in stages),
        tokens_per_step=checked.variants[0].facts.tokens_per_step,
        warnings=[
            *unable_to_fire(checked.policy, budgets, spec.eval_every),
            *_cap_warnings(spec),
            *_token_warnings(checked),
            *_family_warnings(checked),
        ],
    )


def _stages(checked: CheckedPlan) -> list[views.PlannedStage]:
    """Each stage with the most it can cost: every place of its cap taken, and the control beside them."""
    spec, planned = checked.spec, []
    variants = 0
    before = 0
    for position, stage in enumerate(spec.stages):
        new = len([v for v in checked.variants if v.stage == position])
        if position == 0:
            carried, entrants = 0, f"{new} variants from step 0, the control among them"
        else:
            promote = stage.promote or Promote()
            carried = min(promote.best, max(0, variants - 1)) + 1
            entrants = _entrants(promote, carried, new)
        variants = carried + new
        steps = carried * (stage.steps - before) + new * stage.steps
        planned.append(
            views.PlannedStage(
                name=stage.name,
                steps=stage.steps,
                evaluations=stage.steps // spec.eval_every - before // spec.eval_every,
                entrants=entrants,
                most_runs=variants * len(spec.seeds),
                most_steps=steps * len(spec.seeds),
            )
        )
        before = stage.steps
    return planned


def _entrants(promote: Promote, carried: int, new: int) -> str:
    rule = "that pass the promote criteria" if promote.eligible == "policy" else "whatever the criteria say"
    text = f"the best {carried - 1} {rule}, and the control"
    return f"{text}; {new} new variants from step 0" if new else text


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
