"""The own-curve criteria of `calibrated`: a plateau within noise, outside warm-up and decay."""

from typing import Any

import pytest
from rule_builders import case, curve, identity, result

from orchestrator.domain.evidence import Verdict

STEPS = [500 * i for i in range(1, 7)]


def plateau(*losses: float, sigma: float = 0.0, **numbers: Any) -> Verdict:
    subject = curve("a", dict(zip(STEPS, losses, strict=False)))
    found: Verdict = result({"criterion": "plateau", **numbers}, case(subject, sigma=sigma)).verdict
    return found


@pytest.mark.parametrize(
    ("last", "sigma", "verdict"),
    [
        (3.998, 0.0, Verdict.PASS),  # fell by 0.002, at equality
        (3.9979, 0.0, Verdict.FAIL),
        (3.994, 0.003, Verdict.PASS),  # max(0.002, 2 * 0.003)
        (3.9939, 0.003, Verdict.FAIL),
        (4.5, 0.0, Verdict.PASS),  # a rise is no improvement
    ],
)
def test_the_best_fell_by_no_more_than_noise_over_five_evaluations(
    last: float, sigma: float, verdict: Verdict
) -> None:
    assert plateau(4.0, 4.0, 4.0, 4.0, 4.0, last, sigma=sigma) is verdict


def test_six_evaluations_are_needed() -> None:
    assert plateau(4.0, 4.0, 4.0, 4.0, 4.0) is Verdict.INCONCLUSIVE
    assert plateau(4.0, 4.0, evaluations=1) is Verdict.PASS


def test_nothing_finite_to_improve_on() -> None:
    assert plateau(*[float("nan")] * 5, 4.0) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (500, Verdict.FAIL),
        (1000, Verdict.PASS),
        (39_500, Verdict.PASS),
        (40_000, Verdict.FAIL),
        (50_000, Verdict.FAIL),
    ],
)
def test_never_in_warm_up_or_in_the_last_decay(step: int, verdict: Verdict) -> None:
    who = identity(warmup_steps=1000, decay_from_step=40_000)
    found = result({"criterion": "outside_phases"}, case(curve("a", {step: 4.0}, who=who)))
    assert found.verdict is verdict
    assert f"{step:,}" in found.text


@pytest.mark.parametrize("who", [None, identity()])
def test_a_trainer_that_names_no_phase_has_none_to_wait_for(who: Any) -> None:
    found = result({"criterion": "outside_phases"}, case(curve("a", {500: 4.0}, who=who)))
    assert found.verdict is Verdict.PASS
