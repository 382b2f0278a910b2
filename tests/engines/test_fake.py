"""How the fake breaks when a test tells it to."""

from pathlib import Path

import pytest
from engine_rigs import state_of

from orchestrator.engines.base import EngineError, StateKind, WorkerSpec
from orchestrator.engines.fake import FakeEngine, FakeWorld

KEY = "run-1-attempt-1"
SPEC = WorkerSpec(("train",), Path("attempt"))


def test_submit_may_be_done_and_raise_all_the_same() -> None:
    engine = FakeEngine()
    engine.world.submit_failures = [True]
    with pytest.raises(EngineError) as error:
        engine.submit(KEY, SPEC)
    assert error.value.ambiguous
    assert engine.find(KEY) is not None
    assert engine.submit(KEY, SPEC) == engine.find(KEY)
    assert engine.world.starts == [KEY]


def test_submit_may_raise_the_same_error_and_do_nothing() -> None:
    engine = FakeEngine()
    engine.world.submit_failures = [False]
    with pytest.raises(EngineError) as error:
        engine.submit(KEY, SPEC)
    assert error.value.ambiguous
    assert engine.find(KEY) is None
    engine.submit(KEY, SPEC)
    assert engine.world.starts == [KEY]


def test_a_worker_may_be_pending_then_run_then_be_lost() -> None:
    engine = FakeEngine(world=FakeWorld(starts_pending=True))
    handle = engine.submit(KEY, SPEC)
    assert state_of(engine, handle).kind is StateKind.PENDING
    engine.world.start(KEY)
    assert state_of(engine, handle).kind is StateKind.RUNNING
    engine.lose(KEY)
    assert state_of(engine, handle).kind is StateKind.LOST
    engine.exit(KEY, 0)
    assert state_of(engine, handle).kind is StateKind.LOST


def test_a_worker_may_be_unknown_for_a_while() -> None:
    engine = FakeEngine()
    handle = engine.submit(KEY, SPEC)
    engine.world.hidden.add(KEY)
    assert state_of(engine, handle).kind is StateKind.UNKNOWN
    engine.world.hidden.remove(KEY)
    assert state_of(engine, handle).kind is StateKind.RUNNING


def test_an_engine_that_cannot_be_reached_does_nothing() -> None:
    engine = FakeEngine()
    handle = engine.submit(KEY, SPEC)
    engine.world.is_unreachable = True
    for call in (lambda: engine.poll([handle]), lambda: engine.find(KEY), lambda: engine.cancel(handle, 0)):
        with pytest.raises(EngineError):
            call()
    engine.world.is_unreachable = False
    assert state_of(engine, handle).kind is StateKind.RUNNING
