"""What a worker is told to do: `assignment.json` in the attempt's directory."""

from typing import Literal

from pydantic import Field

from orchestrator.protocol.wire import Count, JsonObject, Ordinal, WireModel


class ServiceAddress(WireModel):
    """Where and as whom the worker reports."""

    url: str
    token: str
    address_file: str | None = None
    """A JSON file `{"url": ...}` that the service rewrites when it comes back on another port."""


class Assignment(WireModel):
    """One attempt at one run: train `config` from the newest good checkpoint to `target_step`, then ask."""

    protocol: Literal[1] = 1
    experiment_id: str
    run_id: str
    attempt_id: str
    attempt: Ordinal
    epoch: Ordinal
    """The fencing number of this attempt's lease: every write of the worker carries it."""
    variant: str
    seed: Count
    config: JsonObject
    """The trainer's own config, complete: validated by the trainer kind's model at submission."""

    target_step: Ordinal
    horizon_step: Ordinal
    """The last stage's step: what schedules are sized to, whatever the target is today."""
    gate_steps: tuple[Ordinal, ...] = ()
    """Steps of the stages: checkpoints there outlive the retention of the others."""
    eval_every: Ordinal

    directory: str
    """The attempt's own directory: spool, log, exit file and checkpoints are written here alone."""
    resume_from: tuple[str, ...] = ()
    """Directories of the run's earlier attempts, newest first, whose `checkpoints/` may be resumed from."""
    resume_at_most: Count | None = None
    """Checkpoints past this step are not resumed from (a retry after divergence goes back before it)."""
    cache_directory: str
    """Shared by all workers of one service: tokenizers and tokenised text, keyed by content hash."""
    threads: Ordinal | None = None
    processes: Ordinal = 1
    """How many train the run together, one on each of its GPUs; on CPU slots one, with more threads."""
    memory_factor: Ordinal = 1
    """A step is divided into so many times as many passes as the config says: same tokens, less memory."""
    device: str | None = None
    """`cpu`, `cuda`, or None for what the machine has."""

    service: ServiceAddress | None = None
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    gate_poll_seconds: float = Field(default=0.25, gt=0)
    gate_wait_seconds: float = Field(default=300.0, ge=0)
    """How long a worker waits at a gate for an answer before it leaves with exit code `AT_GATE`."""
