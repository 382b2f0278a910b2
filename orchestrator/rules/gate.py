"""What is decided when a stage closes: who goes on, by the promote criteria, the ranking and the cap."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from orchestrator.domain.curves import Curve, StageView, comparable, latest_finite, upto
from orchestrator.domain.decisions import DecisionKind, Entrant, GateOutcome, Judgement, PromoteRule
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.rules.cases import control_noise, own_case, paired_case
from orchestrator.rules.criteria import Case, noise_margin
from orchestrator.rules.criteria_health import healthy_routing, not_diverged
from orchestrator.rules.frozen import comparison_evidence, curve_evidence, number
from orchestrator.rules.judge import stop_result
from orchestrator.rules.nodes import ask
from orchestrator.rules.policies import Policy
from orchestrator.rules.ranking import Contender, rank


@dataclass(frozen=True)
class Candidate:
    """A variant at its gate: its sound runs beside the control's, and what the rules say of it."""

    variant: str
    runs: tuple[Curve, ...]
    """All its sound runs: those without a control's run at their seed are not in the case, yet go with it."""
    case: Case
    promote: CriterionResult
    stop: CriterionResult
    contender: Contender
    invalid: bool
    """It and the control are not comparable: it is in no rank."""

    @property
    def verdict(self) -> Verdict:
        """The promote rule's verdict; invalid where a comparison that is not sound left it open."""
        open_verdict = self.promote.verdict is Verdict.INCONCLUSIVE
        return Verdict.INVALID if open_verdict and self.invalid else self.promote.verdict


@dataclass(frozen=True)
class Selection:
    """Who was ranked, who goes on, and by which rule."""

    ranked: tuple[str, ...]
    winners: tuple[str, ...]
    probation: bool
    rule: PromoteRule


def close_stage(
    runs: Sequence[Entrant], *, stage: StageView, promote: PromoteRule, policy: Policy
) -> GateOutcome:
    """One judgement for each run that is not out, by precedence: diverged, unhealthy, promote, stop, hold.

    Call it when every run that is not out has its evaluation at the stage's step. Later evaluations are
    not looked at, and the order of `runs` does not matter.
    """
    curves = sorted(
        (upto(entrant.curve, stage.steps) for entrant in runs if not entrant.out),
        key=lambda curve: (curve.variant, curve.seed, curve.run_id),
    )
    judgements: dict[int, Judgement] = {}
    for curve in curves:
        judgement = _guard(curve, stage, policy)
        if judgement is not None:
            judgements[curve.run_id] = judgement
    sound = [curve for curve in curves if curve.run_id not in judgements]
    controls = [curve for curve in sound if curve.is_control]
    candidates = _candidates(sound, controls, stage, policy)
    selection = _select(candidates, promote, policy)
    for candidate in candidates.values():
        judged = _judge_candidate(candidate, selection, stage)
        judgements |= {curve.run_id: judged for curve in candidate.runs}
    judgements |= {curve.run_id: _judge_control(curve, selection, stage) for curve in controls}
    return GateOutcome(judgements, selection.winners, _conclusion(selection, stage))


def _guard(curve: Curve, stage: StageView, policy: Policy) -> Judgement | None:
    """The judgement on a run that is not fit to be ranked, whatever its loss."""
    case = own_case(curve, stage.steps, policy)
    guard = not_diverged(policy.diverged, case)
    health = healthy_routing(policy.unhealthy_routing, case)
    evidence = _stage_evidence(stage) | curve_evidence(curve, stage.steps)
    if guard.verdict is Verdict.FAIL:
        text = f"diverged: {guard.text}"
        return Judgement(DecisionKind.FAIL, "diverged", Verdict.FAIL, text, (guard, health), evidence)
    if health.verdict is Verdict.FAIL and not curve.is_control:
        text = f"unhealthy routing: {health.text}"
        kind = DecisionKind.STOP
        return Judgement(kind, "unhealthy_routing", Verdict.FAIL, text, (guard, health), evidence)
    return None


def _candidates(
    sound: Sequence[Curve], controls: Sequence[Curve], stage: StageView, policy: Policy
) -> Mapping[str, Candidate]:
    grouped: dict[str, list[Curve]] = defaultdict(list)
    for curve in sound:
        if not curve.is_control:
            grouped[curve.variant].append(curve)
    noise = control_noise(controls, stage.steps)
    return {
        variant: _candidate(variant, curves, controls, noise, stage, policy)
        for variant, curves in grouped.items()
    }


def _candidate(
    variant: str,
    curves: Sequence[Curve],
    controls: Sequence[Curve],
    noise: float | None,
    stage: StageView,
    policy: Policy,
) -> Candidate:
    case = paired_case(curves, controls, stage.steps, policy, noise)
    promote = replace(ask(policy.promote, case), name="promote")
    return Candidate(
        variant=variant,
        runs=tuple(curves),
        case=case,
        promote=promote,
        stop=stop_result(policy, case),
        contender=_contender(variant, case.subjects, stage),
        invalid=any(control is not None and comparable(curve, control) for curve, control in case.pairs),
    )


def _contender(variant: str, curves: Sequence[Curve], stage: StageView) -> Contender:
    found = [latest_finite(curve, stage.steps) for curve in curves]
    values = [evaluation.eval_loss for evaluation in found if evaluation is not None]
    identity = next((curve.identity for curve in curves if curve.identity is not None), None)
    return Contender(
        variant=variant,
        value=math.fsum(values) / len(values) if values else math.inf,
        flops_per_token=identity.flops_per_token if identity else math.inf,
        parameters=identity.parameters_total if identity else math.inf,
    )


def _select(candidates: Mapping[str, Candidate], rule: PromoteRule, policy: Policy) -> Selection:
    """The best of the eligible, at most as many as the cap; on probation the best of all sound ones."""
    sound = [c for c in candidates.values() if math.isfinite(c.contender.value) and not c.invalid]
    eligible = [c for c in sound if rule.eligible == "all" or c.promote.verdict is Verdict.PASS]
    probation = not eligible and rule.if_none == "probation"
    pool = sound if probation else eligible
    sigma = max((candidate.case.sigma for candidate in pool), default=0.0)
    tie = noise_margin(policy.ties.floor, policy.ties.sigmas, sigma) + policy.tolerance
    ranked = tuple(contender.variant for contender in rank([c.contender for c in pool], tie))
    return Selection(ranked, ranked[: 1 if probation else rule.best], probation and bool(ranked), rule)


def _judge_candidate(candidate: Candidate, selection: Selection, stage: StageView) -> Judgement:
    kind, reason, text = _decide(candidate, selection, stage)
    evidence = _stage_evidence(stage) | comparison_evidence(candidate.case) | _rank_evidence(selection)
    evidence["gate_value"] = number(candidate.contender.value)
    evidence["rank"] = _place(candidate.variant, selection)
    return Judgement(kind, reason, candidate.verdict, text, (candidate.promote, candidate.stop), evidence)


def _decide(candidate: Candidate, selection: Selection, stage: StageView) -> tuple[DecisionKind, str, str]:
    place, said = _place(candidate.variant, selection), candidate.promote.text
    if candidate.variant in selection.winners:
        text = f"rank {place} of {len(selection.ranked)} at the gate of {stage.name}"
        if selection.probation:
            return DecisionKind.PROMOTE, "probation", f"{text}, on probation since none was eligible: {said}"
        reason = "promote_criteria_met" if candidate.promote.verdict is Verdict.PASS else "best"
        return DecisionKind.PROMOTE, reason, f"{text}, {_eligible(selection)}: {said}"
    plateau = candidate.stop.verdict is Verdict.PASS
    reason = "plateau" if plateau else "not_promoted"
    if place is not None:
        text = f"rank {place} of {len(selection.ranked)}; {_cap(selection)} go on: {said}"
    else:
        text = f"not eligible at the gate of {stage.name}: {said}"
    return DecisionKind.DECLINE, reason, f"{text}; every stop criterion is met too" if plateau else text


def _eligible(selection: Selection) -> str:
    return "all are eligible" if selection.rule.eligible == "all" else "the promote criteria are met"


def _cap(selection: Selection) -> str:
    return f"the best {len(selection.winners)}"


def _judge_control(curve: Curve, selection: Selection, stage: StageView) -> Judgement:
    """The control goes on exactly when a variant does: it is the anchor and holds no place in the cap."""
    evidence = _stage_evidence(stage) | curve_evidence(curve, stage.steps) | _rank_evidence(selection)
    if selection.winners:
        text = f"the control goes on beside {', '.join(selection.winners)}, outside the ranking and the cap"
        return Judgement(DecisionKind.PROMOTE, "control", Verdict.PASS, text, (), evidence)
    text = f"no variant goes on from {stage.name}, so the control has nothing left to be compared with"
    return Judgement(DecisionKind.DECLINE, "not_promoted", Verdict.INCONCLUSIVE, text, (), evidence)


def _conclusion(selection: Selection, stage: StageView) -> str:
    if not selection.winners:
        return f"no_winner: no variant is eligible at the gate of {stage.name}"
    how = " on probation" if selection.probation else ""
    return f"{stage.name} promotes {', '.join(selection.winners)}{how}, of {len(selection.ranked)} ranked"


def _place(variant: str, selection: Selection) -> int | None:
    return selection.ranked.index(variant) + 1 if variant in selection.ranked else None


def _stage_evidence(stage: StageView) -> dict[str, JsonValue]:
    return {"stage": stage.name, "stage_steps": stage.steps}


def _rank_evidence(selection: Selection) -> dict[str, JsonValue]:
    ranks: list[JsonValue] = list(selection.ranked)
    rule = selection.rule
    return {
        "ranked": ranks,
        "promote": {"best": rule.best, "eligible": rule.eligible, "if_none": rule.if_none},
    }
