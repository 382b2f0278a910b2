"""Room on the disk for a checkpoint: looked for before it is written, and said plainly when there is none."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.contract import folders
from trainer.problems import FULL, DiskFull

MARGIN_BYTES = 2**20
"""Left for the spool, the log and the exit record, besides a twentieth of the checkpoint."""

Free = Callable[[Path], int]


def free_bytes(directory: Path) -> int:
    """What this user may still write to the directory's disk; a quota is not seen."""
    return shutil.disk_usage(directory).free


@contextmanager
def room(
    directory: Path, step: int, size: int, keep_steps: Iterable[int], free: Free = free_bytes
) -> Iterator[None]:
    """Around the writing of the checkpoint of `step`, of about `size` bytes, under the attempt's `directory`.

    Older checkpoints of the attempt that no gate needs go first. Raises `DiskFull` when it does not fit, or
    when the disk fills while it is written.
    """
    needed = size + size // 20 + MARGIN_BYTES
    if free(directory) < needed:
        _clear(directory, keep_steps, lambda: free(directory) >= needed)
    if free(directory) < needed:
        raise DiskFull(_told(directory, step, needed, free, "does not fit on the disk"))
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        problem = f"could not be written ({error.strerror})"
        raise DiskFull(_told(directory, step, needed, free, problem)) from error


def _told(directory: Path, step: int, needed: int, free: Free, problem: str) -> str:
    there = f"{needed / 2**20:.1f} MiB are needed in {directory} and {free(directory) / 2**20:.1f} are free"
    return f"the checkpoint of step {step} {problem}: {there}; make room there"


def _clear(directory: Path, keep_steps: Iterable[int], is_enough: Callable[[], bool]) -> None:
    """Removes older checkpoints, oldest first, until it is enough; never the newest whole one."""
    kept = set(keep_steps)
    for path in reversed(_before_the_newest_whole(directory)):
        if is_enough():
            return
        if folders.step_of(path) not in kept:
            folders.remove(path)


def _before_the_newest_whole(directory: Path) -> list[Path]:
    """What could go, newest first: read from disk, so that what is kept can be gone on from."""
    found = folders.candidates([directory])
    for number, path in enumerate(found):
        try:
            folders.verify(path)
        except folders.Damaged:
            continue
        return found[number + 1 :]
    return []
