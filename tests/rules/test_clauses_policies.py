"""Clause by clause: the policies that are offered beside the protocol as written."""

import math
from dataclasses import replace
from typing import Any

import pytest
from point_builders import GRID, drops, judge, points_of, runs_at, standings, stopped
from rule_builders import (
    CONFIRM,
    POLICIES,
    control,
    curve,
    entrants,
    flat,
    identity,
)

from orchestrator.domain.curves import Curve
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.cases import own_case, paired_case
from orchestrator.rules.criteria_field import OutsideRace, race_cap
from orchestrator.rules.gate import close_stage
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.nodes import ask, leaves
from orchestrator.rules.point import points
from orchestrator.rules.policies import sigma_at

PASS, FAIL = Verdict.PASS, Verdict.FAIL


def still(name: str, level: float, steps: int = 2000, **changes: Any) -> Curve:
    losses = dict.fromkeys(range(250, steps + 1, 250), level)
    return curve(name, losses, **({"train_loss": flat(level, steps)} | changes))


class TestCalibrated:
    POLICY = POLICIES["calibrated"]

    @pytest.mark.parametrize(
        ("step", "sigma"), [(1000, 0.005), (1001, 0.003), (40_000, 0.003), (40_001, 0.0015), (50_000, 0.0015)]
    )
    def test_policy_calibrated_sigma_by_step_and_from_two_seeds(self, step: int, sigma: float) -> None:
        assert sigma_at(self.POLICY, step, 50_000) == sigma
        subject, one, two = curve("a", {step: 4.0}), control({step: 4.0}), control({step: 4.02}, seed=1)
        assert paired_case([subject], [one], step, self.POLICY).sigma == sigma
        assert paired_case([subject], [one, two], step, self.POLICY).sigma == pytest.approx(0.02 / 2**0.5)

    @pytest.mark.parametrize(
        ("step", "margin"), [(1000, 3 * 2**0.5 * 0.005), (5000, 3 * 2**0.5 * 0.003), (45_000, 0.01)]
    )
    def test_policy_calibrated_promotes_beyond_three_deviations(self, step: int, margin: float) -> None:
        for lead, verdict in ((margin, PASS), (margin - 1e-5, FAIL)):
            judged = paired_case([curve("a", {step: 4.0 - lead})], [control({step: 4.0})], step, self.POLICY)
            assert ask(self.POLICY.promote, judged).parts[0].verdict is verdict

    @pytest.mark.parametrize(
        ("step", "limit"),
        [(4000, 0.006), (45_000, 0.003)],  # 2 * sigma, above the floor of 0.002
    )
    def test_policy_calibrated_plateau_is_two_deviations_over_five_evaluations(
        self, step: int, limit: float
    ) -> None:
        for fall, verdict in ((limit, PASS), (limit + 1e-5, FAIL)):
            losses = {step - 500 * i: 4.0 for i in range(5, 0, -1)} | {step: 4.0 - fall}
            found = ask(self.POLICY.stop, own_case(curve("a", losses), step, self.POLICY))
            assert found.parts[0].verdict is verdict
        quiet = own_case(curve("a", {i: 4.0 - 0.002 * (i == 6) for i in range(1, 7)}), 6, self.POLICY)
        assert ask(self.POLICY.stop, replace(quiet, sigma=0.0)).parts[0].verdict is PASS  # the floor itself

    def stops(self, losses: dict[str, float], step: int, **changes: Any) -> set[str]:
        runs = [still(name, level, step, **changes) for name, level in losses.items()]
        return stopped(judge([still("control", 3.0, step, control=True), *runs], self.POLICY, step=step))

    def test_policy_calibrated_stops_what_is_behind_the_leader_by_more_than_noise(self) -> None:
        limit = 2 * math.sqrt(2) * 0.003
        assert self.stops({"a": 3.0, "b": 3.0, "c": 3.0 + limit}, 2750) == set()
        assert self.stops({"a": 3.0, "b": 3.0, "c": 3.0 + limit + 1e-5}, 2750) == {"c"}

    def test_policy_calibrated_spares_the_best_two_before_half_of_their_stage(self) -> None:
        """`confirm` goes from 1,000 to 5,000: its half is at step 3,000; that of `long` at 27,500."""
        three = {"a": 3.0, "b": 3.2, "c": 3.4}
        for step, gone in ((2750, {"c"}), (3000, {"b", "c"}), (7500, {"c"}), (27_500, {"b", "c"})):
            assert self.stops(three, step) == gone

    def test_policy_calibrated_never_stops_in_warm_up_or_decay(self) -> None:
        three = {"a": 3.0, "b": 3.2, "c": 3.4}
        for step, phases, gone in (
            (2750, {"warmup_steps": 2751}, set()),
            (2750, {"warmup_steps": 2750}, {"c"}),
            (2750, {"decay_from_step": 2750}, set()),
            (2750, {"decay_from_step": 2751}, {"c"}),
        ):
            assert self.stops(three, step, who=identity(**phases)) == gone


class TestRace:
    @pytest.mark.parametrize(
        ("n", "step", "cap"),
        [
            (8, 1500, 8),  # before 0.04 R
            (8, 2000, 7),  # ceil(8 * sqrt(0.025 * 50,000 / 2,000)) = ceil(6.32)
            (8, 5000, 4),  # 8 * sqrt(0.25)
            (8, 49_500, 2),  # ceil(8 * 0.1589)
            (4, 24_500, 2),  # ceil(0.90) is 1, and at least 2 stay before R / 2
            (4, 25_000, 1),
            (40, 25_000, 9),
        ],
    )
    def test_policy_race_keeps_so_many(self, n: int, step: int, cap: int) -> None:
        grid = replace(GRID, entered=n)
        assert race_cap(OutsideRace(), step, grid) == cap
        field = standings(*[3 + i / 10 for i in range(n)])
        assert drops("outside_race", field, step, grid) == {f"v{i}" for i in range(cap, n)}

    def test_policy_race_has_one_knob(self) -> None:
        (leaf,) = leaves(POLICIES["race"].stop)
        assert leaf.params == OutsideRace(f0=0.025, start=0.04, at_least=2, at_least_late=1, late_share=0.5)
        caps = {f0: race_cap(OutsideRace(f0=f0), 5000, replace(GRID, entered=100)) for f0 in (0.015, 0.04)}
        assert caps == {0.015: 39, 0.04: 64}  # cheap, careful

    def test_policy_race_drops_the_diverged_at_once_and_out_of_every_rank(self) -> None:
        field = standings(math.inf, *[3 + i / 10 for i in range(7)])
        assert drops("outside_race", field, 500) == {"v0"}
        assert drops("outside_race", field, 5000) == {"v0", "v5", "v6", "v7"}

    def test_policy_race_waits_only_where_the_cap_changes(self) -> None:
        caps = {step: race_cap(OutsideRace(), step, GRID) for step in range(500, 50_000, 500)}
        assert points(POLICIES["race"], GRID) == tuple(s for s in caps if s > 500 and caps[s] < caps[s - 500])

    def test_policy_race_ranks_at_matched_tokens(self) -> None:
        who = identity(tokens_per_step=65_536, horizon_step=25_000)
        tokens = {s: {"tokens": s * 65_536} for s in (2500, 5000)}
        wide = curve("wide", {2500: 3.9, 5000: 1.0}, who=who, changes=tokens)
        runs = [*runs_at(5000, {f"v{i}": 3.0 + i / 10 for i in range(4)}), wide]
        assert stopped(judge(runs, POLICIES["race"], step=5000, grid=replace(GRID, entered=5))) == {
            "wide",
            "v3",
        }


def test_policy_successive_halving_keeps_a_third_at_each_rung() -> None:
    nine, grid = standings(*[3 + i / 10 for i in range(9)]), replace(GRID, entered=9)
    assert points(POLICIES["successive-halving"], grid) == (1000, 5000)  # 2% and 10%
    assert drops("outside_rung", nine, 1000, grid) == {f"v{i}" for i in range(3, 9)}
    assert drops("outside_rung", nine, 5000, grid) == {f"v{i}" for i in range(1, 9)}


def test_policy_asha_keeps_the_best_third_of_those_up_to_it() -> None:
    assert points(POLICIES["asha"], GRID) == (1000, 5000)
    assert drops("outside_asha", standings(3.5, 3.4, 3.3, 3.6), 1000) == {"v3"}  # 1 of 1, of 2, of 3, of 4


def test_policy_median_stop_without_the_diverged() -> None:
    """The best so far against the median of the others' means; what diverged is in no median."""
    assert points_of("below_median")[0] == 2500  # every 5 evaluations, from 4% on
    assert drops("below_median", standings(3.0, 3.1, 3.2, 3.3), 2500) == {"v2", "v3"}
    assert drops("below_median", standings(3.0, math.inf, 3.2, math.inf), 2500) == {"v1", "v3"}
    assert drops("below_median", standings(3.0, 3.1), 2500) == set()  # 3 variants at least
    assert drops("below_median", standings(3.0, 3.1, 3.2, 3.3), 1500) == set()


def test_policy_percentile_stop_drops_the_lower_half_of_five() -> None:
    five = standings(3.0, 3.1, 3.2, 3.3, 3.4)
    assert points_of("below_percentile")[0] == 2500
    assert drops("below_percentile", five, 2500) == {"v3", "v4"}  # the median itself stays
    assert drops("below_percentile", five, 1500) == set()
    assert drops("below_percentile", five[:4], 2500) == set()


def test_policy_run_all_stops_nothing_and_promotes_every_sound_run() -> None:
    run_all = POLICIES["run-all"]
    assert judge_evaluation(still("a", 3.5), stage=CONFIRM, policy=run_all).kind.value == "continue"
    runs = [control({5000: 3.0}), *[curve(name, {5000: 9.0}) for name in "abc"]]
    rule = PromoteRule(9)
    assert close_stage(entrants(*runs), stage=CONFIRM, promote=rule, policy=run_all).winners == (
        "a",
        "b",
        "c",
    )
