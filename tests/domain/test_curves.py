"""What is derived from a curve: best so far, moving improvement, matching at the same budget."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.curves import (
    Curve,
    Match,
    Unmatched,
    best_so_far,
    comparable,
    latest_finite,
    loss_at,
    match,
    moving_improvement,
    trained_evaluations,
    upto,
)
from orchestrator.protocol.report import Evaluation, Identity

NAN, INF = math.nan, math.inf
IDENTITY = Identity(
    evaluation_set="set-a",
    tokenizer="gpt2",
    schedule_family="cosine",
    horizon_step=5000,
    tokens_per_step=100,
    parameters_total=10,
    parameters_active=10,
    flops_per_token=20.0,
    device="cpu",
)


def curve(losses: dict[int, float], name: str = "a", per_step: int = 100, **changes: Any) -> Curve:
    evaluations = tuple(
        Evaluation(
            step=step,
            tokens=step * per_step,
            eval_loss=loss,
            perplexity=1.0,
            train_loss=loss,
            learning_rate=0.1,
            grad_norm=1.0,
            tokens_per_second=1.0,
            wall_seconds=1.0,
        )
        for step, loss in losses.items()
    )
    who = IDENTITY.model_copy(update={"tokens_per_step": per_step} | changes)
    return Curve(1, name, 0, False, who, evaluations)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], []),
        ([3.0, 2.0, 2.5], [3.0, 2.0, 2.0]),
        ([NAN, 2.0, INF], [INF, 2.0, 2.0]),
        ([-INF, 2.0], [INF, 2.0]),
    ],
)
def test_best_so_far_passes_over_what_is_not_finite(losses: list[float], expected: list[float]) -> None:
    assert list(best_so_far(curve({500 * i: loss for i, loss in enumerate(losses, 1)}))) == expected


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_best_so_far_never_rises(losses: list[float]) -> None:
    best = best_so_far(curve(dict(enumerate(losses, 1))))
    assert list(best) == sorted(best, reverse=True)


def test_moving_improvement_is_in_nats_per_thousand_steps() -> None:
    assert moving_improvement(curve({500: 4.0, 1000: 3.8, 1500: 3.5})) == pytest.approx(0.5)


@pytest.mark.parametrize("losses", [{}, {500: 4.0}, {500: 4.0, 1000: 3.8}, {500: NAN, 1000: 3.0, 1500: 2.0}])
def test_moving_improvement_is_undefined_before_the_third_evaluation(losses: dict[int, float]) -> None:
    assert moving_improvement(curve(losses)) is None


def test_moving_improvement_of_a_rising_loss_is_zero() -> None:
    assert moving_improvement(curve({500: 4.0, 1000: 4.1, 1500: 4.2})) == 0


def test_gate_value_is_the_latest_finite_evaluation_of_the_stage() -> None:
    found = latest_finite(curve({500: 4.0, 1000: 4.5, 1500: NAN, 2000: 1.0}), 1500)
    assert found is not None
    assert (found.step, found.eval_loss) == (1000, 4.5)


def test_an_evaluation_before_training_is_not_counted() -> None:
    assert [e.step for e in trained_evaluations(curve({0: 10.9, 500: 5.0}))] == [500]
    assert best_so_far(curve({0: 2.0, 500: 5.0, 1000: 4.0})) == (INF, 5.0, 4.0)
    assert moving_improvement(curve({0: 10.9, 500: 5.0, 1000: 4.0})) is None
    assert latest_finite(curve({0: 10.9}), 500) is None


def test_the_gate_value_is_of_the_stage_and_not_of_one_before() -> None:
    found = curve({1000: 3.0, 1500: 3.5})
    assert latest_finite(curve({1000: 3.0, 5000: NAN}), 5000, after=1000) is None
    assert latest_finite(found, 5000, after=1000) is found.evaluations[1]


def test_upto_cuts_every_part_of_the_curve() -> None:
    whole = replace(curve({500: 4.0, 1000: 3.0}), train_loss=((100, 5.0), (900, 3.1)), restarts=(0, 700))
    cut = upto(whole, 500)
    assert [e.step for e in cut.evaluations] == [500]
    assert (cut.train_loss, cut.restarts) == (((100, 5.0),), (0,))


class TestComparable:
    def test_like_is_comparable(self) -> None:
        assert comparable(curve({}), curve({})) is None

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"evaluation_set": "set-b"}, "evaluation sets"),
            ({"tokenizer": "wikitext"}, "tokenizers"),
            ({"schedule_family": "linear"}, "families"),
            ({"horizon_step": 1000}, "horizons"),
        ],
    )
    def test_unlike_says_why(self, changes: dict[str, Any], word: str) -> None:
        reason = comparable(curve({}), curve({}, **changes))
        assert reason is not None
        assert word in reason
        found = match(curve({500: 1.0}), curve({500: 1.0}, **changes), 500)
        assert isinstance(found, Unmatched)
        assert found.invalid

    def test_a_horizon_of_the_same_tokens_is_the_same(self) -> None:
        assert comparable(curve({}), curve({}, per_step=50, horizon_step=10_000)) is None

    def test_an_unknown_identity_is_not_comparable(self) -> None:
        assert "identity" in str(comparable(curve({}), replace(curve({}), identity=None)))


class TestMatch:
    def test_same_tokens_per_step_compares_at_the_step(self) -> None:
        found = match(curve({1500: 4.357}), curve({1000: 4.6, 1500: 4.279}), 1500)
        assert isinstance(found, Match)
        assert (found.axis, found.interpolated) == ("step", False)
        assert found.gap == pytest.approx(0.078)

    def test_other_tokens_per_step_compares_at_the_tokens(self) -> None:
        found = match(curve({1000: 4.0}), curve({1000: 4.4, 2000: 3.9}, per_step=50), 1000)
        assert isinstance(found, Match)
        assert (found.axis, found.other_loss, found.interpolated) == ("tokens", 3.9, False)

    def test_between_two_evaluations_the_loss_is_linear_in_logs(self) -> None:
        power_law = {1000: 10 * 1000**-0.1, 2000: 10 * 2000**-0.1}
        found = match(curve({1300: 4.0}), curve(power_law), 1300)
        assert isinstance(found, Match)
        assert found.interpolated
        assert found.other_loss == pytest.approx(10 * 1300**-0.1)

    @pytest.mark.parametrize(
        ("points", "at"),
        [
            pytest.param({500: 5.0, 1001: 4.0}, 700, id="ratio above 2"),
            pytest.param({500: 5.0}, 1000, id="never extrapolated forward"),
            pytest.param({500: 5.0, 1000: 4.0}, 400, id="never extrapolated back"),
            pytest.param({500: 5.0, 1000: 4.0}, 1500, id="not there yet"),
            pytest.param({0: 10.0, 1000: 4.0}, 500, id="step 0 brackets nothing"),
            pytest.param({500: NAN, 1000: 4.0}, 700, id="NaN brackets nothing"),
            pytest.param({500: NAN, 600: 4.0}, 500, id="NaN there is no loss"),
            pytest.param({}, 500, id="no evaluation"),
        ],
    )
    def test_not_known_is_inconclusive(self, points: dict[int, float], at: int) -> None:
        found = match(curve({at: 4.0}), curve(points), at)
        assert isinstance(found, Unmatched)
        assert not found.invalid

    def test_a_ratio_of_exactly_two_is_allowed(self) -> None:
        assert loss_at(curve({500: 5.0, 1000: 4.0}), "step", 700) is not None

    def test_a_subject_without_its_own_evaluation_waits(self) -> None:
        assert isinstance(match(curve({500: 4.0}), curve({1000: 4.0}), 1000), Unmatched)
        assert isinstance(match(curve({500: NAN}), curve({500: 4.0}), 500), Unmatched)


@given(
    left=st.integers(1, 10_000),
    data=st.data(),
    losses=st.tuples(st.floats(0.1, 12), st.floats(0.1, 12)),
)
def test_an_interpolated_loss_lies_between_its_neighbours(
    left: int, data: st.DataObject, losses: tuple[float, float]
) -> None:
    right = data.draw(st.integers(left + 1, 2 * left + 1).filter(lambda x: x <= 2 * left or left == 1))
    at = data.draw(st.integers(left, right))
    found = loss_at(curve({left: losses[0], right: losses[1]}), "step", at, ratio=3.0)
    assert found is not None
    assert min(losses) - 1e-9 <= found[0] <= max(losses) + 1e-9
