"""APScheduler asks for the tick, a thread of its own does it; nothing is decided here."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import DBAPIError

from orchestrator.domain.errors import AssayError

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""After a tick that failed: one that fails at once and asks for the next would take a whole core."""


class SteadyScheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no types
    """One whose jobs stay within `interval`, though it keeps their times by the wall clock.

    A clock set back by an hour would stop its ticks for an hour; one set forward by years would have it
    count every tick that it missed.
    """

    def __init__(self, interval: timedelta, clock: Callable[[], datetime]) -> None:
        super().__init__(timezone="UTC")
        self._interval, self._clock = interval, clock

    def _process_jobs(self) -> float:
        """The method of each round, which APScheduler documents for schedulers of one's own."""
        now = self._clock()
        for job in self.get_jobs():
            if abs(job.next_run_time - now) > self._interval:
                job.modify(next_run_time=now)
        seconds: float | None = super()._process_jobs()
        longest = self._interval.total_seconds()
        return longest if seconds is None else min(seconds, longest)


class Ticker:
    """Runs `tick` at once, every `seconds`, and after `wake`. One at a time; no wake is lost."""

    def __init__(self, tick: Callable[[], None], seconds: float, clock: Callable[[], datetime]) -> None:
        self._tick = tick
        self._interval = timedelta(seconds=seconds)
        self._clock = clock
        self._scheduler: SteadyScheduler | None = None
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = ""

    def start(self) -> None:
        self._stopping.clear()
        self._asked.set()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()
        self._scheduler = SteadyScheduler(self._interval, self._clock)
        seconds = self._interval.total_seconds()
        self._scheduler.add_job(
            self.wake, "interval", seconds=seconds, coalesce=True, max_instances=1, misfire_grace_time=None
        )
        self._scheduler.start()

    def wake(self) -> None:
        """Asks for a tick now. While one runs, the next follows right after it."""
        self._asked.set()

    def stop(self) -> None:
        """Lets the tick that runs come to its end, and no other begin."""
        self._stopping.set()
        self._asked.set()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=True)
            self._scheduler = None
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            if self._stopping.is_set():
                return
            self._asked.clear()
            if not self._fire():
                self._stopping.wait(PAUSE_SECONDS)

    def _fire(self) -> bool:
        """Whether the tick came to its end."""
        try:
            self._tick()
        except Exception as error:
            self._say(error)
            return False
        if self._failing:
            log.info("the ticks go on")
        self._failing = ""
        return True

    def _say(self, error: Exception) -> None:
        """Once for a failure that stays the same, with its traceback unless it is a foreseen one."""
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        foreseen = isinstance(error, AssayError | DBAPIError)
        if what != self._failing:
            log.error("a tick failed, another follows: %s", what, exc_info=None if foreseen else error)
        self._failing = what
