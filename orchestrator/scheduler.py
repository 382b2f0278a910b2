"""A thread fires the tick; nothing is decided here.

It waits by the monotonic clock: a wall clock that is set back must not stop the ticks for as long.
"""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from orchestrator.domain.errors import AssayError

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""After a tick that failed: one that fails at once and asks for the next would take a whole core."""


class Ticker:
    """Runs `tick` at once, `seconds` after each end, and after `wake`. One at a time; no wake is lost."""

    def __init__(self, tick: Callable[[], None], seconds: float) -> None:
        self._tick = tick
        self._seconds = seconds
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = ""

    def start(self) -> None:
        self._stopping.clear()
        self._asked.set()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Asks for a tick now. While one runs, the next follows right after it."""
        self._asked.set()

    def stop(self) -> None:
        """Lets the tick that runs come to its end, and no other begin."""
        self._stopping.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._asked.wait(self._seconds)
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
