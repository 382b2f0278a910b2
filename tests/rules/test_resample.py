"""Drawing sets, and intervals that know that sets share configs."""

import math
import random
from statistics import fmean, stdev

import pytest

from orchestrator.rules.resample import Estimate, clustered, draw_sets, percentile

CONFIGS = {f"c{i:02d}": [2 * i, 2 * i + 1] for i in range(20)}


def draws(seed: int = 0) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


def test_sets_hold_one_run_of_each_of_so_many_configs() -> None:
    drawn = draw_sets(draws(), CONFIGS, count=200, smallest=8, largest=12)
    assert {len(one.members) for one in drawn} == set(range(8, 13))
    assert all(len({run // 2 for run in one.members}) == len(one.members) for one in drawn)
    assert all(one.control == one.members[0] for one in drawn)
    assert {run for one in drawn for run in one.members} == set(range(40))
    assert len({one.control for one in drawn}) > 20


def test_the_same_seed_draws_the_same_sets_whatever_the_order_of_the_configs() -> None:
    turned = dict(reversed(CONFIGS.items()))
    same = [draw_sets(draws(1), c, count=5, smallest=3, largest=4) for c in (CONFIGS, turned)]
    assert same[0] == same[1]
    assert draw_sets(draws(2), CONFIGS, count=5, smallest=3, largest=4) != same[0]


def test_a_named_control_is_in_every_set() -> None:
    drawn = draw_sets(draws(), CONFIGS, count=50, smallest=2, largest=20, control="c07")
    assert {one.control for one in drawn} == {14, 15}
    assert all(len({run // 2 for run in one.members}) == len(one.members) for one in drawn)


def test_too_few_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="20 configs are fewer than 21"):
        draw_sets(draws(), CONFIGS, count=1, smallest=2, largest=21)


def test_of_sets_of_one_config_each_the_jackknife_is_the_textbook_standard_error() -> None:
    values = [draws(3).gauss(0, 1) for _ in range(30)]
    holds = [frozenset({f"c{i}"}) for i in range(30)]
    found = clustered(values, holds, fmean)
    reach = 2.0452 * stdev(values) / math.sqrt(30)  # t with 29 degrees of freedom
    assert found.value == pytest.approx(fmean(values))
    assert found.high == pytest.approx(found.value + reach, rel=1e-4)
    assert found.low == pytest.approx(found.value - reach, rel=1e-4)


def test_copies_of_a_set_add_no_certainty() -> None:
    values, holds = [1.0, 2.0, 4.0], [frozenset("a"), frozenset("b"), frozenset("c")]
    once, often = clustered(values, holds, fmean), clustered(values * 50, holds * 50, fmean)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_the_interval_covers_what_other_configs_would_have_given() -> None:
    """Over families of configs drawn anew, 95% intervals hold the true mean nearly always."""
    covered = 0
    for trial in range(60):
        family = draws(trial)
        quality = {f"c{i}": family.gauss(0, 1) for i in range(25)}
        sets = [frozenset(family.sample(sorted(quality), 5)) for _ in range(300)]
        found = clustered([fmean(quality[name] for name in held) for held in sets], sets, fmean)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered >= 54


def test_there_is_no_interval_where_every_set_is_the_same() -> None:
    assert clustered([1.0, 1.0], [frozenset("ab")] * 2, fmean) == Estimate(1.0, None, None)
    with pytest.raises(ValueError, match="no set"):
        clustered([], [], fmean)


def test_percentiles_are_linear_between_neighbours() -> None:
    assert percentile([4, 1, 2, 3], 0.9) == pytest.approx(3.7)
    assert percentile([5], 0.9) == 5
