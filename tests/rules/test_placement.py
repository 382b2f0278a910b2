"""Which slots a run gets, and when a waiting worker gives its own away."""

import pytest

from orchestrator.rules.placement import free_slots, must_yield, take_slots

ALL = ("gpu:0", "gpu:1", "gpu:2")


@pytest.mark.parametrize(
    ("held", "free"),
    [
        ((), ALL),
        (("gpu:1",), ("gpu:0", "gpu:2")),
        (("gpu:2", "gpu:0", "gpu:1"), ()),
        (("gpu:9", "gpu:0"), ("gpu:1", "gpu:2")),
        (("gpu:0", "gpu:0"), ("gpu:1", "gpu:2")),
    ],
)
def test_free_slots_keep_the_order_of_the_engine(held: tuple[str, ...], free: tuple[str, ...]) -> None:
    assert free_slots(ALL, held) == free


@pytest.mark.parametrize(
    ("count", "taken"), [(1, ("gpu:0",)), (2, ("gpu:0", "gpu:1")), (3, ALL), (4, None), (64, None)]
)
def test_the_first_free_slots_are_taken_or_none(count: int, taken: tuple[str, ...] | None) -> None:
    assert take_slots(ALL, count) == taken


@pytest.mark.parametrize(
    ("wanted", "free", "yields"),
    [(0, 0, False), (1, 1, False), (1, 0, True), (2, 1, True), (0, 3, False), (3, 4, False)],
)
def test_a_waiting_worker_yields_only_when_others_want_more_than_is_free(
    wanted: int, free: int, yields: bool
) -> None:
    assert must_yield(wanted=wanted, free=free) is yields
