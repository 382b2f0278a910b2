"""The criteria of a race, clause by clause: `race`, `successive-halving` and `asha` in numbers."""

import math
from dataclasses import replace

import pytest
from point_builders import GRID, drops, points_of, standings

from orchestrator.rules.criteria import Grid
from orchestrator.rules.criteria_field import OutsideRace, race_cap

EIGHT = standings(3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.7)


class TestRace:
    @pytest.mark.parametrize(
        ("step", "cap"),
        [
            (500, 8),  # before 0.04 R nobody leaves
            (1500, 8),
            (2000, 7),  # ceil(8 * sqrt(0.025 * 50,000 / 2,000)) = ceil(6.32)
            (5000, 4),  # 8 * sqrt(0.25), exactly 4
            (5500, 4),
            (20_000, 2),
            (24_500, 2),
            (25_000, 2),  # ceil(1.79): the square root still says 2
            (49_500, 2),
        ],
    )
    def test_the_cap_shrinks_with_the_square_root_of_the_budget(self, step: int, cap: int) -> None:
        assert race_cap(OutsideRace(), step, GRID) == cap
        assert drops("outside_race", EIGHT, step) == {f"v{i}" for i in range(cap, 8)}

    def test_two_stay_up_to_half_of_the_budget_and_one_from_there(self) -> None:
        few = replace(GRID, entered=4)
        assert race_cap(OutsideRace(f0=0.015), 24_500, few) == 2
        assert race_cap(OutsideRace(f0=0.015), 25_000, few) == 1
        assert drops("outside_race", EIGHT[:2], 25_000, few, f0=0.015) == {"v1"}

    def test_f0_is_the_one_knob(self) -> None:
        caps = [race_cap(OutsideRace(f0=f0), 5000, replace(GRID, entered=100)) for f0 in (0.015, 0.025, 0.04)]
        assert caps == [39, 50, 64]

    def test_the_points_are_where_the_cap_changes_and_no_others(self) -> None:
        found = points_of("outside_race")
        caps = [race_cap(OutsideRace(), step, GRID) for step in range(500, 50_000, 500)]
        changes = [500 * (i + 1) for i in range(1, len(caps)) if caps[i] < caps[i - 1]]
        assert list(found) == changes
        assert found[0] == 2000

    @pytest.mark.parametrize("entered", [1, 2])
    def test_a_field_that_fits_has_no_point_before_half(self, entered: int) -> None:
        assert all(point >= 25_000 for point in points_of("outside_race", replace(GRID, entered=entered)))

    def test_diverged_runs_leave_at_once_and_count_in_no_rank(self) -> None:
        field = standings(math.inf, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.7)
        assert drops("outside_race", field, 500) == {"v0"}
        assert drops("outside_race", field, 5000) == {"v0", "v5", "v6", "v7"}

    def test_equal_losses_go_by_the_plans_order(self) -> None:
        field = standings(*[3.0] * 8)
        assert drops("outside_race", field, 5000) == {"v4", "v5", "v6", "v7"}
        assert drops("outside_race", field[::-1], 5000) == {"v4", "v5", "v6", "v7"}

    def test_a_long_horizon_with_dense_evaluations_is_no_long_loop(self) -> None:
        found = points_of("outside_race", Grid(every=1, stages=(10**9,), entered=1000))
        assert 0 < len(found) < 1000


class TestRungs:
    def test_each_rung_keeps_one_in_eta_of_those_that_entered(self) -> None:
        nine = standings(*[3 + i / 10 for i in range(9)])
        grid = replace(GRID, entered=9)
        assert drops("outside_rung", nine, 500, grid) == set()
        assert drops("outside_rung", nine, 1000, grid) == {f"v{i}" for i in range(3, 9)}
        assert drops("outside_rung", nine, 5000, grid) == {f"v{i}" for i in range(1, 9)}

    def test_it_rounds_up_and_keeps_at_least_one(self) -> None:
        assert drops("outside_rung", EIGHT, 1000) == {f"v{i}" for i in range(3, 8)}  # ceil(8 / 3)
        assert drops("outside_rung", EIGHT[:3], 5000, eta=100.0) == {"v1", "v2"}

    def test_a_rung_is_the_first_evaluation_at_or_after_its_share(self) -> None:
        grid = Grid(every=125, stages=(4875,), entered=8)
        assert points_of("outside_rung", grid) == (125, 500)  # 97.5 and 487.5
        assert points_of("outside_rung") == (1000, 5000)

    def test_shares_that_share_an_evaluation_are_one_rung(self) -> None:
        grid = Grid(every=500, stages=(2000,), entered=9)
        assert points_of("outside_rung", grid, at=[0.02, 0.1, 0.5]) == (500, 1000)

    def test_the_gates_may_be_the_rungs(self) -> None:
        assert points_of("outside_rung", at="stages") == (1000, 5000)
        assert drops("outside_rung", EIGHT, 1000, at="stages") == {f"v{i}" for i in range(3, 8)}

    def test_four_rungs(self) -> None:
        assert points_of("outside_rung", at=[0.04, 0.1, 0.2, 0.4]) == (2000, 5000, 10_000, 20_000)


class TestAsha:
    def test_each_is_compared_with_those_before_it_in_the_plan(self) -> None:
        """The first is alone and stays; a later one stays if it is in the best third of those up to it."""
        field = standings(3.5, 3.4, 3.3, 3.6, 3.2, 3.7, 3.1)
        # 3.5 of 1 keeps 1; 3.4 of 2 keeps 1: best; 3.3 best; 3.6 not; 3.2 best; 3.7 not of 2; 3.1 best
        assert drops("outside_asha", field, 1000) == {"v3", "v5"}

    def test_a_good_start_is_hard_to_follow(self) -> None:
        # v1 to v4 are compared with 1 of 2..5 kept; v5 to v7 with 2 of 6..8: v1 was second, and too early
        assert drops("outside_asha", EIGHT, 1000) == {f"v{i}" for i in range(1, 8)}

    def test_between_rungs_nobody_leaves_but_the_diverged(self) -> None:
        assert drops("outside_asha", standings(3.0, math.inf, 4.0), 1500) == {"v1"}

    def test_the_diverged_count_in_no_rank(self) -> None:
        field = standings(math.inf, 3.1, math.inf, 3.0)
        assert drops("outside_asha", field, 1000) == {"v0", "v2"}  # 3.0 is the best of 2

    def test_its_rungs_are_those_of_successive_halving(self) -> None:
        assert points_of("outside_asha") == points_of("outside_rung") == (1000, 5000)
