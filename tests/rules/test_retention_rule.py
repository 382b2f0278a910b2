"""Which checkpoints may go, and that nothing goes that a run could still go on from."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rules.retention import SPARE, Needs, Stored, may_go


def stored(*steps: int, attempt: int = 1, damaged: tuple[int, ...] = ()) -> list[Stored]:
    return [Stored(1000 * attempt + step, step, attempt, step not in damaged) for step in steps]


def gone(checkpoints: list[Stored], needs: Needs | None = None) -> list[tuple[int, int]]:
    return [(c.attempt, c.step) for c in may_go(checkpoints, needs or Needs())]


def test_the_newest_two_stay_and_what_is_older_may_go() -> None:
    assert gone(stored(10, 20, 30, 40)) == [(1, 10), (1, 20)]
    assert gone(stored(10, 20)) == []


def test_a_damaged_one_is_no_spare_and_may_go_once_two_sound_ones_are_newer() -> None:
    assert gone(stored(10, 20, 30, 40, damaged=(40,))) == [(1, 10)]
    assert gone(stored(10, 20, 30, 40, damaged=(20, 30))) == []
    assert gone(stored(10, 20, 30, 40, damaged=(10,))) == [(1, 10), (1, 20)]


def test_gates_and_points_that_are_open_keep_theirs() -> None:
    assert gone(stored(10, 20, 30, 40, 50), Needs(waits=(20, 100))) == [(1, 10), (1, 30)]


def test_of_two_at_one_step_the_newer_attempts_stays() -> None:
    both = [*stored(10, 20, 30), *stored(20, 30, 40, attempt=2)]
    assert gone(both, Needs(waits=(20,))) == [(1, 10), (1, 20)]
    spoilt = [*stored(10, 20, 30), *stored(20, 30, 40, attempt=2, damaged=(20,))]
    assert gone(spoilt, Needs(waits=(20,))) == [(1, 10), (2, 20)]


def test_a_run_that_ended_keeps_the_one_that_its_last_decision_names() -> None:
    assert gone(stored(10, 20, 30, 40), Needs(decided_at=10)) == [(1, 20)]


def test_a_divergence_is_gone_back_from_to_where_the_loss_was_good() -> None:
    assert gone(stored(10, 20, 30, 40), Needs(good=20)) == [(1, 10)]
    back = [*stored(10, 20, 30, 40, 50), *stored(40, attempt=2)]
    assert gone(back, Needs(at_most=40)) == [(1, 10), (1, 20)]  # 30 and the new 40 are what it goes on from


def test_a_linked_run_goes_on_from_the_newest_up_to_its_step() -> None:
    assert gone(stored(10, 20, 30, 40, 50), Needs(linked=(25, 45))) == [(1, 10), (1, 30)]


STORED = st.builds(
    Stored,
    id=st.uuids().map(lambda u: u.int),
    step=st.integers(1, 12).map(lambda n: 10 * n),
    attempt=st.integers(1, 3),
    sound=st.booleans(),
)
STEPS = st.lists(st.integers(0, 130), max_size=3).map(tuple)
NEEDS = st.builds(
    Needs,
    waits=STEPS,
    decided_at=st.none() | st.integers(0, 130),
    at_most=st.none() | st.integers(0, 130),
    good=st.none() | st.integers(0, 130),
    linked=STEPS,
)


def goes_on_from(checkpoints: list[Stored], at_most: int | None) -> int | None:
    """The step that a worker would resume from."""
    sound = [c.step for c in checkpoints if c.sound and (at_most is None or c.step <= at_most)]
    return max(sound, default=None)


@given(st.lists(STORED, max_size=20, unique_by=lambda c: (c.step, c.attempt)), NEEDS)
def test_whatever_goes_nothing_that_is_asked_for_changes(every: list[Stored], needs: Needs) -> None:
    removed = may_go(every, needs)
    left = [c for c in every if c not in removed]
    assert goes_on_from(left, needs.at_most) == goes_on_from(every, needs.at_most)
    within = {c.step for c in every if c.sound and (needs.at_most is None or c.step <= needs.at_most)}
    still = {c.step for c in left if c.sound}
    assert set(sorted(within)[-SPARE:]) <= still
    for step in within.intersection({*needs.waits, needs.decided_at, needs.good}):
        assert step in still
    for limit in needs.linked:
        if needs.at_most is None or limit <= needs.at_most:
            assert goes_on_from(left, limit) == goes_on_from(every, limit)
    assert may_go(left, needs) == []  # once is enough
