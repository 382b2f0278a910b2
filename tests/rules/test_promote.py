"""Protocol 4 and 7: comparisons with the control, at their boundaries."""

import math
from typing import Any

import pytest
from rule_builders import Case, case, control, curve, identity, result

from orchestrator.domain.evidence import Verdict

PASS, FAIL, OPEN, INVALID = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID
BEATS = {"criterion": "beats_control"}
SAME = {"criterion": "same_loss"}
FIRST = {"criterion": "first_gap"}
WIDENING = {"criterion": "non_widening"}


def at_1000(mine: float, theirs: float, **changes: Any) -> Case:
    return case(curve("a", {1000: mine}), control({1000: theirs}), **changes)


class TestBeatsControl:
    @pytest.mark.parametrize(
        ("mine", "theirs", "verdict"),
        [
            pytest.param(3.20, 3.25, PASS, id="equality: 3.25 - 3.20 >= 0.05 passes in spite of floats"),
            pytest.param(3.2001, 3.25, FAIL, id="just short"),
            pytest.param(3.0, 3.25, PASS, id="well ahead"),
            pytest.param(3.25, 3.25, FAIL, id="level"),
            pytest.param(3.40, 3.25, FAIL, id="behind"),
            pytest.param(3.20, math.nan, OPEN, id="the control's loss is not finite"),
        ],
    )
    def test_clause(self, mine: float, theirs: float, verdict: Verdict) -> None:
        assert result(BEATS, at_1000(mine, theirs)).verdict is verdict

    def test_without_the_tolerance_floats_would_decide(self) -> None:
        assert not 3.25 - 3.20 >= 0.05
        assert result(BEATS, at_1000(3.20, 3.25, tolerance=0.0)).verdict is FAIL

    def test_the_sentence(self) -> None:
        text = result(BEATS, case(curve("a", {1500: 4.357}), control({1500: 4.279}))).text
        assert text == (
            "eval loss 4.357 is 0.078 above the control's 4.279 at step 1500; promotion needs 0.050 below"
        )

    def test_the_margin_can_come_from_noise(self) -> None:
        noisy = at_1000(3.20, 3.25, sigma=0.02)
        assert result(BEATS, noisy).verdict is PASS
        assert result(BEATS | {"sigmas": 3.0}, noisy).threshold == pytest.approx(3 * math.sqrt(2) * 0.02)

    def test_same_step_not_latest(self) -> None:
        ahead = control({1000: 3.25, 1500: 2.0})
        assert result(BEATS, case(curve("a", {1000: 3.2}), ahead)).verdict is PASS

    def test_best_so_far_is_not_what_counts(self) -> None:
        spiked = curve("a", {500: 3.0, 1000: 3.25})
        assert result(BEATS, case(spiked, control({500: 3.5, 1000: 3.25}))).verdict is FAIL

    @pytest.mark.parametrize(
        "theirs", [control({500: 3.25}), control({}), None], ids=["not there yet", "nothing", "no control"]
    )
    def test_a_missing_control_evaluation_is_inconclusive(self, theirs: Any) -> None:
        assert result(BEATS, case(curve("a", {1000: 3.0}), theirs)).verdict is OPEN

    @pytest.mark.parametrize(
        "changes",
        [
            {"evaluation_set": "set-b"},
            {"tokenizer": "other"},
            {"schedule_family": "linear"},
            {"horizon_step": 1000},
        ],
        ids=["evaluation set", "tokenizer", "schedule family", "horizon: 1k is no prefix of 50k"],
    )
    def test_not_comparable_is_invalid_with_the_reason(self, changes: dict[str, Any]) -> None:
        found = result(BEATS, case(curve("a", {1000: 3.0}, who=identity(**changes)), control({1000: 3.5})))
        assert found.verdict is INVALID
        assert "not compared" in found.text

    def test_other_tokens_per_step_compares_at_the_same_tokens(self) -> None:
        half = control(
            {1000: 3.6, 2000: 3.25},
            who=identity(tokens_per_step=16_384, horizon_step=100_000),
            changes={step: {"tokens": step * 16_384} for step in (1000, 2000)},
        )
        found = result(BEATS, case(curve("a", {1000: 3.2}), half))
        assert found.verdict is PASS
        assert "32,768,000 tokens" in found.text

    def test_an_interpolated_reference_says_so(self) -> None:
        found = result(BEATS, case(curve("a", {1000: 3.2}), control({800: 3.5, 1200: 3.2})))
        assert found.verdict is PASS
        assert "(interpolated)" in found.text


class TestSameLoss:
    @pytest.mark.parametrize(
        ("gap", "sigma", "verdict"),
        [
            pytest.param(0.005, 0.0, PASS, id="equality above"),
            pytest.param(-0.005, 0.0, PASS, id="equality below"),
            pytest.param(0.0051, 0.0, FAIL, id="just outside"),
            pytest.param(-0.0051, 0.0, FAIL, id="just outside below"),
            pytest.param(2 * math.sqrt(2) * 0.01, 0.01, PASS, id="equality with 2 sqrt 2 sigma"),
            pytest.param(0.029, 0.01, FAIL, id="outside 2 sqrt 2 sigma"),
            pytest.param(0.005, 0.0001, PASS, id="the floor under a small sigma"),
        ],
    )
    def test_clause(self, gap: float, sigma: float, verdict: Verdict) -> None:
        assert result(SAME, at_1000(3.25 + gap, 3.25, sigma=sigma)).verdict is verdict


class TestFirstGap:
    @pytest.mark.parametrize(
        ("mine", "verdict"),
        [
            pytest.param(5.35, PASS, id="equality at 0.10"),
            pytest.param(5.3501, FAIL, id="just above"),
            pytest.param(5.0, PASS, id="a lead"),
        ],
    )
    def test_clause(self, mine: float, verdict: Verdict) -> None:
        assert result(FIRST, case(curve("a", {500: mine}), control({500: 5.25}))).verdict is verdict

    def test_it_is_the_first_evaluation_that_counts(self) -> None:
        late = curve("a", {0: 11.5, 500: 5.3, 1000: 5.2})
        assert result(FIRST, case(late, control({0: 11.0, 500: 5.25, 1000: 4.5}))).verdict is PASS

    def test_before_any_evaluation_it_is_inconclusive(self) -> None:
        assert result(FIRST, case(curve("a", {}), control({500: 5.0}), step=500)).verdict is OPEN
        assert result(FIRST, case(curve("a", {500: 5.0}), control({}))).verdict is OPEN


class TestNonWidening:
    @pytest.mark.parametrize(
        ("first", "last", "sigma", "verdict"),
        [
            pytest.param(0.08, 0.09, 0.0, PASS, id="equality: grown by 0.01"),
            pytest.param(0.08, 0.0901, 0.0, FAIL, id="grown by more"),
            pytest.param(0.08, 0.02, 0.0, PASS, id="closing"),
            pytest.param(-0.2, -0.05, 0.0, PASS, id="a shrinking lead is no widening"),
            pytest.param(-0.2, 0.01, 0.0, PASS, id="from a lead to 0.01 behind"),
            pytest.param(-0.2, 0.02, 0.0, FAIL, id="from a lead to 0.02 behind"),
            pytest.param(0.08, 0.10, 0.01, PASS, id="grown within 2 sqrt 2 sigma"),
            pytest.param(0.08, 0.12, 0.01, FAIL, id="grown beyond 2 sqrt 2 sigma"),
        ],
    )
    def test_clause(self, first: float, last: float, sigma: float, verdict: Verdict) -> None:
        mine = curve("a", {500: 5.0 + first, 1000: 4.0 + last})
        judged = case(mine, control({500: 5.0, 1000: 4.0}), sigma=sigma)
        assert result(WIDENING, judged).verdict is verdict

    def test_one_evaluation_is_inconclusive(self) -> None:
        assert result(WIDENING, case(curve("a", {500: 5.0}), control({500: 5.0}))).verdict is OPEN

    def test_a_missing_control_evaluation_is_inconclusive(self) -> None:
        mine = curve("a", {500: 5.1, 1000: 4.1})
        assert result(WIDENING, case(mine, control({1000: 4.0}))).verdict is OPEN
        assert result(WIDENING, case(mine, control({500: 5.0}))).verdict is OPEN


def test_seeds_are_judged_on_the_paired_mean() -> None:
    pairs = (
        (curve("a", {1000: 3.10}, seed=0), control({1000: 3.25}, seed=0)),
        (curve("a", {1000: 3.35}, seed=1), control({1000: 3.30}, seed=1)),
    )
    found = result(BEATS, Case(pairs, 1000))
    assert found.verdict is PASS  # -0.15 and +0.05: 0.05 below on the mean
    assert found.text.startswith("mean over 2 seeds: eval loss 3.225 is 0.050 below the control's 3.275")
