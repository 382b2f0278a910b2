"""Rows as frozen values. A field has the name of its column."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, ClassVar, Protocol, TypeVar

from sqlalchemy import Connection, Row, Select

from orchestrator.domain.lifecycle import AttemptStatus, ExperimentStatus, RunStatus, StageStatus
from orchestrator.protocol.wire import JsonObject


class Record(Protocol):
    """A dataclass whose fields are columns."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class ExperimentRecord:
    id: int
    name: str
    question: str
    status: ExperimentStatus
    conclusion: str | None
    control: str
    trainer: str
    policy: JsonObject
    policy_hash: str
    spec: JsonObject
    spec_hash: str
    created_at: datetime
    ended_at: datetime | None
    priority: int
    held: str | None
    """Why its gates hold, where they do: the control ended and no reference stands in for it."""
    reference_id: int | None
    """The stored curve that stands in for a control that died."""
    shadow: JsonObject | None
    """The second policy, whose decisions are logged and never acted upon."""


@dataclass(frozen=True)
class StageRecord:
    id: int
    experiment_id: int
    position: int
    name: str
    steps: int
    status: StageStatus
    conclusion: str | None
    closed_at: datetime | None


@dataclass(frozen=True)
class VariantRecord:
    id: int
    experiment_id: int
    name: str
    is_control: bool
    stage: int
    overrides: JsonObject
    config: JsonObject
    config_hash: str
    facts: JsonObject
    origin: JsonObject | None
    """Of a variant that a result chose: what it was made from, and by which losses."""


@dataclass(frozen=True)
class DependentRow:
    """A variant that waits for a result. `status`: waiting, resolved or dropped; `detail` says why."""

    id: int
    experiment_id: int
    name: str
    stage: int
    kind: str
    sources: list[str]
    overrides: JsonObject
    status: str
    detail: str | None
    variant_id: int | None


@dataclass(frozen=True)
class RunRecord:
    """A run with its variant's name: what nearly every reader of a run needs."""

    id: int
    experiment_id: int
    variant_id: int
    variant: str
    variant_stage: int
    """Index of the stage that its variant begins in."""
    is_control: bool
    seed: int
    status: RunStatus
    reason: str | None
    detail: str | None
    stage: int
    step: int
    target_step: int
    epoch: int
    identity: JsonObject | None
    tokens_per_second: float | None
    not_before: datetime | None
    resume_at_most: int | None
    created_at: datetime
    ended_at: datetime | None
    linked_run_id: int | None
    """The run of an equal config whose curve and checkpoints this one took over, if it did."""
    history_from: int
    """Attempts up to this number do not count against retries: a person took the run up again after them."""
    memory_factor: int
    """Into how many times as many passes a step is divided as the config says, after an out of memory."""


@dataclass(frozen=True)
class AttemptRecord:
    id: int
    run_id: int
    number: int
    epoch: int
    status: AttemptStatus
    key: str
    slots: list[str]
    directory: str
    token_hash: bytes
    handle: JsonObject | None
    acknowledged: int
    resumed_from_step: int | None
    step: int
    lease_expires_at: datetime
    created_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    reason: str | None
    detail: str | None
    identity: JsonObject | None
    phase: str | None
    """Where its worker said last that it is."""
    progress_at: datetime | None
    """When its worker last came further, or stood at its gate: what the progress deadline counts from."""


@dataclass(frozen=True)
class CheckpointRow:
    id: int
    run_id: int
    attempt_id: int
    step: int
    path: str
    manifest_sha256: str
    size_bytes: int
    created_at: datetime
    damage: str | None
    """What was wrong with its files when somebody last read them."""
    removed_at: datetime | None
    """When retention removed its files: no gate could need them any more."""


@dataclass(frozen=True)
class DecisionRecord:
    id: int
    key: str
    experiment_id: int
    run_id: int
    stage: str
    step: int
    kind: str
    reason: str
    author: str
    verdict: str
    text: str
    criteria: list[JsonObject]
    evidence: JsonObject
    policy_name: str
    policy_hash: str
    created_at: datetime
    gate_id: int | None
    attempt: int | None
    """The number of the attempt whose evaluation was judged; None at a gate and for a person's decision."""
    shadow: bool
    """Logged by a second policy and never acted upon."""


@dataclass(frozen=True)
class GateRow:
    """One gate or point that was judged, and what it saw: enough to judge it again."""

    id: int
    key: str
    experiment_id: int
    stage: int
    step: int
    phase: str
    inputs: JsonObject
    conclusion: str | None
    created_at: datetime


@dataclass(frozen=True)
class StoredCurveRow:
    """A reference: a curve that is not rerun."""

    id: int
    name: str
    description: str
    source: JsonObject
    identity: JsonObject | None
    evaluations: list[JsonObject]
    train_loss: list[list[float]]
    notes: list[str]
    content_hash: str
    created_at: datetime


@dataclass(frozen=True)
class PolicyRow:
    id: int
    name: str
    version: int
    hash: str
    document: JsonObject
    created_at: datetime


@dataclass(frozen=True)
class EventRecord:
    id: int
    kind: str
    experiment_id: int | None
    run_id: int | None
    text: str
    at: datetime


_ENUMS: dict[tuple[type, str], type] = {
    (ExperimentRecord, "status"): ExperimentStatus,
    (StageRecord, "status"): StageStatus,
    (RunRecord, "status"): RunStatus,
    (AttemptRecord, "status"): AttemptStatus,
}


def fetch(connection: Connection, query: Select[Any], record: type[R], **values: Any) -> list[R]:
    """Every row of `query`, with `values` for its bound parameters, as a `record`."""
    result = connection.execute(query, values)
    make = _maker(record, tuple(result.keys()))
    return [make(row) for row in result]


def fetch_one(connection: Connection, query: Select[Any], record: type[R], **values: Any) -> R | None:
    """The first row of `query`, with `values` for its bound parameters, as a `record`; or None."""
    result = connection.execute(query, values)
    row = result.first()
    return None if row is None else _maker(record, tuple(result.keys()))(row)


@lru_cache(maxsize=128)
def _maker(record: type[R], columns: tuple[str, ...]) -> Callable[[Row[Any]], R]:
    """What makes a record of a row, by position: a tick reads a thousand rows of twenty columns."""
    names = [f.name for f in fields(record)]
    pick = itemgetter(*(columns.index(name) for name in names))
    enums = [(i, _ENUMS[record, name]) for i, name in enumerate(names) if (record, name) in _ENUMS]

    def make(row: Row[Any]) -> R:
        values = list(pick(row))
        for place, enum in enums:
            values[place] = enum(values[place])
        return record(*values)

    return make
