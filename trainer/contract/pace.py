"""When a worker sends what: a report that is put off keeps no heartbeat waiting. Times in seconds, told."""

from dataclasses import dataclass

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 3.0


@dataclass
class Pace:
    """`heard` is when the service last took something, or a heartbeat was last tried."""

    heard: float
    hurried: bool = False
    """The worker leaves: reports are tried again soon, whatever the service asked for."""
    _backoff: float = FIRST_BACKOFF_SECONDS
    _tried: float = float("-inf")
    _silent: float = float("-inf")
    """Nothing is sent before: the service was out of reach, or put a heartbeat off."""
    _put_off: float = float("-inf")
    """No report is sent before."""

    def due(self, interval: float, *, waiting: bool) -> tuple[float, bool]:
        """When the next message is to be sent, and whether it is a report: there is one if `waiting`."""
        beat = max(self.heard + interval, self._silent)
        report = max(self._put_off, self._silent) if waiting else float("inf")
        if self.hurried:
            report = min(report, self._tried + FIRST_BACKOFF_SECONDS) if waiting else report
        return min(beat, report), report <= beat

    def taken(self, now: float, *, report: bool) -> None:
        """The service answered, for good or ill."""
        self.heard, self._silent = now, float("-inf")
        if report:
            self._backoff, self._put_off = FIRST_BACKOFF_SECONDS, float("-inf")

    def failed(self, now: float, *, report: bool, reached: bool, wait: float = 0.0) -> None:
        """The same has to be sent again, `wait` seconds later at least."""
        until, self._tried = now + max(wait, self._backoff), now
        self._backoff = min(LONGEST_BACKOFF_SECONDS, 2 * self._backoff)
        if report and reached:
            self._put_off = until
            return
        self._silent = until
        if not report:
            self.heard = now
