"""APScheduler fires the tick; nothing is decided here."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""After a tick that failed: one that fails at once and asks for the next would take a whole core."""


class Ticker:
    """Runs `tick` every `seconds`, and at once after `wake`. One tick at a time; no wake is lost."""

    def __init__(self, tick: Callable[[], None], seconds: float, clock: Callable[[], datetime]) -> None:
        self._tick = tick
        self._clock = clock
        self._asked = threading.Event()
        self._busy = threading.Lock()
        self._stopping = threading.Event()
        self._scheduler = BackgroundScheduler(timezone="UTC")
        # Two instances: the second only leaves word for the first, which APScheduler would drop otherwise.
        self._job = self._scheduler.add_job(
            self._fire,
            "interval",
            seconds=seconds,
            next_run_time=clock(),
            coalesce=True,
            max_instances=2,
            misfire_grace_time=None,
        )

    def start(self) -> None:
        self._stopping.clear()
        self._scheduler.start()

    def wake(self) -> None:
        """Asks for a tick now. While one runs, the next follows right after it."""
        self._asked.set()
        if self._stopping.is_set() or self._busy.locked():
            return  # nothing comes after the end, and a tick that runs sees that it was asked again
        try:
            self._job.modify(next_run_time=self._clock())
        except JobLookupError:
            log.debug("asked for a tick while the scheduler stops")

    def stop(self) -> None:
        """Lets the tick that runs come to its end, and no other begin."""
        self._stopping.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def _fire(self) -> None:
        """Ticks until nobody asks any more. Asked again between the last look and the release: look again."""
        self._asked.set()
        while self._asked.is_set() and not self._stopping.is_set() and self._busy.acquire(blocking=False):
            try:
                self._asked.clear()
                self._tick()
            except Exception:
                log.exception("a tick failed; the next one starts from the rows again")
                self._stopping.wait(PAUSE_SECONDS)
            finally:
                self._busy.release()
