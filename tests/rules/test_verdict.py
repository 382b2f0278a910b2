"""Protocol 8 and its seeds: paired means with their confidence, and the time to a loss."""

import math

import pytest
from rule_builders import curve

from orchestrator.domain.curves import Curve
from orchestrator.rules.verdict import (
    Interval,
    Reached,
    mean_over_seeds,
    percent_change,
    t_975,
    time_to_loss,
)


@pytest.mark.parametrize(
    ("degrees", "known"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (31, 2.0395), (40, 2.0211)],
)
def test_the_quantile_of_student(degrees: int, known: float) -> None:
    assert t_975(degrees) == pytest.approx(known, abs=6e-5)


def test_the_quantile_falls_towards_the_normals() -> None:
    quantiles = [t_975(degrees) for degrees in range(1, 200)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert t_975(10**6) == pytest.approx(1.959964, abs=1e-5)
    with pytest.raises(ValueError, match="two values"):
        t_975(0)


def test_a_mean_with_its_interval() -> None:
    found = mean_over_seeds([0.10, 0.14, 0.12])
    half = 4.3027 * 0.02 / math.sqrt(3)  # s = 0.02, two degrees of freedom
    assert found.mean == pytest.approx(0.12)
    assert found.low == pytest.approx(0.12 - half)
    assert found.high == pytest.approx(0.12 + half)
    assert found.seeds == 3


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert mean_over_seeds([0.3]) == Interval(0.3, None, None, 1)
    with pytest.raises(ValueError, match="one value"):
        mean_over_seeds([])


def test_seeds_that_agree_have_an_interval_of_no_width() -> None:
    assert mean_over_seeds([0.25, 0.25]) == Interval(0.25, 0.25, 0.25, 2)


def timed(losses: dict[int, float]) -> Curve:
    return curve("half", losses, changes={step: {"wall_seconds": float(step)} for step in losses})


def test_the_time_to_a_loss_is_interpolated_log_log() -> None:
    found = time_to_loss(timed({100: 8.0, 200: 4.0}), math.sqrt(32.0))
    assert found is not None
    assert found.how == "interpolated"
    assert found.seconds == pytest.approx(100 * math.sqrt(2))


def test_a_loss_that_was_measured_is_taken_as_it_is() -> None:
    assert time_to_loss(timed({100: 4.0, 200: 3.5}), 3.5) == Reached(200.0, "measured")


@pytest.mark.parametrize("losses", [{100: 3.0}, {100: 5.0, 300: 3.0}, {0: 9.0, 100: 3.0}])
def test_a_time_is_never_extrapolated(losses: dict[int, float]) -> None:
    last = max(losses)
    assert time_to_loss(timed(losses), 4.0) == Reached(float(last), "at_most")


def test_a_loss_that_was_not_reached_has_no_time() -> None:
    assert time_to_loss(timed({100: 4.0, 200: 3.9}), 3.5) is None
    assert time_to_loss(timed({100: 4.0, 200: math.nan}), 3.5) is None


def test_the_first_time_counts_where_the_loss_rises_again() -> None:
    found = time_to_loss(timed({100: 5.0, 200: 3.0, 300: 4.5, 400: 3.0}), 4.0)
    assert found is not None
    assert 100 < found.seconds < 200


@pytest.mark.parametrize(
    ("value", "control", "expected"),
    [
        (150, 100, 50.0),
        (50, 100, -50.0),
        (None, 100, None),
        (50, None, None),
        (50, 0, None),
        (math.nan, 1, None),
    ],
)
def test_the_change_against_the_control(
    value: float | None, control: float | None, expected: float | None
) -> None:
    assert percent_change(value, control) == (None if expected is None else pytest.approx(expected))
