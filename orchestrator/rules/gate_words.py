"""A gate in words: what the selection means for each variant and for the control, with its evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from orchestrator.domain.curves import Curve, StageView
from orchestrator.domain.decisions import DecisionKind, Judgement, PromoteRule
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.criteria import Case
from orchestrator.rules.frozen import comparison_evidence, curve_evidence, number
from orchestrator.rules.ranking import Contender

MOST_SHOWN = 20
"""Of the ranked, in the evidence of each decision: with all of them it would grow by the square."""


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
    outranked: CriterionResult | None = None
    """The stop rule's result where the field drops it here, as it does at a point."""

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
    certain: bool = False
    """No variant could take a winner's place: each is judged as it would have been before the gate closed."""

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The rank of each, from 1."""
        return {variant: place for place, variant in enumerate(self.ranked, 1)}

    @cached_property
    def order(self) -> list[JsonValue]:
        """The best of the ranked as JSON, `MOST_SHOWN` at most: one list for the evidence of all."""
        return list(self.ranked[:MOST_SHOWN])


def judge_candidate(
    candidate: Candidate,
    selection: Selection,
    stage: StageView,
    known: Mapping[int, JsonObject] | None = None,
) -> Judgement:
    """What the gate decides of a variant; `known` is the evidence of the control's runs, by their ids."""
    kind, reason, text = _decide(candidate, selection, stage)
    evidence = stage_evidence(stage) | comparison_evidence(candidate.case, known)
    evidence["gate_value"] = number(candidate.contender.value)
    if not (selection.certain and candidate.variant in selection.winners):
        evidence |= _rank_evidence(selection)
        evidence["rank"] = _place(candidate.variant, selection)
    return Judgement(kind, reason, candidate.verdict, text, (candidate.promote, candidate.stop), evidence)


def _decide(candidate: Candidate, selection: Selection, stage: StageView) -> tuple[DecisionKind, str, str]:
    place, said = _place(candidate.variant, selection), candidate.promote.text
    if candidate.variant in selection.winners and selection.certain:
        reason = "promote_criteria_met" if candidate.promote.verdict is Verdict.PASS else "best"
        text = f"its place among the best {selection.rule.best} of {stage.name} is certain"
        return DecisionKind.PROMOTE, reason, f"{text}, {_eligible(selection)}: {said}"
    if candidate.variant in selection.winners:
        text = f"rank {place} of {len(selection.ranked)} at the gate of {stage.name}"
        if selection.probation:
            return DecisionKind.PROMOTE, "probation", f"{text}, on probation since none was eligible: {said}"
        reason = "promote_criteria_met" if candidate.promote.verdict is Verdict.PASS else "best"
        return DecisionKind.PROMOTE, reason, f"{text}, {_eligible(selection)}: {said}"
    if candidate.outranked is not None:
        text = f"it leaves the race at the gate of {stage.name}: {candidate.outranked.text}"
        return DecisionKind.DECLINE, "outranked", text
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


def judge_control(curve: Curve, selection: Selection, stage: StageView) -> Judgement:
    """The control goes on exactly when a variant does: it is the anchor and holds no place in the cap."""
    evidence = stage_evidence(stage) | curve_evidence(curve, stage.steps)
    if selection.certain:
        text = f"the control goes on with the variants whose places after {stage.name} are certain"
        return Judgement(DecisionKind.PROMOTE, "control", Verdict.PASS, text, (), evidence)
    evidence |= _rank_evidence(selection)
    if selection.rule.newcomers:
        text = f"the control goes on from {stage.name}: new variants of the next stage are judged against it"
        return Judgement(DecisionKind.PROMOTE, "control", Verdict.PASS, text, (), evidence)
    if selection.winners:
        text = f"the control goes on beside {', '.join(selection.winners)}, outside the ranking and the cap"
        return Judgement(DecisionKind.PROMOTE, "control", Verdict.PASS, text, (), evidence)
    text = f"no variant goes on from {stage.name}, so the control has nothing left to be compared with"
    return Judgement(DecisionKind.DECLINE, "not_promoted", Verdict.INCONCLUSIVE, text, (), evidence)


def conclusion(selection: Selection, stage: StageView) -> str:
    if not selection.winners:
        return f"no_winner: no variant is eligible at the gate of {stage.name}"
    how = " on probation" if selection.probation else ""
    return f"{stage.name} promotes {', '.join(selection.winners)}{how}, of {len(selection.ranked)} ranked"


def _place(variant: str, selection: Selection) -> int | None:
    return selection.places.get(variant)


def stage_evidence(stage: StageView) -> dict[str, JsonValue]:
    return {"stage": stage.name, "stage_steps": stage.steps}


def _rank_evidence(selection: Selection) -> dict[str, JsonValue]:
    rule = selection.rule
    promote: JsonObject = {"best": rule.best, "eligible": rule.eligible, "if_none": rule.if_none}
    evidence: dict[str, JsonValue] = {"ranked": selection.order, "promote": promote}
    if len(selection.ranked) > MOST_SHOWN:
        evidence["ranked_count"] = len(selection.ranked)
    return evidence
