"""Starts the trainer of the chaos runs: in its place, or out of the engine's sight where that was asked for.

    python launcher.py ASSIGNMENT HISTORY

A file `escape` in the history folder, taken by the worker that finds it first, makes the trainer a process of
a session of its own without the engine's mark: the engine sees this program alone, as if the trainer ran on a
machine that the network has cut off. Killing this program then makes it a zombie in all its strength.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def main(assignment: str, history: str) -> int:
    """The trainer's exit code, where this program waits for it; otherwise it becomes the trainer."""
    argv = [sys.executable, "-m", "chaos.steady", assignment, history]
    if not _taken(Path(history) / "escape"):
        os.execv(sys.executable, argv)  # noqa: S606 - the same program, in its place
    environment = {name: value for name, value in os.environ.items() if name != "ASSAY_WORKER"}
    child = os.posix_spawn(sys.executable, argv, environment, setsid=True)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, _: _pass_on(child, number))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _taken(flag: Path) -> bool:
    try:
        flag.unlink()
    except FileNotFoundError:
        return False
    return True


def _pass_on(child: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, signal.Signals(signum))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
