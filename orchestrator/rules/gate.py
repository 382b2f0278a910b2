"""What is decided when a stage closes: who goes on, by the promote criteria, the ranking and the cap."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.domain.curves import Curve, StageView, comparable, upto
from orchestrator.domain.decisions import DecisionKind, Entrant, GateOutcome, Judgement, PromoteRule
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.cases import control_noise, own_case, paired_case
from orchestrator.rules.criteria import Field, noise_margin
from orchestrator.rules.criteria_health import healthy_routing, not_diverged
from orchestrator.rules.frozen import curve_evidence
from orchestrator.rules.gate_words import (
    Candidate,
    Selection,
    conclusion,
    judge_candidate,
    judge_control,
    stage_evidence,
)
from orchestrator.rules.judge import stop_result
from orchestrator.rules.nodes import ask
from orchestrator.rules.point import leaves_at_gate
from orchestrator.rules.policies import Policy
from orchestrator.rules.ranking import contender_at, rank

SEED_DONE = "seed_done"
"""The reason of a run that ends though its variant goes on: the next stage does not train its seed."""


@dataclass(frozen=True)
class Anchor:
    """What the variants of a gate are judged against, beside the runs of the control that are in it."""

    reference: Curve | None = None
    """Stands in for the control when none of its runs is sound."""
    field: Callable[[Sequence[Curve]], Field | None] | None = None
    """Makes the field of the sound runs, where the policy compares variants with each other."""


ALONE = Anchor()


def close_stage(
    runs: Sequence[Entrant],
    *,
    stage: StageView,
    promote: PromoteRule,
    policy: Policy,
    anchor: Anchor = ALONE,
) -> GateOutcome:
    """One judgement for each run that is not out, by precedence: diverged, unhealthy, promote, stop, hold.

    Call it when every run that is not out has its evaluation at the stage's step. Later evaluations are
    not looked at, and the order of `runs` does not matter.
    """
    judgements, candidates, controls = _stand(runs, stage, policy, anchor)
    selection = _select(candidates, promote, policy)
    known = {control.run_id: curve_evidence(control, stage.steps) for control in controls}
    for candidate in candidates.values():
        judged = judge_candidate(candidate, selection, stage, known)
        judgements |= {curve.run_id: judged for curve in candidate.runs}
    judgements |= {curve.run_id: judge_control(curve, selection, stage) for curve in controls}
    judgements |= _left_behind(judgements, [*_runs_of(candidates), *controls], promote, stage)
    return GateOutcome(judgements, selection.winners, conclusion(selection, stage))


def promote_early(
    runs: Sequence[Entrant],
    *,
    missing: int,
    stage: StageView,
    promote: PromoteRule,
    policy: Policy,
    anchor: Anchor = ALONE,
) -> GateOutcome:
    """The promotions that nothing can change any more, while `missing` variants are not at the gate yet.

    A place is certain when the eligible that are there and all that are missing fit under the cap: whoever
    comes then, each of them goes on, with the same sentence that the closed gate would give it. Where the
    policy compares variants with each other no place is certain before all are there.
    """
    if anchor.field is not None:
        return GateOutcome({}, (), "")
    _, candidates, controls = _stand(runs, stage, policy, anchor)
    selection = _select(candidates, promote, policy)
    if not selection.certain or len(selection.winners) + missing > promote.best:
        return GateOutcome({}, (), "")
    chosen = [candidates[name] for name in selection.winners]
    judgements = {
        curve.run_id: judge_candidate(candidate, selection, stage)
        for candidate in chosen
        for curve in candidate.runs
    }
    judgements |= {curve.run_id: judge_control(curve, selection, stage) for curve in controls}
    judgements |= _left_behind(judgements, [*_runs_of(candidates), *controls], promote, stage)
    return GateOutcome(judgements, selection.winners, "")


def _runs_of(candidates: Mapping[str, Candidate]) -> list[Curve]:
    return [curve for candidate in candidates.values() for curve in candidate.runs]


def _left_behind(
    judgements: Mapping[int, Judgement], curves: Sequence[Curve], promote: PromoteRule, stage: StageView
) -> dict[int, Judgement]:
    """Runs of promoted variants whose seed the next stage does not train: they have done their part."""
    if promote.seeds is None:
        return {}
    found = {}
    for curve in curves:
        judgement = judgements.get(curve.run_id)
        promoted = judgement is not None and judgement.kind is DecisionKind.PROMOTE
        if judgement is not None and promoted and curve.seed not in promote.seeds:
            text = f"{curve.variant} goes on from {stage.name} without seed {curve.seed}: {judgement.text}"
            found[curve.run_id] = replace(judgement, kind=DecisionKind.DECLINE, reason=SEED_DONE, text=text)
    return found


def _stand(
    runs: Sequence[Entrant], stage: StageView, policy: Policy, anchor: Anchor
) -> tuple[dict[int, Judgement], Mapping[str, Candidate], Sequence[Curve]]:
    """The judgements on runs that are not fit to be ranked, the variants that are, and the control's runs."""
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
    return judgements, _candidates(sound, controls, stage, policy, anchor), controls


def _guard(curve: Curve, stage: StageView, policy: Policy) -> Judgement | None:
    """The judgement on a run that is not fit to be ranked, whatever its loss."""
    case = own_case(curve, stage.steps, policy)
    guard = not_diverged(policy.diverged, case)
    health = healthy_routing(policy.unhealthy_routing, case)
    if Verdict.FAIL not in (guard.verdict, health.verdict):
        return None
    evidence = stage_evidence(stage) | curve_evidence(curve, stage.steps)
    if guard.verdict is Verdict.FAIL:
        text = f"diverged: {guard.text}"
        return Judgement(DecisionKind.FAIL, "diverged", Verdict.FAIL, text, (guard, health), evidence)
    if health.verdict is Verdict.FAIL and not curve.is_control:
        text = f"unhealthy routing: {health.text}"
        kind = DecisionKind.STOP
        return Judgement(kind, "unhealthy_routing", Verdict.FAIL, text, (guard, health), evidence)
    return None


def _candidates(
    sound: Sequence[Curve], controls: Sequence[Curve], stage: StageView, policy: Policy, anchor: Anchor
) -> Mapping[str, Candidate]:
    grouped: dict[str, list[Curve]] = defaultdict(list)
    for curve in sound:
        if not curve.is_control:
            grouped[curve.variant].append(curve)
    stand_ins = _stand_ins(sound, anchor) if not controls else []
    noise = control_noise(controls, stage.steps)
    if stand_ins:
        noise = own_case(sound[0], stage.steps, policy).sigma
    field = anchor.field(sound) if anchor.field is not None else None
    return {
        variant: _candidate(variant, curves, controls or stand_ins, noise, stage, policy, field)
        for variant, curves in grouped.items()
    }


def _stand_ins(sound: Sequence[Curve], anchor: Anchor) -> list[Curve]:
    """The reference as the control of every seed: one curve, so its copies say nothing about noise."""
    if anchor.reference is None:
        return []
    return [replace(anchor.reference, seed=seed) for seed in sorted({curve.seed for curve in sound})]


def _candidate(
    variant: str,
    curves: Sequence[Curve],
    controls: Sequence[Curve],
    noise: float | None,
    stage: StageView,
    policy: Policy,
    field: Field | None,
) -> Candidate:
    case = paired_case(curves, controls, stage.steps, policy, noise, field)
    promote = ask(policy.promote, case)._replace(name="promote")
    return Candidate(
        variant=variant,
        runs=tuple(curves),
        case=case,
        promote=promote,
        stop=stop_result(policy, case),
        contender=contender_at(variant, case.subjects, stage.steps, stage.begins),
        invalid=any(control is not None and comparable(curve, control) for curve, control in case.pairs),
        outranked=leaves_at_gate(policy, case),
    )


def _select(candidates: Mapping[str, Candidate], rule: PromoteRule, policy: Policy) -> Selection:
    """The best of the eligible, at most as many as the cap; on probation the best of all sound ones."""
    sound = [c for c in candidates.values() if math.isfinite(c.contender.value) and not c.invalid]
    sound = [c for c in sound if c.outranked is None]
    eligible = [c for c in sound if rule.eligible == "all" or c.promote.verdict is Verdict.PASS]
    probation = not eligible and rule.if_none == "probation"
    pool = sound if probation else eligible
    sigma = max((candidate.case.sigma for candidate in pool), default=0.0)
    tie = noise_margin(policy.ties.floor, policy.ties.sigmas, sigma) + policy.tolerance
    ranked = tuple(contender.variant for contender in rank([c.contender for c in pool], tie))
    winners = ranked[: 1 if probation else rule.best]
    certain = rule.eager and not probation and 0 < len(eligible) <= rule.best
    return Selection(ranked, winners, probation and bool(ranked), rule, certain)
