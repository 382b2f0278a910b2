"""Which of several variants a waiting one starts from."""

import math
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from rule_builders import STAGE_GATE, control, curve, identity, routing

from orchestrator.domain.curves import Curve
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.best import Choice, best_of
from orchestrator.rules.turns import Waiter, waits_behind


def named(**losses: float) -> dict[str, list[Curve]]:
    return {name: [curve(name, {500: loss + 0.5, 1000: loss})] for name, loss in losses.items()}


def choice(variants: Mapping[str, list[Curve]], step: int = 1000) -> Choice:
    return best_of(variants, step, STAGE_GATE)


def test_the_lowest_loss_at_the_step_is_the_best() -> None:
    found = choice(named(a=3.2, b=3.0, c=3.1))
    assert found.ranked == ("b", "c", "a")
    assert found.text == "b is the best at step 1000 (b 3.000, c 3.100, a 3.200)"


def test_what_came_later_than_the_step_is_not_looked_at() -> None:
    late = {"a": [curve("a", {1000: 3.2, 1500: 2.0})], "b": [curve("b", {1000: 3.0})]}
    assert choice(late).best == "b"


def test_the_control_can_be_the_best() -> None:
    assert choice(named(a=3.2) | {"control": [control({1000: 3.0})]}).best == "control"


def test_near_values_go_to_the_cheaper_one() -> None:
    cheap = identity(flops_per_token=1000.0)
    near = named(a=3.000) | {"z": [curve("z", {1000: 3.004}, who=cheap)]}
    assert choice(near).ranked == ("z", "a")


def test_seeds_count_by_their_mean_and_a_seed_that_broke_off_is_left_out() -> None:
    pair = [curve("a", {1000: 3.0}), curve("a", {1000: 3.4}, seed=1), curve("a", {500: 2.0}, seed=2)]
    found = choice(named(b=3.1) | {"a": pair})
    assert found.ranked == ("b", "a")
    assert math.isclose(found.losses["a"], 3.2)
    assert found.left_out == {}


def test_each_that_is_not_sound_is_left_out_with_its_reason() -> None:
    collapsed = {step: {"routing": routing(0.2, worst=0.2)} for step in (500, 1000)}
    found = choice(
        named(a=3.0)
        | {
            "short": [curve("short", {500: 2.0})],
            "nan": [curve("nan", {500: 2.0, 1000: math.nan})],
            "sick": [curve("sick", {500: 2.5, 1000: 2.0}, changes=collapsed)],
            "odd": [curve("odd", {1000: 2.0}, who=identity(evaluation_set="set-b"))],
            "none": [],
        }
    )
    assert found.ranked == ("a",)
    assert set(found.left_out) == {"short", "nan", "sick", "odd", "none"}
    assert found.left_out["short"] == "it ended before step 1000"
    assert found.left_out["none"] == "it was not trained"
    assert all(found.left_out.values())


def test_without_a_sound_one_there_is_no_best_and_the_text_says_why() -> None:
    found = choice({"short": [curve("short", {500: 2.0})]})
    assert found.best is None
    assert found.text == "none is sound at step 1000 (short: it ended before step 1000)"


@settings(max_examples=60, derandomize=True)
@given(
    losses=st.dictionaries(st.sampled_from("abcdef"), st.floats(2.0, 4.0), min_size=1),
    seed=st.randoms(use_true_random=False),
)
def test_the_order_in_which_they_are_given_says_nothing(losses: dict[str, float], seed: object) -> None:
    names = list(losses)
    seed.shuffle(names)  # type: ignore[attr-defined]  # a random source of hypothesis
    assert choice(named(**{name: losses[name] for name in names})) == choice(named(**losses))


CONFIGS: dict[str, JsonObject] = {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}}


def test_of_two_that_could_come_to_one_config_the_later_waits_behind_the_earlier() -> None:
    found = waits_behind([Waiter("p", 0, ("a",), {"x": 3}), Waiter("q", 0, ("b",), {"x": 3})], CONFIGS)
    assert found == {"p": (), "q": ("p",)}


def test_those_that_cannot_meet_wait_behind_nobody() -> None:
    found = waits_behind([Waiter("p", 0, ("a",), {"x": 3}), Waiter("q", 0, ("a",), {"x": 4})], CONFIGS)
    assert found == {"p": (), "q": ()}


def test_what_another_waits_for_stands_before_it_whatever_the_plan_says() -> None:
    chain = [Waiter("late", 0, ("early", "b"), {}), Waiter("early", 0, ("a",), {"x": 2})]
    assert waits_behind(chain, CONFIGS) == {"early": (), "late": ("early",)}


def test_a_waiter_of_an_earlier_stage_stands_first() -> None:
    pair = [Waiter("second", 1, ("a",), {"x": 5}), Waiter("first", 0, ("b",), {"x": 5})]
    assert waits_behind(pair, CONFIGS) == {"first": (), "second": ("first",)}
