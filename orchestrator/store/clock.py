"""The time of the database, counted on by this machine's monotonic clock between two looks at it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from orchestrator.store.database import Database

MEASURE_EVERY = 5.0
"""Seconds between two looks."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DatabaseClock:
    """What time it is for every service of one PostgreSQL server, whatever their own clocks say.

    `elapsed` counts seconds and never goes back; it goes on while the machine sleeps.
    """

    def __init__(self, database: Database, elapsed: Callable[[], float]) -> None:
        self._database = database
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._measured_at, self._offset = self._look()[:2]

    def __call__(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._elapsed() + self._offset)

    def measure(self) -> None:
        """Looks at the database's clock again, if it is time to. Raises what a database that is away does."""
        with self._lock:
            if self._elapsed() - self._measured_at < MEASURE_EVERY:
                return
            at, offset, doubt = self._look()
            self._measured_at = at
            if abs(offset - self._offset) > doubt:  # within its doubt a look says nothing new
                self._offset = offset

    def _look(self) -> tuple[float, float, float]:
        """(when, how far the database's time is ahead of `elapsed`, how long the look took), in seconds."""
        with self._database.read() as connection:
            before = self._elapsed()
            told = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
            after = self._elapsed()
        return after, float(told) - (before + after) / 2, after - before
