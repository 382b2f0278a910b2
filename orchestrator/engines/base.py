"""The launcher protocol: what the service asks of whatever runs its workers.

Guarantees that every engine gives, and that one contract suite checks:

- `submit` with the same key gives the same handle and never a second worker, whoever calls it, however often.
- A worker outlives the service, and a new engine object over the same state finds it again by its key.
- `poll` is a hint. The lease, the worker's reports and its exit file decide; `UNKNOWN` is never dead.
- The engine never starts a worker again by itself.
- Every call returns or raises `EngineError` within a bounded time, so none is made inside a transaction.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from signal import Signals
from typing import Protocol

from orchestrator.domain.errors import AssayError
from orchestrator.protocol.wire import JsonObject

LOG_FILE = "worker.log"
"""The worker's output, both streams, in the attempt's directory."""

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")


class EngineError(AssayError):
    """The engine did not answer as it should."""

    status = 503
    code = "engine_error"

    def __init__(self, detail: str = "", *, ambiguous: bool = False, transient: bool = True) -> None:
        self.ambiguous = ambiguous
        """The call may have been carried out all the same: `find(key)`, or `submit` the same key again."""
        self.transient = transient
        """The same call may succeed later; False means that it never will."""
        super().__init__(detail)


class SlotKind(StrEnum):
    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class Slot:
    """One schedulable share of the machine: `cpu:0`, `gpu:1`."""

    id: str
    kind: SlotKind
    device: str
    """What it is, for people: `CPU`, `NVIDIA H100 80GB HBM3`."""


@dataclass(frozen=True)
class WorkerSpec:
    """What to start, and where. `argv[0]` is an absolute path or is looked up on PATH."""

    argv: tuple[str, ...]
    directory: Path
    """The attempt's directory: the worker's working directory, and the home of `worker.log`."""
    slots: tuple[str, ...] = ()
    """Ids of the slots it may use, each from `Engine.slots()`."""
    threads: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal environment inherited from the service; wins over what the engine sets."""


@dataclass(frozen=True)
class Handle:
    """The engine's name for one worker: JSON-serialisable, and good after a restart of the service."""

    engine: str
    key: str
    data: JsonObject = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """The handle as a JSON object, for a column; `Handle.from_json` reads it back."""
        return {"engine": self.engine, "key": self.key, "data": self.data}

    @classmethod
    def from_json(cls, value: JsonObject) -> "Handle":
        """The handle that `to_json` wrote. Raises `ValueError` for anything else."""
        engine, key, data = value.get("engine"), value.get("key"), value.get("data")
        if not (isinstance(engine, str) and isinstance(key, str) and isinstance(data, dict)):
            raise ValueError("not a handle: needs the strings `engine` and `key` and the object `data`")
        return cls(engine, key, data)


class StateKind(StrEnum):
    PENDING = "pending"
    """Accepted, not started yet."""
    RUNNING = "running"
    EXITED = "exited"
    """Ended, and `code` says how: an exit code, or minus the signal's number."""
    LOST = "lost"
    """Not there any more, and nothing says how it ended: a reboot, or its supervisor was killed too."""
    UNKNOWN = "unknown"
    """The engine cannot tell now. Never to be read as dead."""


@dataclass(frozen=True)
class WorkerState:
    """What the engine believes about one worker, with its reason in words."""

    kind: StateKind
    code: int | None = None
    reason: str = ""

    @classmethod
    def exited(cls, code: int) -> "WorkerState":
        """Ended with an exit code, or minus the number of the signal that ended it."""
        how = f"exit code {code}" if code >= 0 else f"ended by {Signals(-code).name}"
        return cls(StateKind.EXITED, code, how)

    @property
    def is_over(self) -> bool:
        """True if no process of this worker is left."""
        return self.kind in {StateKind.EXITED, StateKind.LOST}


class Engine(Protocol):
    """A place where workers run. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """`local`, `slurm`, ...: what `Handle.engine` says."""
        ...

    def slots(self) -> tuple[Slot, ...]:
        """Every slot there is, busy or not, in a fixed order."""
        ...

    def submit(self, key: str, spec: WorkerSpec) -> Handle:
        """The handle of the one worker of `key`, started now unless it was before (even if it has ended).

        Raises `EngineError`; after an ambiguous one the worker may be there: submit again or `find`.
        """
        ...

    def find(self, key: str) -> Handle | None:
        """The handle of `key`, or None if no worker was ever started for it."""
        ...

    def poll(self, handles: Sequence[Handle]) -> dict[str, WorkerState]:
        """One state per handle, by key. A handle that this engine never gave is `LOST`."""
        ...

    def signal(self, handle: Handle, signum: int) -> None:
        """The worker itself (not its children) is sent `signum`; nothing happens if it is over."""
        ...

    def cancel(self, handle: Handle, grace_seconds: float) -> None:
        """TERM to the worker and its children now, KILL to what is left of them after the grace.

        Returns at once. Calling it again never lengthens the grace and may shorten it; no grace kills now.
        """
        ...

    def logs(self, handle: Handle, offset: int, limit: int) -> tuple[bytes, int]:
        """At most `limit` bytes of the worker's output from `offset`, and the offset to go on from."""
        ...

    def list_owned(self) -> list[Handle]:
        """Every worker that this engine still has a record of, running or over, ordered by key."""
        ...

    def forget(self, keys: Sequence[str]) -> int:
        """Drops the records of those of these workers of which no process is left; how many they were.

        Nobody may submit such a key again: it would start another worker.
        """
        ...

    def close(self) -> None:
        """Lets go of the engine's own resources; workers stay as they are."""
        ...


def check_key(key: str) -> str:
    """`key`, if it is safe as a file name and a job name. Raises a lasting `EngineError` otherwise."""
    if not _KEY.fullmatch(key):
        raise EngineError(
            "a key is 1-120 letters, digits, '.', '_' or '-', not first '.' or '-'", transient=False
        )
    return key


def processes_on(engine: Engine, slots: Sequence[str]) -> int:
    """How many processes train a run on these slots: one for each GPU; CPU slots are threads of one."""
    there = {slot.id for slot in engine.slots() if slot.kind is SlotKind.GPU}
    return max(1, len(there.intersection(slots)))
