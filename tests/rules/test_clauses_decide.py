"""Clause by clause: what a gate decides, by the shipped policy `stage-gate`."""

import math
from dataclasses import replace
from typing import Any

import pytest
from rule_builders import (
    CONFIRM,
    SCREEN,
    STAGE_GATE,
    case,
    control,
    curve,
    entrants,
    flat,
    identity,
    result,
    routing,
    with_rules,
)

from orchestrator.domain.curves import Curve
from orchestrator.domain.decisions import GateOutcome, PromoteRule
from orchestrator.domain.evidence import Verdict, all_of, any_of, negate
from orchestrator.rules.conclusion import conclude
from orchestrator.rules.gate import close_stage
from orchestrator.rules.judge import judge_evaluation

PASS, FAIL, OPEN, INVALID = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID
ANCHOR = control({500: 5.6, 1000: 4.80})
ALL = PromoteRule(9, "all")


def close(*curves: Curve, rule: PromoteRule = ALL, **changes: Any) -> GateOutcome:
    return close_stage(entrants(*curves), promote=rule, **({"stage": SCREEN, "policy": STAGE_GATE} | changes))


def decided(outcome: GateOutcome, subject: Curve) -> tuple[str, str]:
    judgement = outcome.judgements[subject.run_id]
    return judgement.kind.value, judgement.reason


def at(variant: str, loss: float, **changes: Any) -> Curve:
    return curve(variant, {500: loss + 0.8, 1000: loss}, **changes)


class TestGateValue:
    def test_clause_gate_value_is_the_latest_and_not_the_best(self) -> None:
        stale = curve("stale", {500: 3.0, 1000: 4.80})
        outcome = close(ANCHOR, stale, at("a", 4.7), rule=PromoteRule(1))
        assert outcome.winners == ("a",)
        evidence = outcome.judgements[stale.run_id].evidence
        assert evidence["gate_value"] == 4.80
        shown = judge_evaluation(stale, stage=SCREEN, policy=STAGE_GATE).evidence
        assert (shown["best_eval_so_far"], shown["gate_value"]) == (3.0, 4.80)

    def test_clause_gate_value_is_of_the_stage(self) -> None:
        early, late = curve("early", {1000: 1.0, 5000: 4.0}), curve("late", {1000: 3.0, 5000: 3.9})
        absent = curve("absent", {1000: 1.0})
        outcome = close(control({5000: 4.5}), early, late, absent, stage=replace(CONFIRM, begins=1000))
        assert outcome.winners == ("late", "early")

    def test_clause_gate_value_does_not_look_past_the_gate(self) -> None:
        assert close(ANCHOR, curve("a", {1000: 4.8, 1500: 1.0}), rule=PromoteRule(1)).winners == ()


class TestCapAndOrder:
    def test_clause_cap_and_order_by_gate_value(self) -> None:
        runs = [at("a", 4.60), at("b", 4.50), at("c", 4.40)]
        for best, winners in ((1, ("c",)), (2, ("c", "b")), (3, ("c", "b", "a")), (4, ("c", "b", "a"))):
            assert close(ANCHOR, *runs, rule=PromoteRule(best)).winners == winners

    @pytest.mark.parametrize(
        ("gap", "cost", "order"),
        [
            pytest.param(0.005, {"flops_per_token": 1999.0}, "ba", id="a tie: fewer FLOPs per token"),
            pytest.param(0.00501, {"flops_per_token": 1999.0}, "ab", id="no tie"),
            pytest.param(0.005, {"flops_per_token": 2001.0, "parameters_total": 1}, "ab", id="FLOPs first"),
            pytest.param(0.005, {"parameters_total": 999}, "ba", id="then fewer parameters"),
            pytest.param(0.005, {}, "ab", id="then the name"),
            pytest.param(-0.005, {}, "ab", id="then the name, though the other is lower"),
        ],
    )
    def test_clause_cap_and_order_of_ties(self, gap: float, cost: dict[str, Any], order: str) -> None:
        a, b = at("a", 4.5), at("b", 4.5 + gap, who=identity(**cost))
        assert close(ANCHOR, a, b).winners == tuple(order)

    def test_clause_cap_and_order_with_noise_in_the_tie(self) -> None:
        cheap = at("b", 4.5 + 2 * math.sqrt(2) * 0.01, who=identity(flops_per_token=1.0))
        noisy = with_rules(sigma=0.01)
        assert close(ANCHOR, at("a", 4.5), cheap, policy=noisy).winners == ("b", "a")
        assert close(ANCHOR, at("a", 4.4999), cheap, policy=noisy).winners == ("a", "b")

    def test_clause_cap_and_order_without_the_control(self) -> None:
        best = control({500: 1.0, 1000: 1.0})
        outcome = close(best, at("a", 4.5), at("b", 4.6), rule=PromoteRule(2, "all"))
        assert outcome.winners == ("a", "b")
        assert decided(outcome, best) == ("promote", "control")


class TestNoneEligible:
    RUNS = (at("a", 4.79), at("b", 4.9))

    def test_clause_none_eligible_closes_the_branch(self) -> None:
        outcome = close(ANCHOR, *self.RUNS, rule=PromoteRule(2))
        assert outcome.winners == ()
        assert outcome.conclusion.startswith("no_winner")
        assert decided(outcome, ANCHOR) == ("decline", "not_promoted")  # it wins nothing silently

    def test_clause_none_eligible_may_carry_the_best_one_on_probation(self) -> None:
        outcome = close(ANCHOR, *self.RUNS, rule=PromoteRule(2, if_none="probation"))
        assert outcome.winners == ("a",)
        assert decided(outcome, self.RUNS[0]) == ("promote", "probation")
        assert decided(outcome, self.RUNS[1]) == ("decline", "not_promoted")

    def test_clause_none_eligible_the_control_never_silently_wins(self) -> None:
        said = conclude([control({1000: 4.0}), curve("a", {1000: 4.5})], 1000, STAGE_GATE)
        assert said.startswith("a is the best variant, and the control stays ahead")
        level = conclude([control({1000: 4.0}), curve("a", {1000: 3.995})], 1000, STAGE_GATE)
        assert "level with the control" in level
        assert "is the winner" in conclude([control({1000: 4.0}), curve("a", {1000: 3.99})], 1000, STAGE_GATE)


SICK = {"routing": routing(worst=0.1)}
STEPS = range(500, 5001, 500)


class TestPrecedence:
    """Each pair of neighbours in: diverged, unhealthy, promote, stop, hold."""

    def still(self, loss: float, **changes: Any) -> Curve:
        return curve("a", dict.fromkeys(STEPS, loss), train_loss=flat(loss, 5000), **changes)

    def decided(self, subject: Curve) -> tuple[str, str]:
        anchor = control(dict.fromkeys(STEPS, 4.0))
        return decided(close(anchor, subject, rule=PromoteRule(1), stage=CONFIRM), subject)

    def test_clause_precedence_diverged_before_unhealthy(self) -> None:
        broken = curve("a", {500: 4.0, 5000: math.nan}, every=SICK)
        assert self.decided(broken) == ("fail", "diverged")
        assert judge_evaluation(broken, stage=CONFIRM, policy=STAGE_GATE).reason == "diverged"

    def test_clause_precedence_unhealthy_before_promote(self) -> None:
        assert self.decided(self.still(1.0, every=SICK)) == ("stop", "unhealthy_routing")

    def test_clause_precedence_promote_before_stop(self) -> None:
        assert self.decided(self.still(3.95)) == ("promote", "promote_criteria_met")
        assert self.decided(self.still(3.951)) == ("decline", "plateau")

    def test_clause_precedence_stop_before_hold(self) -> None:
        before = curve("a", dict.fromkeys(range(500, 4501, 500), 4.0), train_loss=flat(4.0, 4500))
        waits = replace(CONFIRM, points=(4500,))
        assert judge_evaluation(before, stage=waits, policy=STAGE_GATE).reason == "plateau"
        early = curve("a", {500: 4.0}, train_loss=flat(4.0, 500))
        held = judge_evaluation(early, stage=replace(CONFIRM, points=(500,)), policy=STAGE_GATE)
        assert (held.kind.value, held.reason) == ("hold", "at_point")
        at_gate = judge_evaluation(self.still(4.0), stage=CONFIRM, policy=STAGE_GATE)
        assert (at_gate.kind.value, at_gate.reason) == ("hold", "at_gate")  # a promotion may come first there


class TestThreeValuedLogic:
    @pytest.mark.parametrize(
        ("verdicts", "every", "some"),
        [
            ([], PASS, FAIL),
            ([PASS, PASS], PASS, PASS),
            ([FAIL, FAIL], FAIL, FAIL),
            ([PASS, FAIL], FAIL, PASS),
            ([PASS, OPEN], OPEN, PASS),
            ([FAIL, OPEN], FAIL, OPEN),
            ([OPEN, OPEN], OPEN, OPEN),
            ([PASS, INVALID], OPEN, PASS),
            ([FAIL, INVALID], FAIL, OPEN),
            ([INVALID, INVALID], OPEN, OPEN),
        ],
    )
    def test_clause_three_valued_logic_of_all_and_any(
        self, verdicts: list[Verdict], every: Verdict, some: Verdict
    ) -> None:
        assert (all_of(verdicts), any_of(verdicts)) == (every, some)
        assert (all_of(verdicts[::-1]), any_of(verdicts[::-1])) == (every, some)

    def test_clause_three_valued_logic_of_not(self) -> None:
        assert [negate(v) for v in (PASS, FAIL, OPEN, INVALID)] == [FAIL, PASS, OPEN, INVALID]

    def test_clause_three_valued_logic_shows_an_invalid_leaf_as_invalid(self) -> None:
        alien = curve("alien", {1000: 1.0}, who=identity(tokenizer="another"))
        node = {"any": [{"criterion": "beats_control"}, {"criterion": "stable"}]}
        found = result({"all": [node["any"][0]]}, case(alien, ANCHOR))
        assert (found.verdict, found.parts[0].verdict) == (OPEN, INVALID)
        assert result(node, case(alien, ANCHOR)).verdict is PASS  # it counts as inconclusive
        judged = close(ANCHOR, alien, rule=PromoteRule(1)).judgements[alien.run_id]
        assert (judged.kind.value, judged.verdict) == ("decline", INVALID)
        assert "tokenizers differ" in judged.text

    def test_clause_three_valued_logic_what_is_open_neither_stops_nor_promotes(self) -> None:
        lonely = at("a", 1.0)
        assert decided(close(lonely, rule=PromoteRule(1)), lonely) == ("decline", "not_promoted")
        early = judge_evaluation(curve("a", {500: 4.0}), stage=SCREEN, policy=STAGE_GATE)
        assert (early.kind.value, early.reason) == ("continue", "inconclusive")
