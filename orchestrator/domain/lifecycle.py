"""Few statuses, many reasons: each reason maps to one status, and one table says what may follow what."""

from enum import StrEnum

from orchestrator.domain.errors import IllegalTransition


class RunStatus(StrEnum):
    PENDING = "pending"
    """Wants a slot; the plan moves it on. A run that took over another's curve may be at its gate at once."""
    STARTING = "starting"
    """Its attempt is committed and a worker is being launched; the worker's first report moves it on."""
    RUNNING = "running"
    """A worker trains it; reports move it on."""
    AT_GATE = "at_gate"
    """It has its stage's evaluation and waits, with or without a worker; the gate moves it on."""
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_TERMINAL: frozenset[RunStatus] = frozenset()
_ENDS = frozenset({RunStatus.SUCCEEDED, RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED})

TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset({RunStatus.STARTING, RunStatus.AT_GATE}) | _ENDS,
    RunStatus.STARTING: frozenset({RunStatus.RUNNING, RunStatus.AT_GATE, RunStatus.PENDING}) | _ENDS,
    RunStatus.RUNNING: frozenset({RunStatus.AT_GATE, RunStatus.PENDING}) | _ENDS,
    RunStatus.AT_GATE: frozenset({RunStatus.RUNNING, RunStatus.PENDING}) | _ENDS,
    RunStatus.SUCCEEDED: _TERMINAL,
    RunStatus.STOPPED: _TERMINAL,
    RunStatus.FAILED: _TERMINAL,
    RunStatus.CANCELLED: _TERMINAL,
}


class Reason(StrEnum):
    """Why a run ended, or why an attempt did."""

    FINISHED = "finished"
    NOT_PROMOTED = "not_promoted"
    OUTRANKED = "outranked"
    BUDGET_EXHAUSTED = "budget_exhausted"
    PLATEAU = "plateau"
    DIVERGED = "diverged"
    UNHEALTHY_ROUTING = "unhealthy_routing"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    LOST = "lost"
    CRASHED = "crashed"
    STALLED = "stalled"
    PREEMPTED = "preempted"
    YIELDED = "yielded"
    LINKED = "linked"
    STALE_EPOCH = "stale_epoch"
    USER = "user"
    USER_STOPPED = "user_stopped"
    CONTROL_FAILED = "control_failed"
    CONFIG_ERROR = "config_error"
    DATA_ERROR = "data_error"
    CHECKPOINT_ERROR = "checkpoint_error"
    ENGINE_ERROR = "engine_error"

    @property
    def status(self) -> RunStatus:
        """The terminal status of a run that ends for this reason."""
        return _STATUS_OF.get(self, RunStatus.FAILED)


_STATUS_OF = {
    Reason.FINISHED: RunStatus.SUCCEEDED,
    Reason.NOT_PROMOTED: RunStatus.STOPPED,
    Reason.OUTRANKED: RunStatus.STOPPED,
    Reason.BUDGET_EXHAUSTED: RunStatus.STOPPED,
    Reason.PLATEAU: RunStatus.STOPPED,
    Reason.UNHEALTHY_ROUTING: RunStatus.STOPPED,
    Reason.USER_STOPPED: RunStatus.STOPPED,
    Reason.CONTROL_FAILED: RunStatus.STOPPED,
    Reason.USER: RunStatus.CANCELLED,
}


def move(now: RunStatus, then: RunStatus) -> RunStatus:
    """`then`, if it may follow `now`. Raises `IllegalTransition` otherwise; staying is always allowed."""
    if then != now and then not in TRANSITIONS[now]:
        raise IllegalTransition(f"a run that is {now} cannot become {then}")
    return then


class ExperimentStatus(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self not in {ExperimentStatus.RUNNING, ExperimentStatus.PAUSED}


class StageStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    JUDGING = "judging"
    """Between its last evaluation and its gate: one transaction holds both, so no reader sees it."""
    CLOSED = "closed"


class AttemptStatus(StrEnum):
    INTENT = "intent"
    """Committed, and no engine has confirmed it yet."""
    LAUNCHED = "launched"
    ENDED = "ended"
