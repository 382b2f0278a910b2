"""Who gets the free slots when several experiments want them."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from plan_builders import NOW, experiment, planned, run, starts

from orchestrator.domain.lifecycle import ExperimentStatus
from orchestrator.rules.sharing import wanted_slots
from orchestrator.rules.snapshot import ExperimentView, Snapshot


def queue(id_: int, count: int, *, priority: int = 0, held: int = 0, slots: int = 1) -> ExperimentView:
    """An experiment with so many pending runs, numbered from 100 times its id."""
    runs = [run(100 * id_ + number) for number in range(count)]
    return replace(experiment(*runs, id_=id_, slots=slots), priority=priority, held_slots=held)


def shares(*views: ExperimentView, free: int) -> dict[int, int]:
    """Runs started by experiment."""
    return dict(Counter(id_ // 100 for id_ in starts(planned(*views, free=free))))


def test_equal_experiments_get_equal_shares() -> None:
    assert shares(queue(1, 9), queue(2, 9), queue(3, 9), free=6) == {1: 2, 2: 2, 3: 2}


def test_the_one_that_holds_fewest_is_served_first() -> None:
    assert shares(queue(1, 9, held=3), queue(2, 9, held=1), free=3) == {1: 1, 2: 2} or shares(
        queue(1, 9, held=3), queue(2, 9, held=1), free=2
    ) == {2: 2}


def test_a_higher_priority_takes_all_that_it_wants() -> None:
    assert shares(queue(1, 9), queue(2, 3, priority=1), free=5) == {1: 2, 2: 3}


def test_of_equals_the_oldest_is_first() -> None:
    assert shares(queue(2, 1), queue(1, 1), free=1) == {1: 1}


def test_a_run_that_needs_more_slots_than_are_free_is_waited_for() -> None:
    assert shares(queue(1, 1, slots=2), queue(2, 3), free=1) == {}
    assert shares(queue(1, 1, slots=2), queue(2, 3), free=3) == {1: 1, 2: 1}


def test_what_the_machine_can_never_hold_is_waited_for_by_nobody() -> None:
    views = (queue(1, 1, slots=4), queue(2, 1))
    assert wanted_slots(Snapshot(views, ("cpu:0",), NOW, all_slots=2)) == 1


def test_a_paused_experiment_wants_nothing() -> None:
    paused = replace(queue(1, 3), status=ExperimentStatus.PAUSED)
    assert shares(paused, queue(2, 1), free=3) == {2: 1}


def test_a_pending_run_whose_worker_is_still_leaving_is_not_started_again() -> None:
    view = experiment(replace(run(1), has_worker=True), run(2))
    assert starts(planned(view, free=2)) == [2]


@settings(max_examples=100, derandomize=True)
@given(
    counts=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=4
    ),
    free=st.integers(0, 8),
)
def test_no_slot_is_left_idle_and_nobody_goes_before_one_that_is_due(
    counts: list[tuple[int, int, int]], free: int
) -> None:
    views = [queue(n, count, held=held, priority=p) for n, (count, held, p) in enumerate(counts, 1)]
    found = shares(*views, free=free)
    assert sum(found.values()) == min(free, sum(count for count, _, _ in counts))
    for view in views:
        unserved = len(view.runs) - found.get(view.id, 0)
        for other in views:
            if unserved and found.get(other.id, 0):
                assert other.priority >= view.priority
                if other.priority == view.priority:
                    has = view.held_slots + found.get(view.id, 0)
                    assert other.held_slots + found[other.id] <= has + 1
