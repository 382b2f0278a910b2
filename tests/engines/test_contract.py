"""What every engine guarantees: the same tests for real processes and for the fake."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from engine_rigs import Rig, becomes, eventually, state_of

from orchestrator.engines.base import Engine, EngineError, Handle, StateKind

KEY = "run-7-attempt-1"


def up(rig: Rig, engine: Engine, key: str = KEY, *, stubborn: bool = False) -> Handle:
    """A worker that has started and waits."""
    handle = engine.submit(key, rig.spec(key, stubborn=stubborn))
    eventually(lambda: rig.is_up(engine, handle))
    return handle


def test_slots_are_named_in_order(rig: Rig) -> None:
    assert [slot.id for slot in rig.engine().slots()] == ["cpu:0", "cpu:1"]


def test_same_key_twice_is_the_same_handle_and_one_worker(rig: Rig) -> None:
    engine = rig.engine()
    first = up(rig, engine)
    assert engine.submit(KEY, rig.spec(KEY)) == first
    rig.finish(KEY, 0)
    becomes(engine, first, StateKind.EXITED)
    assert rig.starts(KEY) == 1


def test_same_key_after_the_end_starts_nothing(rig: Rig) -> None:
    engine = rig.engine()
    first = up(rig, engine)
    rig.finish(KEY, 3)
    becomes(engine, first, StateKind.EXITED)
    assert engine.submit(KEY, rig.spec(KEY)) == first
    assert state_of(engine, first).code == 3
    assert rig.starts(KEY) == 1


def test_two_engines_submitting_at_once_get_one_worker(rig: Rig) -> None:
    engines = [rig.engine() for _ in range(6)]
    spec = rig.spec(KEY)
    with ThreadPoolExecutor(len(engines)) as pool:
        handles = list(pool.map(lambda engine: engine.submit(KEY, spec), engines))
    assert all(handle == handles[0] for handle in handles)
    eventually(lambda: rig.is_up(engines[0], handles[0]))
    rig.finish(KEY, 0)
    becomes(engines[0], handles[0], StateKind.EXITED)
    assert rig.starts(KEY) == 1


def test_find_knows_what_was_submitted_and_nothing_else(rig: Rig) -> None:
    engine = rig.engine()
    assert engine.find(KEY) is None
    handle = up(rig, engine)
    assert engine.find(KEY) == handle
    assert engine.find("run-7-attempt-2") is None


def test_handles_go_through_json(rig: Rig) -> None:
    handle = up(rig, rig.engine())
    again = Handle.from_json(json.loads(json.dumps(handle.to_json())))
    assert again == handle
    assert state_of(rig.engine(), again).kind is StateKind.RUNNING


def test_poll_answers_for_each_handle(rig: Rig) -> None:
    engine = rig.engine()
    one, two = up(rig, engine, "run-1-attempt-1"), up(rig, engine, "run-2-attempt-1")
    rig.finish("run-2-attempt-1", 10)
    becomes(engine, two, StateKind.EXITED)
    states = engine.poll([one, two])
    assert {key: (state.kind, state.code) for key, state in states.items()} == {
        "run-1-attempt-1": (StateKind.RUNNING, None),
        "run-2-attempt-1": (StateKind.EXITED, 10),
    }
    assert engine.poll([]) == {}


def test_a_handle_that_was_never_given_is_lost(rig: Rig) -> None:
    engine = rig.engine()
    assert state_of(engine, Handle(engine.name, "run-9-attempt-9")).kind is StateKind.LOST


def test_a_killed_worker_has_exited_with_the_signal(rig: Rig) -> None:
    engine = rig.engine()
    handle = up(rig, engine)
    engine.signal(handle, signal.SIGKILL)
    assert becomes(engine, handle, StateKind.EXITED).code == -signal.SIGKILL


def test_signals_to_a_worker_that_is_over_do_nothing(rig: Rig) -> None:
    engine = rig.engine()
    handle = up(rig, engine)
    rig.finish(KEY, 0)
    becomes(engine, handle, StateKind.EXITED)
    engine.signal(handle, signal.SIGTERM)
    engine.cancel(handle, 0)
    assert state_of(engine, handle).code == 0


def test_cancel_asks_with_term(rig: Rig) -> None:
    engine = rig.engine()
    handle = up(rig, engine)
    engine.cancel(handle, grace_seconds=1e6)
    assert becomes(engine, handle, StateKind.EXITED).code == -signal.SIGTERM


def test_cancel_kills_after_the_grace_and_not_before(rig: Rig) -> None:
    engine = rig.engine()
    handle = up(rig, engine, stubborn=True)
    engine.cancel(handle, grace_seconds=30)
    rig.clock.now += 29
    engine.cancel(handle, grace_seconds=30)
    assert state_of(engine, handle).kind is StateKind.RUNNING
    rig.clock.now += 1
    assert becomes(engine, handle, StateKind.EXITED).code == -signal.SIGKILL


def test_cancel_without_grace_kills_now(rig: Rig) -> None:
    engine = rig.engine()
    handle = up(rig, engine, stubborn=True)
    engine.cancel(handle, grace_seconds=0)
    assert becomes(engine, handle, StateKind.EXITED).code == -signal.SIGKILL


def test_logs_go_on_from_an_offset(rig: Rig) -> None:
    engine = rig.engine()
    handle = up(rig, engine)
    assert engine.logs(handle, 0, 4) == (b"star", 4)
    assert engine.logs(handle, 4, 100) == (b"ted\n", 8)
    assert engine.logs(handle, 8, 100) == (b"", 8)
    rig.finish(KEY, 0)
    becomes(engine, handle, StateKind.EXITED)
    assert engine.logs(handle, 8, 100) == (b"finished\n", 17)


def test_a_new_engine_adopts_a_running_worker(rig: Rig) -> None:
    before = rig.engine()
    handle = up(rig, before)
    before.close()
    after = rig.engine()
    assert after.find(KEY) == handle
    assert after.submit(KEY, rig.spec(KEY)) == handle
    assert state_of(after, handle).kind is StateKind.RUNNING
    after.cancel(handle, 1e6)
    assert becomes(after, handle, StateKind.EXITED).code == -signal.SIGTERM
    assert rig.starts(KEY) == 1


def test_a_new_engine_knows_how_a_worker_ended(rig: Rig) -> None:
    before = rig.engine()
    handle = up(rig, before)
    rig.finish(KEY, 31)
    becomes(before, handle, StateKind.EXITED)
    after = rig.engine()
    assert after.find(KEY) == handle
    assert state_of(after, handle).code == 31


def test_list_owned_has_every_key_in_order(rig: Rig) -> None:
    engine = rig.engine()
    assert engine.list_owned() == []
    second, first = up(rig, engine, "run-2-attempt-1"), up(rig, engine, "run-1-attempt-1")
    rig.finish("run-1-attempt-1", 0)
    becomes(engine, first, StateKind.EXITED)
    assert rig.engine().list_owned() == [first, second]


def test_forget_drops_what_is_over_and_nothing_else(rig: Rig) -> None:
    engine = rig.engine()
    running, over = up(rig, engine, "run-1-attempt-1"), up(rig, engine, "run-2-attempt-1")
    rig.finish(over.key, 0)
    becomes(engine, over, StateKind.EXITED)
    eventually(lambda: engine.forget([running.key, over.key, "run-9-attempt-9"]) == 1)
    assert engine.list_owned() == rig.engine().list_owned() == [running]
    assert engine.find(over.key) is None
    assert state_of(engine, over).kind is StateKind.LOST
    assert state_of(engine, running).kind is StateKind.RUNNING
    assert engine.forget([over.key]) == 0


def test_forget_nothing(rig: Rig) -> None:
    assert rig.engine().forget([]) == 0


@pytest.mark.parametrize("key", ["", "../run", "run 1", "-rf", ".", "..", "run\n", "run/1", "x" * 200])
def test_a_key_that_is_no_name_is_refused(rig: Rig, key: str) -> None:
    with pytest.raises(EngineError) as refused:
        rig.engine().submit(key, rig.spec(KEY))
    assert not refused.value.transient


def test_a_slot_that_is_not_there_is_refused(rig: Rig) -> None:
    engine = rig.engine()
    with pytest.raises(EngineError, match="gpu:9") as refused:
        engine.submit(KEY, replace(rig.spec(KEY), slots=("gpu:9",)))
    assert not refused.value.transient
    assert not refused.value.ambiguous
    assert engine.find(KEY) is None
