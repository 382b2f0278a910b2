"""Workers as processes of this machine. Linux only; see docs/engines.md for how and why.

Nothing but the files of the supervisors is ever recorded, so there is no moment at which a crash of the service
loses a worker or starts a second one. A worker is told apart from a stranger with its pid by boot id and start time.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from orchestrator.engines import environment, gpus, processes, supervisor
from orchestrator.engines.base import (
    LOG_FILE,
    EngineError,
    Handle,
    Slot,
    SlotKind,
    StateKind,
    WorkerSpec,
    WorkerState,
)
from orchestrator.engines.claims import Claim, Claims

MARK = "ASSAY_WORKER"
"""In the environment of every process of a worker: the path of its claim."""

_START_SECONDS = 30.0


@dataclass
class _Cancellation:
    deadline: float
    is_told: bool = False


class LocalEngine:
    """Supervised processes, adopted by whichever engine object looks at the same directory.

    `use_gpus`: None takes the GPUs if there are any and CPU slots otherwise; True insists on GPUs.
    `clock` is monotonic and counts the grace of `cancel`.
    """

    name = "local"

    def __init__(
        self, state_directory: Path, cpu_slots: int, use_gpus: bool | None, clock: Callable[[], float]
    ) -> None:
        self._claims = Claims(state_directory)
        self._clock = clock
        self._gpus = {f"gpu:{gpu.index}": gpu for gpu in _gpus(use_gpus)}
        self._cpu_slots = 0 if self._gpus else cpu_slots
        self._lock = Lock()
        self._children: list[subprocess.Popen[bytes]] = []
        self._cancellations: dict[str, _Cancellation] = {}

    def slots(self) -> tuple[Slot, ...]:
        """The GPUs by index, or the CPU slots."""
        if self._gpus:
            return tuple(Slot(id, SlotKind.GPU, gpu.name) for id, gpu in self._gpus.items())
        return tuple(Slot(f"cpu:{number}", SlotKind.CPU, "CPU") for number in range(self._cpu_slots))

    def submit(self, key: str, spec: WorkerSpec) -> Handle:
        """The handle of the one worker of `key`. Ambiguous only if the claim cannot be seen in time."""
        found = self.find(key)
        if found is not None:
            return found
        self._refuse_unknown_slots(spec)
        complaint = self._start(key, spec)
        handle = self.find(key)
        if handle is None:
            raise EngineError(f"the worker's supervisor did not start: {complaint}")
        return handle

    def find(self, key: str) -> Handle | None:
        """The handle of `key`, read from its claim."""
        try:
            claim = self._claims.read(key)
        except (OSError, ValueError) as error:
            raise EngineError(f"the claim of {key} cannot be read: {error}", ambiguous=True) from error
        return None if claim is None else _handle(key, claim)

    def poll(self, handles: Sequence[Handle]) -> dict[str, WorkerState]:
        """One state per handle. Also reaps what has ended and carries on with cancellations."""
        self._reap()
        self._carry_on_cancelling()
        return {handle.key: self._state(handle.key) for handle in handles}

    def signal(self, handle: Handle, signum: int) -> None:
        """The worker is sent `signum`; its children and its supervisor are not."""
        with _errors(f"signal {handle.key}"):
            members = self._members(handle.key)
            pids = {process.pid for process in members}
            processes.send([p for p in members if p.pid == p.group and p.parent not in pids], signum)

    def cancel(self, handle: Handle, grace_seconds: float) -> None:
        """TERM now; KILL at the first `poll` or `cancel` after the grace, and again until nothing is left.

        After a restart of the service a cancellation is forgotten: cancel again.
        """
        deadline = self._clock() + grace_seconds
        with self._lock:
            known = self._cancellations.setdefault(handle.key, _Cancellation(deadline))
            known.deadline = min(known.deadline, deadline)
        self._carry_on_cancelling()

    def logs(self, handle: Handle, offset: int, limit: int) -> tuple[bytes, int]:
        """At most `limit` bytes of `worker.log` from `offset`, and where to go on."""
        try:
            with (Path(str(handle.data["directory"])) / LOG_FILE).open("rb") as file:
                file.seek(offset)
                chunk = file.read(limit)
        except FileNotFoundError:
            return b"", offset
        except OSError as error:
            raise EngineError(f"the log of {handle.key} cannot be read: {error}") from error
        return chunk, offset + len(chunk)

    def list_owned(self) -> list[Handle]:
        """Every key that was ever claimed in the state directory, in order."""
        with _errors("list the claims"):
            keys = self._claims.keys()
        return [handle for key in keys if (handle := self.find(key))]

    def close(self) -> None:
        """Forgets cancellations under way; workers stay."""
        self._reap()
        with self._lock:
            self._cancellations.clear()
