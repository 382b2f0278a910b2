"""Pooled noise and margins in standard deviations, against figures worked out by hand."""

import json
import math

import pytest
from rule_builders import ROOT

from orchestrator.rules.calibrate import (
    MARGINS,
    Margin,
    Sigma,
    margins_of,
    noise_by_step,
    pooled_sigma,
    spread_steps,
)
from orchestrator.rules.criteria import CRITERIA
from orchestrator.rules.policies import resolve_policy

KNOWN = {path.stem: json.loads(path.read_text()) for path in (ROOT / "configs" / "policies").glob("*.json")}


def test_the_pooled_deviation_weighs_configs_by_their_degrees_of_freedom() -> None:
    found = pooled_sigma(
        10, {"a": [1.0, 3.0], "b": [5.0, 5.0, 8.0], "alone": [9.0], "broken": [math.nan, 1.0]}
    )
    assert found is not None
    assert found.sigma == pytest.approx(math.sqrt((1 * 2.0 + 2 * 3.0) / 3))
    assert (found.freedom, found.configs, found.runs) == (3, 2, 5)


def test_without_replicates_there_is_no_noise_to_tell() -> None:
    assert pooled_sigma(10, {"a": [1.0], "b": [2.0]}) is None
    runs = [("a", {10: 1.0, 20: 2.0}), ("a", {10: 2.0}), ("b", {20: 1.0})]
    assert [found.step for found in noise_by_step(runs, [10, 20])] == [10]


def test_a_margin_is_told_in_noise_of_one_run_and_of_what_it_is_held_against() -> None:
    margin = Margin("promote.beats_control.margin", 0.05, "difference of two runs")
    noise = [Sigma(1000, 0.00275, 300, 34, 348), Sigma(2900, 0.001, 300, 34, 348)]
    assert margin.in_sigmas(0.00275) == pytest.approx(0.05 / 0.00275 / math.sqrt(2))
    assert (
        margin.sentence(noise[:1])
        == "0.05 is 18 sigma of one run (13 of a difference of two runs) at step 1,000"
    )
    assert margin.sentence(noise).endswith(
        "and 50 sigma of one run (35 of a difference of two runs) at step 2,900"
    )
    assert Margin("x", 0.02, "one run").sentence(noise[:1]) == "0.02 is 7.3 sigma of one run at step 1,000"
    assert Margin("x", 0.02, "one run").sentence([Sigma(1, 0.0, 1, 1, 2)]) == "0.02: the noise is not known"
    assert Margin("x", 0.04, "change of a difference").in_sigmas(0.01) == pytest.approx(2.0)


def test_the_margins_of_a_policy_stand_under_their_places_in_the_document() -> None:
    found = {margin.field: margin.value for margin in margins_of(resolve_policy("stage-gate", KNOWN))}
    assert found == {
        "stop.all[0].no_improvement.threshold": 0.02,
        "promote.any[0].beats_control.margin": 0.05,
        "promote.any[1].all[0].same_loss.floor": 0.005,
        "ties.floor": 0.005,
    }
    fields = {margin.field for margin in margins_of(resolve_policy("calibrated", KNOWN))}
    assert {"stop.all[0].plateau.floor", "stop.all[4].behind_leader.floor"} <= fields


@pytest.mark.parametrize(("criterion", "name"), list(MARGINS))
def test_every_margin_is_a_number_of_a_registered_criterion(criterion: str, name: str) -> None:
    assert isinstance(CRITERIA[criterion].params.model_fields[name].default, float)


def test_a_few_steps_are_spread_over_all() -> None:
    assert spread_steps([5, 1, 3]) == [1, 3, 5]
    assert spread_steps(range(0, 1000, 10), at_most=3) == [0, 500, 990]
