"""How a worker ends: its exit code and `exit.json`."""

from enum import IntEnum

from orchestrator.protocol.wire import Count, WireModel


class ExitCode(IntEnum):
    """The documented exit codes of a worker. Any other code, or a signal, is a crash."""

    FINISHED = 0
    """Trained to its last step, or did what a directive asked and has nothing left to do."""
    CRASHED = 1
    """An error that nobody foresaw; the traceback is in the log."""
    AT_GATE = 10
    """Checkpointed at its target and left: told to yield, or the service did not answer in time."""
    STOPPED = 11
    """Checkpointed and left because a directive said stop."""
    PREEMPTED = 12
    """Checkpointed and left because of SIGTERM or SIGINT."""
    CONFIG_ERROR = 20
    DATA_ERROR = 21
    CHECKPOINT_ERROR = 22
    """No checkpoint that may be resumed from can be read, though the run has some."""
    DIVERGED = 30
    OUT_OF_MEMORY = 31
    DISK_FULL = 32
    STALE_EPOCH = 40
    """The service said that another attempt holds the lease."""


class ExitRecord(WireModel):
    """`exit.json`: the worker's own account of its end."""

    code: int
    message: str = ""
    """One sentence for a person; names the field and the fix for a config or data error."""
    step: Count = 0
