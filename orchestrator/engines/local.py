"""Workers as processes of this machine. Linux only; docs/engines.md says how and why.

Nothing is recorded but the files of the supervisors, so there is no moment at which a crash of the service
loses a worker or starts a second one. Boot id and start time tell a worker from a stranger with its pid.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from threading import Lock

from orchestrator.engines import environment, gpus, processes, spawn, workers
from orchestrator.engines.base import LOG_FILE, EngineError, Handle, Slot, SlotKind, WorkerSpec, WorkerState
from orchestrator.engines.claims import Claim, Claims
from orchestrator.protocol.wire import JsonObject


@dataclass
class _Cancellation:
    deadline: float
    is_told: bool = False


class LocalEngine:
    """Supervised processes, adopted by whichever engine object looks at the same directory.

    `use_gpus`: None takes the GPUs if there are any and CPU slots otherwise; True insists on GPUs.
    `clock` is monotonic, in seconds, and counts the grace of `cancel`.
    """

    name = "local"

    def __init__(
        self, state_directory: Path, cpu_slots: int, use_gpus: bool | None, clock: Callable[[], float]
    ) -> None:
        self._claims = Claims(state_directory)
        self._gpus = {f"gpu:{gpu.index}": gpu for gpu in _gpus(use_gpus)}
        self._slots = _slots(self._gpus, cpu_slots)
        self._clock = clock
        self._lock = Lock()
        self._children: list[subprocess.Popen[bytes]] = []
        self._cancellations: dict[str, _Cancellation] = {}

    def slots(self) -> tuple[Slot, ...]:
        """The GPUs by index, or the CPU slots where there are none."""
        return self._slots

    def submit(self, key: str, spec: WorkerSpec) -> Handle:
        """The handle of the one worker of `key`. An error is ambiguous if the claim was not seen in time."""
        found = self.find(key)
        if found is not None:
            return found
        with _errors(f"start {key}"):
            complaint = self._start(key, spec)
        handle = self.find(key)
        if handle is None:
            raise EngineError(f"the supervisor of {key} did not start: {complaint}")
        return handle

    def find(self, key: str) -> Handle | None:
        """The handle of `key`, read from its claim."""
        with _errors(f"read the claim of {key}"):
            claim = self._claims.read(key)
        return None if claim is None else _handle(key, claim)

    def poll(self, handles: Sequence[Handle]) -> dict[str, WorkerState]:
        """One state per handle. Also reaps what has ended, and carries on with cancellations."""
        self._reap()
        with self._lock:
            cancelled = list(self._cancellations)
        for key in cancelled:
            with suppress(OSError, ValueError):  # the next poll tries again
                self._carry_on_cancelling(key)
        return {handle.key: workers.state(self._claims, handle.key) for handle in handles}

    def signal(self, handle: Handle, signum: int) -> None:
        """The worker is sent `signum`; its children and its supervisor are not."""
        with _errors(f"signal {handle.key}"):
            processes.send(workers.leaders(workers.members(self._claims, handle.key)), signum)

    def cancel(self, handle: Handle, grace_seconds: float) -> None:
        """TERM now; KILL at the first `poll` or `cancel` after the grace, and again until nothing is left.

        Also ends what a worker that is over left behind. A cancellation dies with this object: cancel again.
        """
        deadline = self._clock() + grace_seconds
        with self._lock:
            known = self._cancellations.setdefault(handle.key, _Cancellation(deadline))
            known.deadline = min(known.deadline, deadline)
        with _errors(f"cancel {handle.key}"):
            self._carry_on_cancelling(handle.key)

    def logs(self, handle: Handle, offset: int, limit: int) -> tuple[bytes, int]:
        """At most `limit` bytes of `worker.log` from `offset`, and where to go on."""
        if "directory" not in handle.data:
            return b"", offset  # a start that may never have been carried out
        with _errors(f"read the log of {handle.key}"):
            try:
                file = (Path(str(handle.data["directory"])) / LOG_FILE).open("rb")
            except FileNotFoundError:
                return b"", offset
            with file:
                file.seek(offset)
                chunk = file.read(limit)
        return chunk, offset + len(chunk)

    def list_owned(self) -> list[Handle]:
        """Every key that was ever claimed in the state directory, in order."""
        with _errors("list the claims"):
            keys = self._claims.keys()
        return [handle for key in keys if (handle := self.find(key))]

    def forget(self, keys: Sequence[str]) -> int:
        """Removes the claims and exit files of those of which no process is left."""
        with _errors("forget workers that are over"):
            return workers.forget(self._claims, keys)

    def close(self) -> None:
        """Forgets cancellations under way; workers stay."""
        self._reap()
        with self._lock:
            self._cancellations.clear()

    def _start(self, key: str, spec: WorkerSpec) -> str:
        """Starts a supervisor, and answers what it said before the key was claimed, by it or by another."""
        child = spawn.start(self._claims, key, spec, self._environment(key, spec))
        with self._lock:
            self._children.append(child)
        return spawn.hear(child)

    def _environment(self, key: str, spec: WorkerSpec) -> dict[str, str]:
        known = {slot.id for slot in self.slots()}
        if not known.issuperset(spec.slots):
            raise EngineError(f"there is no slot {sorted(set(spec.slots) - known)[0]}", transient=False)
        devices = [self._gpus[id].uuid for id in spec.slots if id in self._gpus]
        mark = {workers.MARK: str(self._claims.claim_path(key))}
        return {**environment.for_worker(os.environ, spec, devices), **mark}

    def _reap(self) -> None:
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]

    def _carry_on_cancelling(self, key: str) -> None:
        """TERM once there is somebody to tell, KILL whenever the grace is over, until nothing is left."""
        with self._lock:
            cancellation = self._cancellations.get(key)
            if cancellation is None:
                return
            found = workers.members(self._claims, key)
            if self._clock() >= cancellation.deadline:
                processes.send(found, SIGKILL)
            elif not cancellation.is_told:
                processes.send(found, SIGTERM)
                cancellation.is_told = bool(found)
            if workers.is_gone(self._claims, key):
                del self._cancellations[key]


def _slots(found: Mapping[str, gpus.Gpu], cpu_slots: int) -> tuple[Slot, ...]:
    if found:
        return tuple(Slot(id, SlotKind.GPU, gpu.name) for id, gpu in found.items())
    return tuple(Slot(f"cpu:{number}", SlotKind.CPU, "CPU") for number in range(cpu_slots))


def _gpus(use_gpus: bool | None) -> tuple[gpus.Gpu, ...]:
    if use_gpus is False:
        return ()
    found = gpus.visible(gpus.installed(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if use_gpus and not found:
        raise EngineError("no GPU can be seen: is the driver there, and nvidia-ml-py?", transient=False)
    return found


def _handle(key: str, claim: Claim) -> Handle:
    data: JsonObject = {
        "directory": str(claim.directory),
        "pid": claim.supervisor.pid,
        "started": claim.supervisor.started,
        "boot": claim.boot,
    }
    return Handle(LocalEngine.name, key, data)


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Turns what the system raises into an `EngineError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot {doing}: {error}") from error
