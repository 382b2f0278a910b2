"""Why a worker ends before its work is done.

WorkerProblem                 the message is for a person; `code` is the exit code
+-- Preempted                 12  SIGTERM or SIGINT, where there is no step to finish
+-- ConfigMismatch            20  a checkpoint of another config or horizon
+-- DataProblem               21  the text is missing, too small, or out of reach
+-- CheckpointProblem         22  the run has checkpoints and none can be read
+-- Diverged                  30  too many steps in a row were not finite
+-- DiskFull                  32  no room for a checkpoint or a report
+-- StaleEpoch                40  another attempt holds the lease
"""

import errno

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk, a used-up quota and a limit on a file's size are told as."""


class WorkerProblem(Exception):
    """Ends the worker with `code`; the text says what happened and what to do."""

    code = ExitCode.CRASHED


class Preempted(WorkerProblem):
    """A signal came while there was no step to finish and nothing to save."""

    code = ExitCode.PREEMPTED


class ConfigMismatch(WorkerProblem):
    """The checkpoint was written under another config, tokenizer or horizon."""

    code = ExitCode.CONFIG_ERROR


class DataProblem(WorkerProblem):
    """The text cannot be had as the config asks."""

    code = ExitCode.DATA_ERROR


class CheckpointProblem(WorkerProblem):
    """No checkpoint that may be resumed from can be read, though the run has some."""

    code = ExitCode.CHECKPOINT_ERROR


class Diverged(WorkerProblem):
    """The loss or the gradient stayed not finite."""

    code = ExitCode.DIVERGED


class DiskFull(WorkerProblem):
    """The disk has no room for a checkpoint or for the spool."""

    code = ExitCode.DISK_FULL


class StaleEpoch(WorkerProblem):
    """The service said that another attempt holds the lease."""

    code = ExitCode.STALE_EPOCH


def code_for(error: BaseException) -> ExitCode:
    """The exit code that accounts for `error`; `CRASHED` for one that nobody foresaw."""
    if isinstance(error, WorkerProblem):
        return error.code
    if isinstance(error, ConfigProblem):
        return ExitCode.CONFIG_ERROR
    if isinstance(error, OSError) and error.errno in FULL:
        return ExitCode.DISK_FULL
    if _out_of_memory(error):
        return ExitCode.OUT_OF_MEMORY
    return ExitCode.CRASHED


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
