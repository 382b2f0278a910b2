"""Protocol 8: the parameter-matched verdict."""

import math

import pytest

from orchestrator.rules.bands import Band, Bands, band_of, band_view, perplexity, quality_drop


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (2.99, Band.BETTER),
        (3.0, Band.EXCELLENT),
        (3.0899, Band.EXCELLENT),
        (3.09, Band.GOOD),
        (3.2099, Band.GOOD),
        (3.21, Band.BORDERLINE),
        (3.3, Band.BORDERLINE),
        (3.3001, Band.WEAK),
    ],
)
def test_band_bounds(loss: float, expected: Band) -> None:
    assert band_of(quality_drop(loss, 3.0), Bands()) is expected


@pytest.mark.parametrize(
    ("parameters", "banded"), [(100, False), (61, False), (60, True), (50, True), (40, True), (39, False)]
)
def test_only_for_40_to_60_percent_fewer_parameters(parameters: int, banded: bool) -> None:
    view = band_view(3.0, 3.0, parameters=parameters, control_parameters=100, bands=Bands())
    assert (view.band is not None) is banded


def test_shown_with_the_perplexity_change() -> None:
    view = band_view(3.1, 3.0, parameters=50, control_parameters=100, bands=Bands())
    assert view.quality_drop == pytest.approx(100 * (3.1 / 3.0 - 1))
    assert view.perplexity_change == pytest.approx(100 * (math.exp(0.1) - 1))
    assert view.fewer_parameters == pytest.approx(50)
    assert view.band is Band.GOOD


def test_recorded_perplexity() -> None:
    assert round(perplexity(2.6623), 3) == 14.329


def test_a_diverged_loss_overflows_nothing() -> None:
    assert perplexity(1e6) == math.inf
    assert band_view(1e6, 3.0, parameters=50, control_parameters=100, bands=Bands()).band is Band.WEAK
