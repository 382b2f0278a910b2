"""An engine in memory that keeps every guarantee of the real ones, and breaks where a test tells it to.

`FakeWorld` is the machine, which a restart of the service leaves as it is; several engines may look at one.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import RLock

from orchestrator.engines.base import (
    EngineError,
    Handle,
    Slot,
    SlotKind,
    StateKind,
    WorkerSpec,
    WorkerState,
    check_key,
)

_DEADLY = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL})


@dataclass
class FakeWorker:
    """One scripted worker."""

    spec: WorkerSpec
    state: WorkerState
    log: bytes = b""
    signals: list[int] = field(default_factory=list)
    on_term: int | None = -signal.SIGTERM
    """The code it exits with on TERM; None ignores it."""
    kill_at: float | None = None


class FakeWorld:
    """The workers by key, and the script: what the next calls do."""

    def __init__(self, *, starts_pending: bool = False, on_term: int | None = -signal.SIGTERM) -> None:
        self.workers: dict[str, FakeWorker] = {}
        self.starts: list[str] = []
        """The key of every worker ever started."""
        self.starts_pending = starts_pending
        self.on_term = on_term
        self.is_unreachable = False
        """Every call raises, as when a cluster's controller is down; nothing is done."""
        self.hidden: set[str] = set()
        """Keys that `poll` answers `unknown` for."""
        self.submit_failures: list[bool] = []
        """One per coming start: True does it and then raises an ambiguous error, False only raises."""
        self.forgotten: set[str] = set()
        """Keys whose records were dropped; the tests still see their workers."""
        self.lock = RLock()

    def exit(self, key: str, code: int) -> None:
        """The worker ends by itself: with an exit code, or minus a signal's number."""
        self._end(key, WorkerState.exited(code))

    def lose(self, key: str) -> None:
        """The worker is gone, and nothing says how."""
        self._end(key, WorkerState(StateKind.LOST, reason="its node is gone"))

    def start(self, key: str) -> None:
        """A pending worker begins to run."""
        self.workers[key].state = WorkerState(StateKind.RUNNING)

    def write(self, key: str, text: bytes) -> None:
        """The worker prints something."""
        self.workers[key].log += text

    def send(self, key: str, signum: int) -> None:
        """The worker gets a signal, and dies of it unless the script says otherwise."""
        worker = self.workers.get(key)
        if worker is None or worker.state.is_over:
            return
        worker.signals.append(signum)
        code = worker.on_term if signum == signal.SIGTERM else -signum
        if signum in _DEADLY and code is not None:
            self.exit(key, code)

    def _end(self, key: str, state: WorkerState) -> None:
        worker = self.workers[key]
        if not worker.state.is_over:
            worker.state = state


class FakeEngine:
    """The engine over a `FakeWorld`; by default over one of its own, with two CPU slots."""

    name = "fake"

    def __init__(
        self,
        slots: Sequence[str] = ("cpu:0", "cpu:1"),
        world: FakeWorld | None = None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.world = world or FakeWorld()
        self._slots = tuple(Slot(id, SlotKind(id.partition(":")[0]), "fake device") for id in slots)
        self._clock = clock

    def slots(self) -> tuple[Slot, ...]:
        """The slots it was made with."""
        return self._slots

    def submit(self, key: str, spec: WorkerSpec) -> Handle:
        """The handle of the one worker of `key`, unless `submit_failures` has something for this start."""
        with self.world.lock:
            found = self.find(check_key(key))
            if found is not None:
                return found
            self._refuse_unknown_slots(spec)
            is_done, fails = self._script()
            if is_done:
                self.world.starts.append(key)
                kind = StateKind.PENDING if self.world.starts_pending else StateKind.RUNNING
                self.world.forgotten.discard(key)
                self.world.workers[key] = FakeWorker(spec, WorkerState(kind), on_term=self.world.on_term)
            if fails:
                raise EngineError("the connection broke while the worker was submitted", ambiguous=True)
            return self._handle(key)

    def find(self, key: str) -> Handle | None:
        """The handle of `key`, or None."""
        self._reach()
        known = check_key(key) in self.world.workers and key not in self.world.forgotten
        return self._handle(key) if known else None

    def poll(self, handles: Sequence[Handle]) -> dict[str, WorkerState]:
        """One state per handle, after the kills that are due."""
        self._reach()
        with self.world.lock:
            self._kill_what_is_due()
            return {handle.key: self._state(handle.key) for handle in handles}

    def signal(self, handle: Handle, signum: int) -> None:
        """The worker is sent `signum`."""
        self._reach()
        self.world.send(handle.key, signum)

    def cancel(self, handle: Handle, grace_seconds: float) -> None:
        """TERM the first time; KILL at the first `poll` or `cancel` after the grace."""
        self._reach()
        with self.world.lock:
            worker = self.world.workers.get(handle.key)
            if worker is None:
                return
            deadline = self._clock() + grace_seconds
            if worker.kill_at is None and grace_seconds > 0:
                self.world.send(handle.key, signal.SIGTERM)
            worker.kill_at = deadline if worker.kill_at is None else min(worker.kill_at, deadline)
            self._kill_what_is_due()

    def logs(self, handle: Handle, offset: int, limit: int) -> tuple[bytes, int]:
        """What the script wrote, from `offset`."""
        self._reach()
        worker = self.world.workers.get(handle.key)
        chunk = worker.log[offset : offset + limit] if worker else b""
        return chunk, offset + len(chunk)

    def list_owned(self) -> list[Handle]:
        """Every worker of the world, by key."""
        self._reach()
        return [self._handle(key) for key in sorted(set(self.world.workers) - self.world.forgotten)]

    def forget(self, keys: Sequence[str]) -> int:
        """Drops those that are over."""
        self._reach()
        with self.world.lock:
            gone = {key for key in keys if self.find(key) and self.world.workers[key].state.is_over}
            self.world.forgotten |= gone
        return len(gone)

    def close(self) -> None:
        """Nothing: the world stays."""

    def exit(self, key: str, code: int) -> None:
        """The worker ends by itself with `code`."""
        self.world.exit(key, code)

    def lose(self, key: str) -> None:
        """The worker is gone, and nothing says how."""
        self.world.lose(key)

    def _script(self) -> tuple[bool, bool]:
        """(the start is done, it raises) for this start."""
        if not self.world.submit_failures:
            return True, False
        return self.world.submit_failures.pop(0), True

    def _state(self, key: str) -> WorkerState:
        if key in self.world.hidden:
            return WorkerState(StateKind.UNKNOWN, reason="the engine does not say")
        worker = self.world.workers.get(key) if key not in self.world.forgotten else None
        return worker.state if worker else WorkerState(StateKind.LOST, reason="there is no record of it")

    def _kill_what_is_due(self) -> None:
        for key, worker in self.world.workers.items():
            if worker.kill_at is not None and self._clock() >= worker.kill_at:
                self.world.send(key, signal.SIGKILL)

    def _refuse_unknown_slots(self, spec: WorkerSpec) -> None:
        unknown = set(spec.slots) - {slot.id for slot in self._slots}
        if unknown:
            raise EngineError(f"there is no slot {min(unknown)}", transient=False)

    def _reach(self) -> None:
        if self.world.is_unreachable:
            raise EngineError("the engine cannot be reached")

    def _handle(self, key: str) -> Handle:
        return Handle(self.name, key)
