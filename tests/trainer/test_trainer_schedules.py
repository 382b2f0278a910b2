"""Schedules at their corners, and routing health by hand."""

from math import log

import pytest

from trainer.config import MoeConfig, ScheduleConfig
from trainer.health import normalised_entropy, routing_health
from trainer.schedules import aux_coefficient, decay_from_step, learning_rate


@pytest.mark.parametrize(
    ("family", "step", "rate"),
    [
        ("cosine", 0, 0.1),
        ("cosine", 9, 1.0),
        ("cosine", 10, 1.0),
        ("cosine", 55, 0.55),
        ("cosine", 100, 0.1),
        ("cosine", 500, 0.1),
        ("linear", 55, 0.55),
        ("linear", 100, 0.1),
        ("constant", 99, 1.0),
        ("wsd", 80, 1.0),
        ("wsd", 90, 0.55),
        ("wsd", 100, 0.1),
    ],
)
def test_learning_rate(family: str, step: int, rate: float) -> None:
    config = ScheduleConfig.model_validate({"family": family, "warmup_steps": 10})
    assert learning_rate(config, 1.0, step, 100) == pytest.approx(rate)


def test_warmup_by_share_of_the_horizon() -> None:
    config = ScheduleConfig(warmup_frac=0.1)
    assert learning_rate(config, 1.0, 49, 1000) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("family", "begins"), [("wsd", 80), ("cosine", None), ("linear", None), ("constant", None)]
)
def test_the_last_decay_begins_where_the_rate_is_still_whole(family: str, begins: int | None) -> None:
    config = ScheduleConfig.model_validate({"family": family, "warmup_steps": 10})
    assert decay_from_step(config, 100) == begins
    if begins is not None:
        assert learning_rate(config, 1.0, begins, 100) == 1.0 > learning_rate(config, 1.0, begins + 1, 100)


def test_a_decay_of_no_length_is_none() -> None:
    assert decay_from_step(ScheduleConfig(family="wsd", decay_frac=0), 100) is None


@pytest.mark.parametrize(("step", "coef"), [(0, 0.05), (100, 0.05), (300, 0.03), (500, 0.01), (9000, 0.01)])
def test_balance_weight_is_held_then_linear_then_held(step: int, coef: float) -> None:
    config = MoeConfig(
        num_experts=4, top_k=1, d_ff=8, aux_loss_coef=0.05, aux_loss_coef_end=0.01,
        aux_warmup_frac=0.1, aux_decay_end_frac=0.5,
    )  # fmt: skip
    assert aux_coefficient(config, step, 1000) == pytest.approx(coef)


def test_health_of_a_balanced_and_a_collapsed_layer() -> None:
    health = routing_health([[25, 25, 25, 25], [100, 0, 0, 0]])
    assert health is not None
    assert health.entropy == pytest.approx(0.5)
    assert health.entropy_worst_layer == 0.0
    assert health.load_top == pytest.approx((0.625, 0.125, 0.125, 0.125))
    assert (health.load_min, health.load_max) == pytest.approx((0.125, 0.625))
    assert health.dead_experts == 3
    assert health.layer_loads[1] == (1.0, 0.0, 0.0, 0.0)
    assert routing_health([[0, 0]]) is None


def test_entropy_is_normalised() -> None:
    assert normalised_entropy([0.5, 0.5, 0.0, 0.0]) == pytest.approx(log(2) / log(4))
