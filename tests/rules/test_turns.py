"""Whose turn it is, remembered: the same answer as when it is worked out, and a new one for new configs."""

import copy
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.hashing import canonical_json
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.turns import Question, Waiter, waits_behind, worked_out

NAMES = st.sampled_from(["a", "b", "p", "q", "r"])
CONFIGS = st.dictionaries(NAMES, st.fixed_dictionaries({"x": st.integers(1, 2), "y": st.integers(1, 2)}))
WAITERS = st.lists(
    st.builds(
        Waiter,
        name=st.sampled_from(["p", "q", "r"]),
        stage=st.integers(0, 1),
        sources=st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple),
        overrides=st.dictionaries(st.sampled_from("xy"), st.integers(1, 3), max_size=2),
    ),
    max_size=3,
    unique_by=lambda waiter: waiter.name,
)
PAIR = [Waiter("p", 0, ("a",), {"x": 3}), Waiter("q", 0, ("b",), {"x": 3})]
THERE: dict[str, JsonObject] = {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}}


def afresh(waiters: Sequence[Waiter], configs: Mapping[str, JsonObject]) -> Mapping[str, tuple[str, ...]]:
    """The answer from all configs, without what is remembered."""
    return worked_out.__wrapped__(Question(canonical_json(configs), tuple(waiters), configs))


@given(waiters=WAITERS, configs=CONFIGS)
def test_what_is_remembered_is_what_would_be_worked_out(
    waiters: list[Waiter], configs: dict[str, JsonObject]
) -> None:
    expected = afresh(waiters, configs)
    assert waits_behind(waiters, configs) == expected
    assert waits_behind(copy.deepcopy(waiters), copy.deepcopy(configs)) == expected


def test_the_same_plan_and_configs_are_worked_out_once() -> None:
    worked_out.cache_clear()
    unasked: JsonObject = {"x": 9}
    for configs in (THERE, copy.deepcopy(THERE), THERE | {"nobody_waits_for_it": unasked}):
        assert waits_behind(copy.deepcopy(PAIR), configs) == {"p": (), "q": ("p",)}
    assert (worked_out.cache_info().misses, worked_out.cache_info().hits) == (1, 2)


def test_another_config_another_override_or_a_waiter_that_came_to_be_is_another_question() -> None:
    assert waits_behind(PAIR, THERE) == {"p": (), "q": ("p",)}
    assert waits_behind(PAIR, THERE | {"b": {"x": 2, "y": 2}}) == {"p": (), "q": ()}
    assert waits_behind([PAIR[0], Waiter("q", 0, ("b",), {"x": 4})], THERE) == {"p": (), "q": ()}
    assert waits_behind(PAIR, THERE | {"q": {"x": 5, "y": 1}}) == {"p": (), "q": ()}


def test_what_a_caller_does_to_an_answer_changes_no_other() -> None:
    waits_behind(PAIR, THERE).clear()
    assert waits_behind(PAIR, THERE) == {"p": (), "q": ("p",)}
