"""What is decided at a point: a step at which all runs wait, so that variants can be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from orchestrator.domain.curves import StageView, Unmatched, upto
from orchestrator.domain.decisions import DecisionKind, Entrant, Judgement
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.cases import (
    by_variant,
    control_noise,
    field_of,
    in_plan_order,
    left_out,
    paired_case,
)
from orchestrator.rules.criteria import CRITERIA, Case, Field, Grid
from orchestrator.rules.field import where
from orchestrator.rules.frozen import number
from orchestrator.rules.gate_words import MOST_SHOWN
from orchestrator.rules.judge import stop_result
from orchestrator.rules.nodes import evaluations_needed, leaves
from orchestrator.rules.policies import Policy


def points(policy: Policy, grid: Grid) -> tuple[int, ...]:
    """The steps at which a policy compares variants, ascending, below the horizon; none if it never does.

    A point at which the stop rule cannot pass yet, for want of evaluations, is left out.
    """
    needed = evaluations_needed(policy.stop)
    if needed is None:
        return ()
    found: set[int] = set()
    for leaf in leaves(policy.stop):
        rule = CRITERIA[leaf.criterion].field
        if rule is not None:
            found.update(rule.points(leaf.params, grid))
    return tuple(sorted(step for step in found if needed * grid.every <= step < grid.horizon))


def judge_point(
    entrants: Sequence[Entrant],
    *,
    step: int,
    stage: StageView,
    grid: Grid,
    order: Sequence[str],
    policy: Policy,
) -> dict[int, Judgement]:
    """One judgement for each run that is not out: stop what the stop rule drops, else continue.

    Call it when every run that is not out has its evaluation at `step`; raises `ValueError` if one has not.
    `order` is the plan's order of the variants. Later evaluations are not looked at, and the order of
    `entrants` does not matter. The control is in no rank and always goes on.
    """
    live = [upto(entrant.curve, step) for entrant in entrants if not entrant.out]
    curves = in_plan_order(live, order)
    controls = [curve for curve in curves if curve.is_control]
    field = field_of(curves, order=order, step=step, grid=grid, policy=policy)
    evidence, standings = _point_evidence(stage, step, field), _standings(field)
    places = {str(standing["variant"]): place for place, standing in enumerate(standings)}
    odd, noise = left_out(curves), control_noise(controls, step)
    there = None if isinstance(field, Unmatched) else field
    judged: dict[int, Judgement] = {}
    for variant, runs in by_variant(curves).items():
        case = paired_case(runs, controls, step, policy, noise, there)
        seen = evidence | _seen_by(variant, standings, places) | {"rank": _rank(field, variant)}
        judgement = _judge(case, policy, field, odd, seen)
        judged |= {run.run_id: judgement for run in runs}
    anchor = _control(evidence | _seen_by("", standings, {}))
    return judged | {control.run_id: anchor for control in controls}


def leaves_at_gate(policy: Policy, case: Case) -> CriterionResult | None:
    """The stop rule's result for a variant that leaves the race at a gate's own step; None for any other.

    `case.field` is `field_of` the gate. As everywhere at a gate, a promotion goes before a stop; but a
    promote rule that asks for nothing (`{"all": []}`) has met nothing, so the place in the field decides.
    """
    if case.field is None or next(leaves(policy.promote), None) is not None:
        return None
    stop = stop_result(policy, case)
    return stop if stop.verdict is Verdict.PASS and _by_its_place(policy, case) else None


def _by_its_place(policy: Policy, case: Case) -> bool:
    """Whether the stop rule would not pass without the field."""
    return stop_result(policy, replace(case, field=None)).verdict is not Verdict.PASS


def _judge(
    case: Case,
    policy: Policy,
    field: Field | Unmatched,
    odd: Mapping[str, str],
    evidence: JsonObject,
) -> Judgement:
    """Stop, or continue, with the sentence of the rule that settled it."""
    stop, variant = stop_result(policy, case), case.subjects[0].variant
    kind, verdict, told = DecisionKind.CONTINUE, stop.verdict, stop.text
    if stop.verdict is Verdict.PASS:
        kind = DecisionKind.STOP
        reason = "outranked" if _by_its_place(policy, case) else "plateau"
        told = f"it leaves the race at step {case.step:,}: {_said(stop)}"
    elif isinstance(field, Unmatched):
        reason, verdict = "not_compared", Verdict.INVALID if field.invalid else Verdict.INCONCLUSIVE
        told = f"nobody is compared at step {case.step:,}: {field.reason}"
    elif variant in odd:
        reason, verdict = "not_compared", Verdict.INVALID
        told = f"{variant} is not compared with the others at step {case.step:,}: {odd[variant]}"
    else:
        reason, told = "in_the_race", f"it stays in the race at step {case.step:,}: {told}"
    return Judgement(kind, reason, verdict, told, (stop,), evidence)


def _control(evidence: JsonObject) -> Judgement:
    text = "the control is the anchor: it is in no rank, and no criterion stops it"
    return Judgement(DecisionKind.CONTINUE, "control", Verdict.INCONCLUSIVE, text, (), evidence)


def _rank(field: Field | Unmatched, variant: str) -> int | None:
    return None if isinstance(field, Unmatched) else field.ranks.get(variant)


def _point_evidence(stage: StageView, step: int, field: Field | Unmatched) -> JsonObject:
    """What the point saw, but for the standings."""
    evidence: JsonObject = {"stage": stage.name, "stage_steps": stage.steps, "point": step}
    if isinstance(field, Unmatched):
        return evidence | {"comparable": not field.invalid, "reason": field.reason}
    return evidence | {
        "at": where(field),
        "entered": field.grid.entered,
        "sigma": number(field.grid.sigma),
    }


def _standings(field: Field | Unmatched) -> list[dict[str, JsonValue]]:
    """Every variant's loss and rank, best first, those that diverged at the end; none of no field."""
    if isinstance(field, Unmatched):
        return []
    placed = sorted(field.standings, key=lambda s: (field.ranks.get(s.variant, len(field.rivals)), s.variant))
    return [
        {"variant": s.variant, "loss": number(s.loss), "rank": field.ranks.get(s.variant)} for s in placed
    ]


def _seen_by(
    variant: str, standings: Sequence[dict[str, JsonValue]], places: Mapping[str, int]
) -> JsonObject:
    """The best `MOST_SHOWN` standings, the variant's own and its neighbours; the count if some are left out.

    With all of them in each decision, what is stored would grow by the square of the variants.
    """
    if not standings:
        return {}
    mine = places.get(variant)
    beside = [] if mine is None else standings[max(MOST_SHOWN, mine - 1) : mine + 2]
    shown: list[JsonValue] = [*standings[:MOST_SHOWN], *beside]
    seen: JsonObject = {"standings": shown}
    return seen if len(standings) <= MOST_SHOWN else seen | {"standings_count": len(standings)}


def _said(result: CriterionResult) -> str:
    """The sentences of a rule's parts, or its own."""
    return "; ".join(part.text for part in result.parts) or result.text
