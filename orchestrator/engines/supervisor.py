"""Runs one worker and outlives it: claims the key, starts the worker, writes down how it ended.

Started by the local engine as a program of its own (`python -I -S supervisor.py CLAIM ENDING LOG ARGV...`),
in a new session, so it imports nothing of this package. The claim is one hard link made from a finished file:
it is there whole or not at all, and only one supervisor can make it. So a service that dies between starting
this program and noting that it did, or two that start it at once, never get two workers for one key.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_OUTLIVED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_CANNOT_START = 127  # what a shell answers for a program that is not there


def main(arguments: list[str]) -> int:
    """0 when the worker has ended and its ending is written, or when another supervisor has the key."""
    claim, ending, log, *argv = arguments
    for signum in _OUTLIVED:
        signal.signal(signum, _stay)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    if not _take(Path(claim)):
        return 0
    os.dup2(output, 1)  # until here both were a pipe to the engine: its end is the news that the key is taken
    os.dup2(output, 2)
    _write(Path(f"{ending}.{os.getpid()}"), f"{_run(argv)}\n").replace(ending)
    return 0


def _stay(_signum: int, _frame: FrameType | None) -> None:
    """Nothing: a handler, unlike SIG_IGN, is not inherited by the worker."""


def _take(claim: Path) -> bool:
    """True if the key is ours now: boot id, this process's stat line and the directory are on disk."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    stat = Path("/proc/self/stat").read_text().strip()
    mine = _write(Path(f"{claim}.{os.getpid()}"), f"{boot}\n{stat}\n{Path.cwd()}\n")
    try:
        os.link(mine, claim)
    except FileExistsError:
        return False
    finally:
        mine.unlink()
    return True


def _run(argv: list[str]) -> int:
    """The worker's exit code, or minus the signal that ended it. It leads a process group of its own."""
    reset = (*_OUTLIVED, *_IGNORED_BY_PYTHON)
    try:
        worker = os.posix_spawnp(argv[0], argv, os.environ, setpgroup=0, setsigmask=(), setsigdef=reset)
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]}: {error.strerror}\n")
        return _CANNOT_START
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


def _write(path: Path, text: str) -> Path:
    """`path`, holding `text` even after a power cut."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
