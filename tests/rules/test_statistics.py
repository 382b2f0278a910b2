"""Theil-Sen, smoothing, thinning and seed noise, against what is known of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rules.statistics import apart, seed_noise, theil_sen, thin, trailing_mean


def test_theil_sen_of_a_line_is_its_slope() -> None:
    assert theil_sen([(x, 2 - 0.5 * x) for x in range(30)]) == pytest.approx(-0.5)


def test_theil_sen_shrugs_off_outliers() -> None:
    points = [(float(x), 0.1 * x + (100 if x % 7 == 3 else 0)) for x in range(40)]
    assert theil_sen(points) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]])
def test_theil_sen_needs_two_places(points: list[tuple[float, float]]) -> None:
    assert theil_sen(points) is None


@given(st.integers(3, 2000), st.integers(2, 200))
def test_thinning_keeps_the_ends_and_the_order(count: int, at_most: int) -> None:
    kept = thin([(float(i), 0.0) for i in range(count)], at_most)
    assert len(kept) <= at_most
    assert kept[0][0] == 0
    assert kept[-1][0] == count - 1
    assert kept == sorted(set(kept))


def test_theil_sen_of_a_long_series_stays_exact_on_a_line() -> None:
    assert theil_sen([(x, 3 * x) for x in range(50_000)]) == pytest.approx(3)


def test_trailing_mean_looks_back_only() -> None:
    smoothed = trailing_mean([(1, 4.0), (2, 2.0), (3, 0.0), (4, 10.0)], 2)
    assert smoothed == [(1, 4.0), (2, 3.0), (3, 1.0), (4, 5.0)]


def test_trailing_mean_keeps_the_slope_of_a_line() -> None:
    smoothed = trailing_mean([(x, 5 - 0.01 * x) for x in range(60)], 10)
    assert theil_sen(smoothed[10:]) == pytest.approx(-0.01)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([], None), ([3.0], None), ([3.0, math.nan], None), ([3.0, 3.2], 0.1414213562), ([1.0, 2.0, 3.0], 1.0)],
)
def test_seed_noise_takes_two_seeds(losses: list[float], expected: float | None) -> None:
    found = seed_noise(losses)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (0.078, 0.05, ("0.078", "0.050")),
        (0.0204, 0.02, ("0.0204", "0.0200")),
        (0.049996, 0.05, ("0.049996", "0.050000")),
        (0.020000000000000018, 0.02, ("0.020", "0.020")),
        (0.05, 0.05, ("0.050", "0.050")),
    ],
)
def test_two_numbers_that_differ_are_written_so_that_they_differ(
    value: float, limit: float, said: tuple[str, str]
) -> None:
    assert apart(value, limit) == said
