"""SIGTERM and SIGINT: noted for the next step boundary, or heeded at once where there are no steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from trainer.problems import Preempted


class Interrupt:
    """Called, says whether SIGTERM or SIGINT has come."""

    def __init__(self) -> None:
        self._come = self._at_once = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def __call__(self) -> bool:
        return self._come

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In here a signal raises, once, so that what cleans up is not interrupted too: `Preempted`."""
        self._at_once = True
        try:
            yield
        except _Leave:
            raise Preempted("a signal asked it to leave before the first step") from None
        finally:
            self._at_once = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._come = True
        if self._at_once:
            self._at_once = False
            raise _Leave


class _Leave(BaseException):
    """No `Exception`: logging and libraries swallow those, and would wait on."""


@contextmanager
def leaving_at_once(interrupted: Callable[[], bool]) -> Iterator[None]:
    """For work without step boundaries: a signal that `interrupted` hears raises `Preempted` in here."""
    with interrupted.at_once() if isinstance(interrupted, Interrupt) else nullcontext():
        yield
