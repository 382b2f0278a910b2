"""What is decided when a stage closes: criteria, order, cap, seeds, the control, none eligible."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_builders import (
    CONFIRM,
    SCREEN,
    STAGE_GATE,
    control,
    curve,
    entrants,
    flat,
    identity,
    routing,
    with_rules,
)

from orchestrator.domain.curves import Curve
from orchestrator.domain.decisions import Entrant, GateOutcome, PromoteRule
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.gate import close_stage

BEST_2 = PromoteRule(best=2)
CONTROL = control({500: 5.6, 1000: 4.77})


def close(
    *curves: Curve, out: tuple[Curve, ...] = (), rule: PromoteRule = BEST_2, **changes: Any
) -> GateOutcome:
    settings = {"stage": SCREEN, "policy": STAGE_GATE} | changes
    return close_stage(entrants(*curves, out=out), promote=rule, **settings)


def decided(outcome: GateOutcome, subject: Curve) -> tuple[str, str]:
    judgement = outcome.judgements[subject.run_id]
    return judgement.kind.value, judgement.reason


def at(variant: str, loss: float, seed: int = 0, **changes: Any) -> Curve:
    return curve(variant, {500: loss + 0.8, 1000: loss}, seed=seed, **changes)


class TestPromotion:
    def test_passing_the_criteria_promotes_and_the_control_goes_along(self) -> None:
        good, poor = at("good", 4.70), at("poor", 4.75)
        outcome = close(CONTROL, good, poor)
        assert outcome.winners == ("good",)
        assert decided(outcome, good) == ("promote", "promote_criteria_met")
        assert decided(outcome, poor) == ("decline", "not_promoted")
        assert decided(outcome, CONTROL) == ("promote", "control")

    def test_equality_promotes(self) -> None:
        assert close(control({1000: 3.25}), curve("a", {1000: 3.20})).winners == ("a",)

    def test_the_same_loss_at_lower_cost_promotes(self) -> None:
        cheap = at("cheap", 4.772, who=identity(flops_per_token=1000.0))
        assert close(CONTROL, cheap).winners == ("cheap",)

    def test_a_stale_best_never_promotes(self) -> None:
        stale = curve("stale", {500: 4.0, 1000: 4.77})
        assert close(CONTROL, stale).winners == ()

    def test_a_value_of_an_earlier_stage_is_no_gate_value(self) -> None:
        late = curve("late", {500: 3.0, 1000: 3.0})  # nothing after the gate of screen
        stage = replace(CONFIRM, begins=1000)
        outcome = close(control({5000: 4.0}), late, stage=stage, rule=PromoteRule(1, "all"))
        assert outcome.winners == ()

    def test_evaluations_after_the_gate_are_not_looked_at(self) -> None:
        ahead = curve("ahead", {1000: 4.77, 1500: 1.0})
        assert close(control({1000: 4.77, 1500: 4.5}), ahead).winners == ()

    def test_each_judgement_explains_itself(self) -> None:
        outcome = close(CONTROL, at("good", 4.70), at("poor", 4.75))
        texts = [judgement.text for judgement in outcome.judgements.values()]
        assert any(
            "eval loss 4.700 is 0.070 below the control's 4.770 at step 1000; promotion needs 0.050 below"
            in text
            for text in texts
        )
        assert any(text.startswith("rank 1 of 1 at the gate of screen") for text in texts)
        assert outcome.conclusion == "screen promotes good, of 1 ranked"

    def test_the_evidence_is_plain_json(self) -> None:
        outcome = close(CONTROL, at("good", 4.70), at("bad", math.nan))
        for judgement in outcome.judgements.values():
            assert judgement.evidence
            json.dumps(judgement.evidence, allow_nan=False)
        good = next(j for j in outcome.judgements.values() if j.evidence.get("rank") == 1)
        assert good.evidence["gate_value"] == 4.70
        assert good.evidence["gap"]["gap"] == pytest.approx(-0.07)  # type: ignore[index,call-overload]
        assert good.evidence["ranked"] == ["good"]
        assert "ranked_count" not in good.evidence

    def test_of_many_ranked_the_best_stand_in_the_evidence_of_each(self) -> None:
        outcome = close(CONTROL, *[at(f"v{i:02}", 4.0 + i / 100) for i in range(30)])
        for judgement in outcome.judgements.values():
            assert judgement.evidence["ranked"] == [f"v{i:02}" for i in range(20)]
            assert judgement.evidence["ranked_count"] == 30
        assert {j.evidence.get("rank") for j in outcome.judgements.values()} == {None, *range(1, 31)}


class TestCapAndOrder:
    def test_the_best_n_by_gate_value(self) -> None:
        runs = [at("a", 4.60), at("b", 4.50), at("c", 4.40)]
        outcome = close(CONTROL, *runs)
        assert outcome.winners == ("c", "b")
        assert decided(outcome, runs[0]) == ("decline", "not_promoted")
        assert outcome.judgements[runs[0].run_id].text.startswith("rank 3 of 3; the best 2 go on")

    def test_the_control_holds_no_place_and_no_rank(self) -> None:
        strong = control({500: 5.6, 1000: 4.0})
        outcome = close(strong, at("a", 4.60), at("b", 4.70), rule=PromoteRule(2, "all"))
        assert outcome.winners == ("a", "b")
        assert decided(outcome, strong) == ("promote", "control")

    @pytest.mark.parametrize(
        ("cost_of_b", "winner"),
        [
            pytest.param({"flops_per_token": 100.0}, "b", id="fewer FLOPs per token"),
            pytest.param(
                {"parameters_total": 900, "parameters_active": 900}, "b", id="then fewer parameters"
            ),
            pytest.param(
                {"flops_per_token": 9e9, "parameters_total": 900}, "a", id="FLOPs before parameters"
            ),
            pytest.param({}, "a", id="then the name"),
        ],
    )
    def test_ties_within_the_same_eval_loss(self, cost_of_b: dict[str, Any], winner: str) -> None:
        a, b = at("a", 4.500), at("b", 4.505, who=identity(**cost_of_b))
        for rule in (PromoteRule(1), PromoteRule(1, "all")):
            assert close(CONTROL, a, b, rule=rule).winners == (winner,)

    def test_beyond_the_same_eval_loss_cost_counts_for_nothing(self) -> None:
        cheap = at("b", 4.506, who=identity(flops_per_token=1.0))
        assert close(CONTROL, at("a", 4.500), cheap, rule=PromoteRule(1)).winners == ("a",)

    def test_eligible_all_ranks_every_sound_run(self) -> None:
        runs = [at("a", 5.0), at("b", 4.9)]
        outcome = close(CONTROL, *runs, rule=PromoteRule(1, "all"))
        assert outcome.winners == ("b",)
        assert decided(outcome, runs[1]) == ("promote", "best")
        assert outcome.judgements[runs[1].run_id].verdict is Verdict.FAIL


class TestNoneEligible:
    def test_no_winner_declines_all(self) -> None:
        runs = [at("a", 4.8), at("b", 4.9)]
        outcome = close(CONTROL, *runs)
        assert outcome.winners == ()
        assert outcome.conclusion.startswith("no_winner")
        assert {decided(outcome, run) for run in [CONTROL, *runs]} == {("decline", "not_promoted")}

    def test_probation_carries_the_best_one(self) -> None:
        runs = [at("a", 4.8), at("b", 4.9)]
        outcome = close(CONTROL, *runs, rule=PromoteRule(2, if_none="probation"))
        assert outcome.winners == ("a",)
        assert decided(outcome, runs[0]) == ("promote", "probation")
        assert decided(outcome, runs[1]) == ("decline", "not_promoted")
        assert decided(outcome, CONTROL) == ("promote", "control")

    def test_probation_with_nobody_left(self) -> None:
        outcome = close(CONTROL, out=(at("a", 4.0),), rule=PromoteRule(2, if_none="probation"))
        assert outcome.winners == ()
        assert decided(outcome, CONTROL) == ("decline", "not_promoted")

    def test_probation_is_not_used_when_one_is_eligible(self) -> None:
        good = at("good", 4.0)
        outcome = close(CONTROL, good, at("b", 4.8), rule=PromoteRule(2, if_none="probation"))
        assert decided(outcome, good) == ("promote", "promote_criteria_met")


class TestPrecedence:
    def test_diverged_is_out_of_every_rank(self) -> None:
        bad = curve("bad", {500: 1.0, 1000: math.nan})
        outcome = close(CONTROL, bad, rule=PromoteRule(1, "all", "probation"))
        assert decided(outcome, bad) == ("fail", "diverged")
        assert outcome.winners == ()

    def test_unhealthy_goes_before_promote(self) -> None:
        sick = at("sick", 4.0, every={"routing": routing(0.1, worst=0.1)})
        outcome = close(CONTROL, sick, rule=PromoteRule(1, "all"))
        assert decided(outcome, sick) == ("stop", "unhealthy_routing")
        assert outcome.winners == ()

    def test_promote_goes_before_stop(self) -> None:
        anchor = control(dict.fromkeys(range(500, 5001, 500), 4.0))
        still = curve("still", dict.fromkeys(range(500, 5001, 500), 3.5), train_loss=flat(3.5, 5000))
        assert decided(close(anchor, still, stage=CONFIRM), still) == ("promote", "promote_criteria_met")

    def test_stop_goes_before_a_plain_decline(self) -> None:
        anchor = control(dict.fromkeys(range(500, 5001, 500), 3.5))
        still = curve("still", dict.fromkeys(range(500, 5001, 500), 3.5), train_loss=flat(3.5, 5000))
        outcome = close(anchor, still, stage=CONFIRM)
        assert decided(outcome, still) == ("decline", "plateau")
        assert decided(outcome, anchor) == ("decline", "not_promoted")

    def test_an_unhealthy_control_is_not_stopped(self) -> None:
        sick = control({500: 5.6, 1000: 4.77}, every={"routing": routing(0.1, worst=0.1)})
        assert decided(close(sick, at("good", 4.0)), sick) == ("promote", "control")


class TestOut:
    def test_who_is_out_is_neither_judged_nor_ranked(self) -> None:
        gone = at("gone", 1.0)
        outcome = close(CONTROL, at("a", 4.5), out=(gone,))
        assert gone.run_id not in outcome.judgements
        assert outcome.winners == ("a",)

    def test_without_the_control_the_criteria_are_inconclusive(self) -> None:
        run = at("a", 4.0)
        outcome = close(run, out=(CONTROL,))
        assert decided(outcome, run) == ("decline", "not_promoted")
        assert outcome.judgements[run.run_id].verdict is Verdict.INCONCLUSIVE

    def test_not_comparable_is_invalid_and_in_no_rank(self) -> None:
        alien = at("alien", 1.0, who=identity(tokenizer="other"))
        outcome = close(CONTROL, alien, at("a", 4.9), rule=PromoteRule(2, "all"))
        assert outcome.winners == ("a",)
        assert outcome.judgements[alien.run_id].verdict is Verdict.INVALID
        assert "tokenizers differ" in outcome.judgements[alien.run_id].text

    def test_an_empty_stage_has_no_winner(self) -> None:
        assert close().winners == ()


class TestSeeds:
    anchors = (control({1000: 4.80}, seed=0), control({1000: 4.82}, seed=1))

    def test_a_variant_is_judged_on_the_paired_mean(self) -> None:
        runs = [curve("a", {1000: 4.70}, seed=0), curve("a", {1000: 4.81}, seed=1)]
        outcome = close(*self.anchors, *runs)
        assert outcome.winners == ("a",)  # -0.10 and -0.01: -0.055 on the mean
        assert {decided(outcome, run) for run in runs} == {("promote", "promote_criteria_met")}
        assert {decided(outcome, anchor) for anchor in self.anchors} == {("promote", "control")}
        assert "mean over 2 seeds" in outcome.judgements[runs[0].run_id].text

    def test_one_good_seed_is_not_enough(self) -> None:
        runs = [curve("a", {1000: 4.70}, seed=0), curve("a", {1000: 4.85}, seed=1)]
        assert close(*self.anchors, *runs).winners == ()

    def test_sigma_comes_from_the_seeds_of_the_control(self) -> None:
        run = curve("a", {1000: 4.7}, seed=0)
        evidence = close(*self.anchors, run).judgements[run.run_id].evidence
        assert evidence["sigma"] == pytest.approx(0.02 / math.sqrt(2))

    def test_sigma_widens_the_same_loss(self) -> None:
        runs = [
            curve("a", {1000: loss}, seed=s, who=identity(flops_per_token=1.0))
            for s, loss in ((0, 4.83), (1, 4.85))
        ]
        assert close(*self.anchors, *runs).winners == ("a",)  # +0.03 within 2 sqrt 2 * 0.0141
        assert close(self.anchors[0], runs[0]).winners == ()

    def test_with_one_seed_sigma_is_the_policys(self) -> None:
        run = curve("a", {1000: 4.83}, who=identity(flops_per_token=1.0))
        assert close(self.anchors[0], run, policy=with_rules(sigma=0.02)).winners == ("a",)

    def test_a_seed_that_is_out_leaves_the_other_to_judge(self) -> None:
        kept, gone = curve("a", {1000: 4.70}, seed=0), curve("a", {1000: 9.0}, seed=1)
        outcome = close(*self.anchors, kept, out=(gone,))
        assert outcome.winners == ("a",)
        assert gone.run_id not in outcome.judgements

    def test_a_seed_without_its_control_follows_its_variant(self) -> None:
        runs = [curve("a", {1000: 4.70}, seed=0), curve("a", {1000: 9.0}, seed=7)]
        outcome = close(*self.anchors, *runs)
        assert {decided(outcome, run) for run in runs} == {("promote", "promote_criteria_met")}

    def test_a_stop_at_the_gate_takes_every_seed(self) -> None:
        steps = range(500, 5001, 500)
        anchors = [control(dict.fromkeys(steps, 3.5), seed=seed) for seed in (0, 1)]
        still = curve("a", dict.fromkeys(steps, 3.5), seed=0, train_loss=flat(3.5, 5000))
        moving = curve("a", {s: 4.5 - s / 5000 for s in steps}, seed=1, train_loss=flat(3.5, 5000))
        outcome = close(*anchors, still, moving, stage=CONFIRM)
        assert decided(outcome, still) == decided(outcome, moving) == ("decline", "not_promoted")


losses = st.one_of(st.floats(4.5, 4.9), st.sampled_from([4.72, 4.725, 4.70, math.nan]))
fields = st.lists(st.tuples(losses, st.sampled_from([1000.0, 2000.0]), st.booleans()), min_size=1, max_size=6)
rules = st.builds(
    PromoteRule,
    best=st.integers(1, 3),
    eligible=st.sampled_from(["policy", "all"]),
    if_none=st.sampled_from(["no_winner", "probation"]),
)


def field_of(drawn: list[tuple[float, float, bool]]) -> list[Entrant]:
    runs = [Entrant(CONTROL, out=False)]
    for i, (loss, flops, out) in enumerate(drawn):
        runs.append(Entrant(at(f"v{i % 4}", loss, seed=i // 4, who=identity(flops_per_token=flops)), out))
    return runs


@settings(max_examples=60)
@given(fields, rules, st.randoms(use_true_random=False))
def test_the_order_of_runs_changes_nothing(drawn: Any, rule: PromoteRule, random: Any) -> None:
    runs = field_of(drawn)
    first = close_stage(runs, stage=SCREEN, promote=rule, policy=STAGE_GATE)
    random.shuffle(runs)
    assert close_stage(runs, stage=SCREEN, promote=rule, policy=STAGE_GATE) == first


@settings(max_examples=60)
@given(fields, rules)
def test_what_holds_of_every_gate(drawn: Any, rule: PromoteRule) -> None:
    runs = field_of(drawn)
    outcome = close_stage(runs, stage=SCREEN, promote=rule, policy=STAGE_GATE)
    assert set(outcome.judgements) == {run.curve.run_id for run in runs if not run.out}
    assert len(outcome.winners) <= rule.best
    assert "control" not in outcome.winners
    promoted = {run.curve.variant for run in runs if decided_or_out(outcome, run) == "promote"}
    assert promoted == (set(outcome.winners) | {"control"} if outcome.winners else set())


def decided_or_out(outcome: GateOutcome, run: Entrant) -> str:
    return "out" if run.out else decided(outcome, run.curve)[0]
