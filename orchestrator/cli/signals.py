"""Signals that ask a command to end: the first interrupts it, and what cleans up is not interrupted."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked for the end: it passes every `except Exception` on its way to the clean-up."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


class Interruptions:
    """Inside, the first signal to end raises `Interrupted`; those after it change nothing."""

    def __init__(self) -> None:
        self._is_held = False
        self._pending: int | None = None
        self._before: list[tuple[signal.Signals, object]] = []

    def __enter__(self) -> Self:
        self._before = [(signum, signal.signal(signum, self._handle)) for signum in ENDING]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before:
            signal.signal(signum, handler)  # type: ignore[arg-type]  # what signal() itself gave us

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, signals wait; one that came is raised at the end, unless an earlier one was."""
        before, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = before
        if self._pending is not None and not before:
            self._is_held = True
            raise Interrupted(self._pending)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self._is_held:
            self._pending = signum
            return
        self._is_held = True
        raise Interrupted(signum)
