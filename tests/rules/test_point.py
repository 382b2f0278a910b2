"""What is decided at a point, where the whole field is there."""

import json
import math
from dataclasses import replace

import pytest
from point_builders import GRID, judge, runs_at, stopped
from rule_builders import (
    CONFIRM,
    POLICIES,
    STAGE_GATE,
    TOKENS_PER_STEP,
    control,
    curve,
    entrants,
    flat,
    identity,
    with_rules,
)

from orchestrator.domain.curves import Unmatched
from orchestrator.domain.decisions import DecisionKind
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.cases import field_of, paired_case
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.nodes import ask
from orchestrator.rules.point import judge_point, leaves_at_gate, points
from orchestrator.rules.policies import Policy

RACE = POLICIES["race"]
FIVE = {f"v{i}": 3.0 + i / 10 for i in range(5)}


class TestPoints:
    @pytest.mark.parametrize("name", ["stage-gate", "short-screen", "run-all"])
    def test_a_policy_that_compares_no_variants_has_none(self, name: str) -> None:
        assert points(POLICIES[name], GRID) == ()

    @pytest.mark.parametrize(
        "name", ["race", "successive-halving", "asha", "median-stop", "percentile-stop", "calibrated"]
    )
    def test_points_are_evaluations_below_the_horizon(self, name: str) -> None:
        found = points(POLICIES[name], GRID)
        assert found
        assert list(found) == sorted(set(found))
        assert all(0 < point < 50_000 and point % 500 == 0 for point in found)

    def test_rules_joined_have_the_points_of_all(self) -> None:
        both = with_rules(RACE, stop={"any": [{"criterion": "outside_rung"}, {"criterion": "outside_race"}]})
        assert set(points(both, GRID)) == {1000, 5000} | set(points(RACE, GRID))

    def test_a_point_before_the_rule_can_pass_is_left_out(self) -> None:
        """`calibrated` takes a plateau of 6 evaluations: its first point is evaluation 10, not 5."""
        assert points(POLICIES["calibrated"], GRID)[:2] == (5000, 7500)

    def test_a_rule_that_never_passes_has_none(self) -> None:
        never = with_rules(RACE, stop={"all": [{"criterion": "outside_race"}, {"any": []}]})
        assert points(never, GRID) == ()


class TestJudgements:
    def test_the_race_stops_what_is_outside_and_says_why(self) -> None:
        judged = judge(runs_at(5000, FIVE), RACE, step=5000, grid=replace(GRID, entered=5))
        assert stopped(judged) == {"v3", "v4"}
        last = judged["v4"]
        assert (last.reason, last.verdict) == ("outranked", Verdict.PASS)
        assert last.text == (
            "it leaves the race at step 5,000: eval loss 3.400 is rank 5 of 5 at step 5,000; "
            "the best 3 stay in the race"
        )
        (stop,) = last.criteria
        assert (stop.measured, stop.threshold) == (5.0, 3.0)
        first = judged["v0"]
        assert (first.kind, first.reason) == (DecisionKind.CONTINUE, "in_the_race")
        assert "it stays in the race at step 5,000: eval loss 3.000 is rank 1 of 5" in first.text

    def test_the_evidence_is_the_whole_field_as_json(self) -> None:
        judged = judge(runs_at(5000, FIVE | {"v1": math.inf}), RACE, step=5000)
        evidence = judged["v2"].evidence
        assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence
        assert evidence["standings"][0] == {"variant": "v0", "loss": 3.0, "rank": 1}
        assert evidence["standings"][-1] == {"variant": "v1", "loss": "inf", "rank": None}
        assert (evidence["point"], evidence["stage"], evidence["rank"]) == (5000, "confirm", 2)

    def test_of_many_each_keeps_the_best_and_those_beside_it(self) -> None:
        many = {f"v{i}": 3.0 + i / 100 for i in range(50)}
        judged = judge(runs_at(5000, many), RACE, step=5000, grid=replace(GRID, entered=50))

        def shown(name: str) -> list[str]:
            return [standing["variant"] for standing in judged[name].evidence["standings"]]  # type: ignore[union-attr,index,call-overload,misc]

        best = [f"v{i}" for i in range(20)]
        assert shown("v0") == shown("v18") == shown("control") == best
        assert shown("v19") == [*best, "v20"]
        assert shown("v20") == [*best, "v20", "v21"]
        assert shown("v30") == [*best, "v29", "v30", "v31"]
        assert shown("v49") == [*best, "v48", "v49"]
        assert judged["v30"].evidence["standings_count"] == 50
        assert judged["v30"].evidence["rank"] == 31

    def test_the_control_is_in_no_rank_and_counts_in_no_cap(self) -> None:
        """Worst or best, it goes on, and as many variants stay as without it."""
        for loss in (1.0, 9.0):
            runs = [control({4500: 9.0, 5000: loss}), *runs_at(5000, FIVE)[1:]]
            judged = judge(runs, RACE, step=5000, grid=replace(GRID, entered=5))
            assert stopped(judged) == {"v3", "v4"}
            assert (judged["control"].kind, judged["control"].reason) == (DecisionKind.CONTINUE, "control")

    def test_a_diverged_variant_leaves_and_makes_no_room(self) -> None:
        judged = judge(runs_at(5000, FIVE | {"v0": math.nan}), RACE, step=5000, grid=replace(GRID, entered=5))
        assert stopped(judged) == {"v0", "v4"}
        assert "no finite eval loss" in judged["v0"].text

    def test_those_that_are_out_are_in_no_rank(self) -> None:
        runs = runs_at(5000, FIVE)
        judged = judge(
            runs, RACE, step=5000, grid=replace(GRID, entered=5), out=runs_at(5000, {"w": 1.0})[1:]
        )
        assert stopped(judged) == {"v3", "v4"}

    def test_later_evaluations_are_not_looked_at(self) -> None:
        runs = runs_at(5000, FIVE)
        moved = runs[-1].evaluations[-1].model_copy(update={"step": 5500, "eval_loss": 0.1})
        later = replace(runs[-1], evaluations=(*runs[-1].evaluations, moved))
        assert judge([*runs[:-1], later], RACE, step=5000) == judge(runs, RACE, step=5000)

    def test_a_run_that_has_not_come_is_an_error_and_not_a_loser(self) -> None:
        runs = [*runs_at(5000, FIVE), curve("late", {4500: 3.0})]
        with pytest.raises(ValueError, match=r"late.* has no evaluation at step 5000"):
            judge(runs, RACE, step=5000)

    def test_seeds_are_judged_together_by_their_mean(self) -> None:
        first = runs_at(5000, {"a": 3.1, "b": 3.0, "c": 3.1}, seed=0)
        second = runs_at(5000, {"a": 3.1, "b": 3.5, "c": 3.2}, seed=1)
        judged = judge([*first, *second], RACE, step=5000, grid=replace(GRID, entered=3))
        assert stopped(judged) == {"b/0", "b/1"}
        assert judged["b/0"] == judged["b/1"]
        assert "mean over 2 seeds: eval loss 3.250" in judged["b/0"].text

    def test_without_the_field_a_rule_of_the_field_says_nothing(self) -> None:
        found = judge_evaluation(runs_at(5000, FIVE)[-1], stage=replace(CONFIRM, steps=6000), policy=RACE)
        assert found.kind is DecisionKind.CONTINUE
        assert "judged at points, when all have come to the step" in found.text


class TestSoundness:
    def test_who_is_not_comparable_is_not_ranked_and_says_why(self) -> None:
        odd = curve("odd", {5000: 1.0}, who=identity(evaluation_set="set-b"))
        judged = judge([*runs_at(5000, FIVE), odd], RACE, step=5000, grid=replace(GRID, entered=5))
        assert stopped(judged) == {"v3", "v4"}
        assert (judged["odd"].kind, judged["odd"].verdict) == (DecisionKind.CONTINUE, Verdict.INVALID)
        assert "their evaluation sets differ" in judged["odd"].text

    def test_losses_are_compared_at_matched_tokens(self) -> None:
        """`wide` trains twice the tokens a step: at step 1,000 it is ranked by its loss at step 500."""
        wide = curve(
            "wide",
            {500: 4.0, 1000: 3.0},
            who=identity(tokens_per_step=2 * TOKENS_PER_STEP, horizon_step=25_000),
            changes={s: {"tokens": 2 * s * TOKENS_PER_STEP} for s in (500, 1000)},
        )
        narrow = [curve(name, {500: 4.0, 1000: loss}) for name, loss in (("a", 3.5), ("b", 3.6))]
        rung = with_rules(RACE, stop={"criterion": "outside_rung"})
        judged = judge([*narrow, wide], rung, step=1000, grid=replace(GRID, entered=6))
        assert stopped(judged) == {"wide"}
        assert "eval loss 4.000 is rank 3 of 3 at 32,768,000 tokens" in judged["wide"].text

    def test_without_a_loss_there_nobody_is_dropped(self) -> None:
        wide = curve(
            "wide",
            {1000: 3.0},
            who=identity(tokens_per_step=2 * TOKENS_PER_STEP, horizon_step=25_000),
            changes={1000: {"tokens": 2000 * TOKENS_PER_STEP}},
        )
        narrow = [curve(name, {1000: loss}) for name, loss in (("a", 3.5), ("b", 3.6))]
        rung = with_rules(RACE, stop={"criterion": "outside_rung"})
        judged = judge([*narrow, wide], rung, step=1000, grid=replace(GRID, entered=6))
        assert stopped(judged) == set()
        assert "wide has no evaluation at 32,768,000 tokens" in judged["a"].text


def plateaued(name: str, level: float, last: int = 5000, **changes: object) -> object:
    losses = {500 * i: level for i in range(1, last // 500 + 1)}
    return curve(name, losses, train_loss=flat(level, last), **changes)  # type: ignore[arg-type]


class TestCalibrated:
    POLICY = POLICIES["calibrated"]

    def decide(self, gap: float, step: int = 5000, third: float = 3.4, **changes: object) -> set[str]:
        """`a` leads, `b` is behind it by the gap and `c` is third; all stand still."""
        losses = {"a": 3.0, "b": 3.0 + gap, "c": third}
        runs = [plateaued(name, level, step, **changes) for name, level in losses.items()]
        anchor = plateaued("control", 3.1, step, control=True, **changes)
        return stopped(judge([anchor, *runs], self.POLICY, step=step))  # type: ignore[list-item]

    def test_a_plateau_behind_the_leader_by_more_than_noise_leaves(self) -> None:
        """2 * sqrt(2) * 0.003 is 0.00849."""
        assert self.decide(gap=0.0085) == {"b", "c"}
        assert self.decide(gap=0.0084) == {"c"}

    def test_the_two_best_are_never_stopped_before_half_of_their_stage(self) -> None:
        assert self.decide(gap=0.3, step=7500) == {"c"}

    def test_never_during_warm_up_or_decay(self) -> None:
        assert self.decide(gap=0.3, who=identity(warmup_steps=6000)) == set()
        assert self.decide(gap=0.3, who=identity(decay_from_step=5000)) == set()

    def test_what_still_improves_stays_however_far_behind(self) -> None:
        better = curve("c", {500 * i: 9.0 - 0.1 * i for i in range(1, 11)}, train_loss=flat(9.0, 5000))
        runs = [plateaued("control", 3.1, control=True), plateaued("a", 3.0), plateaued("b", 3.3), better]
        assert stopped(judge(runs, self.POLICY, step=5000)) == {"b"}  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("step", "margin"),
        [(1000, 3 * 2**0.5 * 0.005), (5000, 3 * 2**0.5 * 0.003), (45_000, 0.01)],
    )
    def test_promotion_asks_for_three_deviations_of_a_difference(self, step: int, margin: float) -> None:
        """`max(0.01, 3 * sqrt(2) * sigma)`; sigma is 0.005 up to 1k steps, 0.003 after, 0.0015 at the end."""
        for lead, verdict in ((margin, Verdict.PASS), (margin - 1e-4, Verdict.FAIL)):
            case = paired_case([curve("a", {step: 4.0 - lead})], [control({step: 4.0})], step, self.POLICY)
            beats = ask(self.POLICY.promote, case).parts[0]
            assert (beats.name, beats.verdict) == ("beats_control", verdict)
            assert beats.threshold == pytest.approx(margin)

    def test_two_seeds_of_the_control_say_the_noise(self) -> None:
        """A deviation of 0.0141 makes 3 * sqrt(2) * sigma of it 0.06."""
        seeds = [control({1000: 4.0}, seed=0), control({1000: 4.02}, seed=1)]
        case = paired_case([curve("a", {1000: 3.95})], seeds, 1000, self.POLICY)
        beats = ask(self.POLICY.promote, case).parts[0]
        assert beats.threshold == pytest.approx(0.06)
        assert beats.verdict is Verdict.FAIL

    def test_own_criteria_alone_are_a_plateau_and_no_rank(self) -> None:
        either = with_rules(
            self.POLICY, stop={"any": [{"criterion": "plateau"}, {"criterion": "outside_rung"}]}
        )
        runs = [plateaued("control", 3.1, control=True), plateaued("a", 3.0)]
        judged = judge(runs, either, step=5000)  # type: ignore[arg-type]
        assert judged["a"].reason == "plateau"


class TestAtAGate:
    """A gate's own step is judged by the gate; the field says there who has left the race."""

    def left(self, policy: Policy, variant: str) -> bool:
        runs = runs_at(5000, FIVE)
        field = field_of(runs, order=list(FIVE), step=5000, grid=replace(GRID, entered=5), policy=policy)
        assert not isinstance(field, Unmatched)
        (subject,) = [run for run in runs if run.variant == variant]
        case = replace(paired_case([subject], runs[:1], 5000, policy), field=field)
        return leaves_at_gate(policy, case) is not None

    def test_what_the_race_drops_is_not_eligible(self) -> None:
        assert not self.left(RACE, "v2")
        assert self.left(RACE, "v3")

    def test_a_promote_rule_that_asks_for_something_goes_before_a_stop(self) -> None:
        assert not self.left(with_rules(RACE, promote={"criterion": "beats_control"}), "v3")

    def test_a_policy_that_compares_no_variants_drops_nobody(self) -> None:
        assert not self.left(STAGE_GATE, "v4")


def test_a_point_of_the_control_alone() -> None:
    (only,) = judge_point(
        entrants(control({5000: 4.0})), step=5000, stage=CONFIRM, grid=GRID, order=(), policy=RACE
    ).values()
    assert only.reason == "control"
