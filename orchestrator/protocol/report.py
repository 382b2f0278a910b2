"""What a worker says: evaluations, dense points, checkpoints, its end; and what it is answered."""

from enum import StrEnum

from pydantic import Field

from orchestrator.protocol.exit import ExitRecord
from orchestrator.protocol.wire import Count, Ordinal, WireModel


class Routing(WireModel):
    """Health of an MoE's routing over the evaluation window, from true top-k loads.

    Loads are shares that sum to 1 over the experts; entropies are normalised, `H / ln E`.
    """

    num_experts: Ordinal
    entropy: float
    """Of the loads, mean over layers (or depth applications)."""
    entropy_worst_layer: float
    load_min: float
    load_max: float
    load_top: tuple[float, ...] = ()
    """The largest loads, descending, of the loads averaged over layers."""
    dropped_tokens: Count = 0
    """Assignments over an expert's capacity, over the window and all layers; 0 without a capacity."""
    dead_experts: Count = 0
    """Experts with a load below `0.1 / E`, in the layer that has most of them."""
    layer_loads: tuple[tuple[float, ...], ...] = ()
    """Layers (or depth applications) by experts; may be empty when a trainer does not record it."""


class Evaluation(WireModel):
    """What is measured every `eval_every` steps. Losses in nats per token."""

    step: Count
    tokens: Count
    """Training tokens seen so far."""
    eval_loss: float
    perplexity: float
    train_loss: float
    """Mean over the steps since the evaluation before."""
    learning_rate: float
    grad_norm: float
    """Before clipping, at this step."""
    nan_events: Count = 0
    """Steps skipped for a loss or gradient that was not finite, since the run began."""
    tokens_per_second: float
    wall_seconds: float
    """Spent training since the run began, over all attempts, without evaluations and checkpoints."""
    peak_memory_bytes: Count | None = None
    flops_utilisation: float | None = None
    """Share of the devices' peak; None where the peak is not known."""
    aux_loss: float | None = None
    """As the config defines it: mean over the steps since the evaluation before."""
    aux_loss_pooled: float | None = None
    """Of the loads pooled over depth, at this step."""
    aux_coef: float | None = None
    routing: Routing | None = None


class Point(WireModel):
    """One value of a dense series; `train_loss` at least is expected between evaluations."""

    step: Count
    name: str = Field(pattern=r"^[A-Za-z0-9_./-]{1,100}$")
    value: float


class Identity(WireModel):
    """What makes two runs comparable, and what it takes to run this one again. Sent once per attempt."""

    evaluation_set: str
    """Hash of the evaluation tokens."""
    tokenizer: str
    schedule_family: str
    horizon_step: Ordinal
    tokens_per_step: Ordinal
    parameters_total: Count
    parameters_active: Count
    flops_per_token: float
    """Forward pass, active parameters alone."""
    device: str
    threads: Count | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    """Of Python and of the packages that the training rests on."""
    code: dict[str, str] = Field(default_factory=dict)
    """Where it is known: `git_commit`, and `git_diff_sha256` of what was not committed, or `clean`."""
    warmup_steps: Count | None = None
    """Steps of the schedule's rise; None where the trainer does not say."""
    decay_from_step: Count | None = None
    """The step from which the schedule's last decay lowers the rate; None where it has no such phase."""


class CheckpointRecord(WireModel):
    """One checkpoint on disk, complete and verified by its writer."""

    step: Count
    path: str
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: Count
    eval_loss: float | None = None


class PassedOver(WireModel):
    """A checkpoint that could not be resumed from, so an older one was."""

    step: Count
    path: str
    problem: str
    """What is wrong with it, in words."""


class Phase(StrEnum):
    """Where the worker is."""

    STARTING = "starting"
    TRAINING = "training"
    AT_GATE = "at_gate"
    ENDED = "ended"


class Report(WireModel):
    """One spool line and one POST. Keyed by attempt and `sequence`: the same again is a no-op."""

    epoch: Ordinal
    sequence: Ordinal
    phase: Phase
    step: Count
    resumed_from_step: Count | None = None
    """In an attempt's first report: the step of the checkpoint that it went on from (0: from scratch)."""
    identity: Identity | None = None
    evaluations: tuple[Evaluation, ...] = ()
    points: tuple[Point, ...] = ()
    checkpoints: tuple[CheckpointRecord, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    """In an attempt's first report: checkpoints newer than the one it went on from, and why not those."""
    notes: tuple[str, ...] = ()
    """Sentences for a person."""
    exit: ExitRecord | None = None


class Heartbeat(WireModel):
    """Renews the lease, shows progress, asks for the directive."""

    epoch: Ordinal
    phase: Phase
    step: Count
    tokens_per_second: float | None = None


class DirectiveKind(StrEnum):
    """What a worker does next, obeyed at a step boundary."""

    CONTINUE = "continue"
    """Train on to `target_step`."""
    WAIT = "wait"
    """At the gate: keep the slot and ask again."""
    STOP = "stop"
    """Checkpoint and exit with `STOPPED` (or `FINISHED` when the run has reached its end)."""
    YIELD = "yield"
    """Checkpoint and exit with `AT_GATE`: the slot is needed; the run goes on later."""


class Directive(WireModel):
    kind: DirectiveKind
    target_step: Count
    reason: str = ""


class Answer(WireModel):
    """The reply to a report or a heartbeat."""

    acknowledged: Count
    """Every report of this attempt up to this sequence is committed."""
    directive: Directive
