"""The criteria of the middle and of the front of the field: median stop, percentile stop, the leader."""

import math
from dataclasses import replace

import pytest
from point_builders import GRID, drops, points_of, runs_at, standings
from rule_builders import POLICIES, with_rules

from orchestrator.rules.cases import field_of
from orchestrator.rules.criteria import Field, Standing
from orchestrator.rules.criteria_median import percentile_of


def at(variant: str, best: float, mean: float) -> Standing:
    return Standing(variant, int(variant[1:]), best, mean, best)


class TestMedian:
    FIELD = (at("v0", 3.0, 4.0), at("v1", 3.1, 4.1), at("v2", 3.2, 4.2), at("v3", 4.5, 4.6))

    def test_a_best_worse_than_the_median_of_the_others_means(self) -> None:
        # the others' means are 4.0, 4.1, 4.2: the median is 4.1, and 4.5 is above it
        assert drops("below_median", self.FIELD, 2500) == {"v3"}

    def test_the_median_itself_is_not_worse(self) -> None:
        field = (*self.FIELD[:3], at("v3", 4.1, 4.6))
        assert drops("below_median", field, 2500) == set()

    def test_with_two_variants_there_is_no_median(self) -> None:
        field = (at("v0", 3.0, 3.0), at("v1", 9.0, 9.0))
        assert drops("below_median", field, 2500) == set()
        assert drops("below_median", field, 2500, min_variants=2) == {"v1"}

    def test_nobody_leaves_in_the_grace_at_the_start(self) -> None:
        assert drops("below_median", self.FIELD, 1500) == set()
        assert drops("below_median", self.FIELD, 1500, start=0.0) == {"v3"}

    def test_diverged_runs_leave_and_move_no_median(self) -> None:
        field = (*self.FIELD, Standing("v4", 4, math.inf, math.inf, 3.0))
        assert drops("below_median", field, 500) == {"v4"}
        assert drops("below_median", field, 2500) == {"v3", "v4"}

    def test_points_come_every_so_many_evaluations_from_the_start_on(self) -> None:
        assert points_of("below_median", replace(GRID, stages=(10_000,))) == (2500, 5000, 7500)
        assert points_of("below_median", replace(GRID, stages=(4000,)), every=1, start=0.5) == (
            2000,
            2500,
            3000,
            3500,
        )


class TestPercentile:
    def test_half_of_the_field_leaves(self) -> None:
        assert drops("below_percentile", standings(3.0, 3.1, 3.2, 3.3, 3.4), 2500) == {"v3", "v4"}

    def test_with_fewer_than_five_nobody_leaves(self) -> None:
        assert drops("below_percentile", standings(3.0, 3.1, 3.2, 9.0), 2500) == set()

    @pytest.mark.parametrize(("percentile", "value"), [(50, 3.5), (25, 2.25), (100, 6.0)])
    def test_percentiles_are_linear_between_values(self, percentile: float, value: float) -> None:
        assert percentile_of([1, 2, 3, 4, 5, 6], percentile) == value


class TestLeader:
    def test_behind_by_more_than_the_noise_of_a_difference(self) -> None:
        """2 * sqrt(2) * 0.003 is 0.0085."""
        grid = replace(GRID, sigma=0.003)
        assert drops("behind_leader", standings(3.0, 3.008, 3.009), 5000, grid) == {"v2"}

    def test_a_gap_of_exactly_the_limit_is_not_above_it(self) -> None:
        assert drops("behind_leader", standings(3.2, 3.25), 5000, floor=0.05) == set()
        assert drops("behind_leader", standings(3.2, 3.2501), 5000, floor=0.05) == {"v1"}

    def test_the_leader_itself_is_never_behind(self) -> None:
        assert drops("behind_leader", standings(3.0, math.inf), 5000) == {"v1"}

    def test_without_a_finite_loss_there_is_no_leader(self) -> None:
        assert drops("behind_leader", standings(math.inf, math.inf), 5000) == {"v0", "v1"}


class TestBest:
    FIELD = standings(3.0, 3.1, 3.2)

    @pytest.mark.parametrize("step", [1500, 2500, 5500, 27_000])
    def test_the_two_best_are_spared_before_half_of_their_stage(self, step: int) -> None:
        assert drops("not_among_best", self.FIELD, step) == {"v2"}

    @pytest.mark.parametrize("step", [500, 1000, 3000, 5000, 27_500, 49_500])
    def test_from_half_of_the_way_to_their_gate_on_nobody_is(self, step: int) -> None:
        assert drops("not_among_best", self.FIELD, step) == {"v0", "v1", "v2"}

    def test_what_diverged_is_not_spared(self) -> None:
        assert drops("not_among_best", standings(math.inf, 3.1), 1500) == {"v0"}


def test_the_tolerance_is_the_policys() -> None:
    """0.004 behind the leader is no gap for a policy whose tolerance is 0.005."""
    field = standings(3.0, 3.004, 3.2)
    assert drops("behind_leader", field, 2500) == {"v1", "v2"}
    assert drops("behind_leader", field, 2500, replace(GRID, tolerance=0.005)) == {"v2"}
    loose = with_rules(POLICIES["calibrated"], tolerance=0.005)
    runs = runs_at(2500, {"v0": 3.0, "v1": 3.004})
    found = field_of(runs, order=["v0", "v1"], step=2500, grid=GRID, policy=loose)
    assert isinstance(found, Field)
    assert found.grid.tolerance == 0.005
