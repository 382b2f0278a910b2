"""One way to drive both engines: the contract suite says what happens, a rig makes it happen."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Protocol

from orchestrator.engines import workers
from orchestrator.engines.base import Engine, Handle, StateKind, WorkerSpec, WorkerState
from orchestrator.engines.claims import Claims
from orchestrator.engines.fake import FakeEngine, FakeWorld
from orchestrator.engines.local import LocalEngine

DEADLINE_SECONDS = 60.0
_PAUSE_SECONDS = 0.02

WORKER = 'echo started; read -r code < orders; echo finished; exit "$code"'
"""Waits for its exit code on a named pipe, so that no test waits on the clock."""

STUBBORN_WORKER = f"trap '' TERM; {WORKER}"


def eventually(is_true: Callable[[], bool]) -> None:
    """Returns once it is true; fails after a deadline that only a broken engine meets."""
    never = Event()
    for _ in range(int(DEADLINE_SECONDS / _PAUSE_SECONDS)):
        if is_true():
            return
        never.wait(_PAUSE_SECONDS)
    raise AssertionError("it did not happen in time")


def state_of(engine: Engine, handle: Handle) -> WorkerState:
    return engine.poll([handle])[handle.key]


def becomes(engine: Engine, handle: Handle, kind: StateKind) -> WorkerState:
    """The state, once it is of this kind."""
    eventually(lambda: state_of(engine, handle).kind is kind)
    return state_of(engine, handle)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig(Protocol):
    clock: Clock

    def engine(self) -> Engine:
        """A new engine object, as after a restart of the service."""
        ...

    def spec(self, key: str, *, stubborn: bool = False) -> WorkerSpec:
        """A worker that says `started` and waits; a stubborn one ignores TERM."""
        ...

    def is_up(self, engine: Engine, handle: Handle) -> bool:
        """True once the worker has printed `started`."""
        ...

    def finish(self, key: str, code: int) -> None:
        """The worker ends by itself."""
        ...

    def starts(self, key: str) -> int:
        """How many workers were ever started for the key."""
        ...

    def tear_down(self) -> None: ...


class LocalRig:
    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self._directory = directory

    @property
    def state_directory(self) -> Path:
        return self._directory / "state"

    def engine(self) -> LocalEngine:
        return LocalEngine(self.state_directory, cpu_slots=2, use_gpus=False, clock=self.clock)

    def home(self, key: str) -> Path:
        return self._directory / key

    def spec(self, key: str, *, stubborn: bool = False) -> WorkerSpec:
        return self.script(key, STUBBORN_WORKER if stubborn else WORKER)

    def script(self, key: str, script: str) -> WorkerSpec:
        """A worker that is a shell script, with the pipe `orders` in its directory."""
        home = self.home(key)
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "orders").exists():
            os.mkfifo(home / "orders")
        return WorkerSpec(("/bin/sh", "-c", script), home, slots=("cpu:0",))

    def is_up(self, engine: Engine, handle: Handle) -> bool:
        return b"started\n" in engine.logs(handle, 0, 4096)[0]

    def finish(self, key: str, code: int) -> None:
        (self.home(key) / "orders").write_text(f"{code}\n")

    def starts(self, key: str) -> int:
        return (self.home(key) / "worker.log").read_text().count("started\n")

    def tear_down(self) -> None:
        """Nothing that this rig started is left."""
        engine = self.engine()
        for handle in engine.list_owned():
            if handle.data["pid"] != os.getpid():  # a claim that a test forged
                self.end(engine, handle)

    def end(self, engine: Engine, handle: Handle) -> None:
        """The worker and all that it started are gone."""
        engine.cancel(handle, 0)
        eventually(lambda: bool(engine.poll([])) or workers.is_gone(Claims(self.state_directory), handle.key))


class FakeRig:
    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.world = FakeWorld()
        self._directory = directory

    def engine(self) -> FakeEngine:
        return FakeEngine(world=self.world, clock=self.clock)

    def spec(self, key: str, *, stubborn: bool = False) -> WorkerSpec:
        self.world.on_term = None if stubborn else FakeWorld().on_term
        return WorkerSpec(("train",), self._directory / key, slots=("cpu:0",))

    def is_up(self, engine: Engine, handle: Handle) -> bool:
        if not self.world.workers[handle.key].log:
            self.world.write(handle.key, b"started\n")
        return True

    def finish(self, key: str, code: int) -> None:
        self.world.write(key, b"finished\n")
        self.world.exit(key, code)

    def starts(self, key: str) -> int:
        return self.world.starts.count(key)

    def tear_down(self) -> None: ...
