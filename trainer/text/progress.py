"""How far a long preparation is: a bar on a terminal, a line of the log every few seconds elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 5.0  # seconds between lines
MEGABYTE = 1e6
log = logging.getLogger(__name__)


@contextmanager
def progress(what: str, total: int | None = None, every: float = EVERY) -> Iterator[Callable[[int], None]]:
    """Yields `advance(bytes)`; `total` is in bytes, None when it is not known before the end."""
    if not sys.stderr.isatty():
        yield _lines(what, total, every)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.update(task, advance=amount)


def _lines(what: str, total: int | None, every: float) -> Callable[[int], None]:
    started = said = time.monotonic()
    done = 0

    def advance(amount: int) -> None:
        nonlocal done, said
        done += amount
        now = time.monotonic()
        if now - said < every:
            return
        said = now
        of = f" of {total / MEGABYTE:,.1f}" if total else ""
        rate = done / MEGABYTE / (now - started)
        log.info("%s: %.1f%s MB, %.1f MB/s", what, done / MEGABYTE, of, rate)

    return advance
