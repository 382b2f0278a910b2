"""One process at a time in a run directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.protocol.exit import ExitCode
from trainer.problems import WorkerProblem

LOCK = ".training"


class InUse(WorkerProblem):
    """Another process trains in the run directory."""

    code = ExitCode.CONFIG_ERROR


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Holds `directory`, made if need be; the system frees it when the process dies. Raises `InUse`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise InUse(
                f"--run-dir {directory}: process {stream.read().strip() or 'unknown'} is training there: "
                "wait for its end, or give another directory"
            ) from None
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield
