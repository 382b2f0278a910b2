"""SIGTERM and SIGINT: noted for the next step boundary, or heeded at once where there are no steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        """In here a signal raises `Preempted`, once, so that what cleans up is not interrupted too."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._come = True
        if self._at_once:
            self._at_once = False
            raise Preempted(_WORDS)


@contextmanager
def leaving_at_once(interrupted: Callable[[], bool]) -> Iterator[None]:
    """For work without step boundaries: a signal that `interrupted` hears raises `Preempted` in here."""
    if not isinstance(interrupted, Interrupt):
        yield
        return
    with interrupted.at_once():
        yield
    if interrupted():  # a library has swallowed the exception
        raise Preempted(_WORDS)


_WORDS = "a signal asked it to leave before the first step"
