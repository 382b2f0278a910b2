"""`assay serve --keep`: a parent that starts the service again whenever it ends, and lets its workers be.

In a container the service cannot be the first process: its end would be the container's, and its workers'.
SIGHUP restarts the service alone; SIGTERM and SIGINT end the service and the keeper.
"""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

SERVICE = (sys.executable, "-m", "orchestrator.bootstrap")
BAD_SETTINGS = 2
"""The exit code that no restart would change: the settings are those of this process."""
LONGEST_PAUSE = 30.0
"""Seconds."""
SETTLED_SECONDS = 60.0
"""A service that was up for so long has started well: the next pause is short again."""
PATIENCE_SECONDS = 15.0
"""From SIGTERM to SIGKILL. The service leaves by itself after ten."""

log = logging.getLogger("assay.keeper")


def pause_after(failures: int) -> float:
    """Seconds before the next start, after so many ends in a row that came soon: 1, 2, 4, up to 30."""
    return min(LONGEST_PAUSE, 2.0 ** max(0, failures - 1))


class Keeper:
    """Signals become words in a queue, so that none is missed between two looks."""

    def __init__(self, command: Sequence[str] = SERVICE) -> None:
        self._command = command
        self._heard: SimpleQueue[int] = SimpleQueue()
        self._failures = 0

    def run(self) -> int:
        """Keeps the service until it is asked to end; its exit code then."""
        for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(signum, lambda heard, _frame: self._heard.put(heard))
        while True:
            code, asked = self._serve_once()
            if asked in (signal.SIGTERM, signal.SIGINT):
                return code
            if code == BAD_SETTINGS:
                log.error("the service refuses its settings: mend them and start again")
                return code
            if asked is None and self._told_to_end_while_pausing(code):
                return code

    def _serve_once(self) -> tuple[int, int | None]:
        """The exit code, and the signal that asked for the end; None if the service ended by itself."""
        started = time.monotonic()
        # A session of its own: Ctrl-C in a terminal reaches the keeper alone, who passes it on once.
        service = subprocess.Popen(self._command, start_new_session=True)
        log.info("service started (pid %d)", service.pid)
        asked = self._wait(service)
        if asked is not None:
            _end(service)
        settled = time.monotonic() - started >= SETTLED_SECONDS
        self._failures = 0 if asked is not None or settled else self._failures + 1
        return service.wait(), asked

    def _wait(self, service: "subprocess.Popen[bytes]") -> int | None:
        while service.poll() is None:
            heard = self._heard.get()
            if heard != signal.SIGCHLD:
                return heard
        return None

    def _told_to_end_while_pausing(self, code: int) -> bool:
        """Whether a signal to end came. SIGHUP cuts the pause short."""
        pause = pause_after(self._failures)
        log.warning("the service ended with code %d; started again in %.0f s", code, pause)
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            try:
                heard = self._heard.get(timeout=left)
            except Empty:
                return False
            if heard in (signal.SIGTERM, signal.SIGINT):
                return True
            if heard == signal.SIGHUP:
                return False
        return False


def _end(service: "subprocess.Popen[bytes]") -> None:
    service.terminate()
    try:
        service.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("the service did not end within %.0f s and is killed", PATIENCE_SECONDS)
        service.kill()


def main() -> int:
    """The exit code of the service when it was asked to end, and at once when it refuses its settings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return Keeper().run()


if __name__ == "__main__":
    sys.exit(main())
