"""The ticker: no wake is lost, one tick at a time, and a failing tick does not stop the ticking."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from orchestrator.bootstrap import utc_now
from orchestrator.scheduler import Ticker

SOON = 5.0
"""Seconds after which something that has not happened never will."""
NEVER = 3600.0
"""An interval so long that only the start and wakes fire a tick."""


class Ticks:
    """A tick that can be held half way, and that counts."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.now = 0
        self.most = 0
        self.count = 0

    def __call__(self) -> None:
        with self.lock:
            self.now += 1
            self.count += 1
            self.most = max(self.most, self.now)
        self.begun.release()
        self.go_on.acquire(timeout=SOON)
        with self.lock:
            self.now -= 1

    def wait_for_one(self) -> bool:
        return self.begun.acquire(timeout=SOON)

    def let(self, count: int = 1) -> None:
        self.go_on.release(count)


@contextmanager
def ticking(tick: Callable[[], None], seconds: float = NEVER) -> Iterator[Ticker]:
    ticker = Ticker(tick, seconds, utc_now)
    ticker.start()
    try:
        yield ticker
    finally:
        ticker.stop()


def test_the_first_tick_is_at_once() -> None:
    ticks = Ticks()
    with ticking(ticks):
        assert ticks.wait_for_one()
        ticks.let()


def test_it_ticks_again_and_again() -> None:
    ticks = Ticks()
    ticks.let(1000)
    with ticking(ticks, 0.01):
        assert all(ticks.wait_for_one() for _ in range(4))


def test_a_wake_is_answered_with_a_tick() -> None:
    ticks = Ticks()
    ticks.let(2)
    with ticking(ticks) as ticker:
        assert ticks.wait_for_one()
        ticker.wake()
        assert ticks.wait_for_one()


def test_no_wake_is_lost_while_a_tick_runs() -> None:
    ticks = Ticks()
    rounds = 30
    with ticking(ticks) as ticker:
        assert ticks.wait_for_one()
        for _ in range(rounds):
            ticker.wake()
            ticks.let()
            assert ticks.wait_for_one(), f"after {ticks.count} ticks the wake was lost"
        ticks.let()
    assert ticks.count == rounds + 1


def test_no_wake_is_lost_as_a_tick_ends() -> None:
    """Whenever a wake comes, a tick begins after it."""
    done = threading.Semaphore(0)
    with ticking(done.release) as ticker:
        for round_ in range(100):
            assert done.acquire(timeout=SOON), f"the wake of round {round_} was lost"
            ticker.wake()
        assert done.acquire(timeout=SOON)


def test_many_wakes_while_a_tick_runs_are_one_tick() -> None:
    ticks = Ticks()
    with ticking(ticks) as ticker:
        assert ticks.wait_for_one()
        for _ in range(50):
            ticker.wake()
        ticks.let()
        assert ticks.wait_for_one()
        ticks.let(50)
    assert ticks.count <= 3


def test_one_tick_at_a_time() -> None:
    ticks = Ticks()
    with ticking(ticks, 0.005) as ticker:
        for _ in range(10):
            assert ticks.wait_for_one()
            threads = [threading.Thread(target=ticker.wake) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
            ticks.let()
        ticks.let(1000)
        assert all(ticks.wait_for_one() for _ in range(3))
    assert ticks.most == 1
    assert ticks.now == 0


def test_a_failing_tick_does_not_stop_the_ticking(caplog: pytest.LogCaptureFixture) -> None:
    calls = threading.Semaphore(0)

    def fail() -> None:
        calls.release()
        raise RuntimeError("the database is away")

    with ticking(fail, 0.01):
        assert all(calls.acquire(timeout=SOON) for _ in range(4))
    assert caplog.text.count("a tick failed") == 1  # said once, not at every tick
    assert "the database is away" in caplog.text


def test_ticks_that_go_on_after_a_failure_say_so(caplog: pytest.LogCaptureFixture) -> None:
    calls = threading.Semaphore(0)
    faults = ["first", "second"]

    def fail_twice() -> None:
        calls.release()
        if faults:
            raise RuntimeError(faults.pop(0))

    with caplog.at_level("INFO"), ticking(fail_twice, 0.01):
        assert all(calls.acquire(timeout=SOON) for _ in range(5))
    assert caplog.text.count("a tick failed") == 2
    assert caplog.text.count("the ticks go on") == 1


def test_a_wake_during_a_tick_that_fails_is_not_lost() -> None:
    begun = threading.Semaphore(0)
    wakes: list[Callable[[], None]] = []

    def fail() -> None:
        begun.release()
        if wakes:
            wakes.pop()()
        raise RuntimeError("again")

    with ticking(fail) as ticker:
        assert begun.acquire(timeout=SOON)
        wakes.append(ticker.wake)
        ticker.wake()
        assert begun.acquire(timeout=SOON)
        assert begun.acquire(timeout=SOON)


def test_stopping_lets_the_tick_come_to_its_end() -> None:
    ticks = Ticks()
    with ticking(ticks) as ticker:
        assert ticks.wait_for_one()
        stopping = threading.Thread(target=ticker.stop)
        stopping.start()
        assert stopping.is_alive()
        ticks.let()
        stopping.join(SOON)
        assert not stopping.is_alive()
    assert ticks.now == 0


def test_stopping_with_a_wake_pending_comes_to_its_end() -> None:
    ticks = Ticks()
    ticker = Ticker(ticks, NEVER, utc_now)
    ticker.start()
    assert ticks.wait_for_one()
    ticker.wake()
    stopping = threading.Thread(target=ticker.stop, daemon=True)
    stopping.start()
    stopping.join(0.2)
    ticks.let(2)
    stopping.join(SOON)
    assert not stopping.is_alive()


def test_a_wake_before_the_start_or_after_the_end_is_harmless() -> None:
    ticks = Ticks()
    ticks.let(5)
    ticker = Ticker(ticks, NEVER, utc_now)
    ticker.wake()
    ticker.stop()
    ticker.start()
    assert ticks.wait_for_one()
    ticker.stop()
    ticker.wake()


@pytest.mark.parametrize("step", [timedelta(days=-1), timedelta(days=20_000)])
def test_a_clock_that_is_set_stops_no_ticks(monkeypatch: pytest.MonkeyPatch, step: timedelta) -> None:
    class Clock(datetime):
        """The wall clock as APScheduler asks it, moved by what the test says."""

        moved = timedelta(0)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return super().now(tz) + cls.moved

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Clock)
    done = threading.Semaphore(0)
    ticker = Ticker(done.release, 0.02, lambda: Clock.now(UTC))
    ticker.start()
    try:
        assert done.acquire(timeout=SOON)
        Clock.moved = step
        assert all(done.acquire(timeout=SOON) for _ in range(20))
    finally:
        ticker.stop()
