"""An engine that asks before it does anything to a worker. Looking is free."""

from collections.abc import Callable, Sequence

from orchestrator.engines.base import Engine, Handle, Slot, WorkerSpec, WorkerState


class GuardedEngine:
    """The engine within; `ask` comes before each side effect, and what it raises prevents that."""

    def __init__(self, within: Engine, ask: Callable[[], None]) -> None:
        self._within = within
        self._ask = ask

    @property
    def name(self) -> str:
        return self._within.name

    def slots(self) -> tuple[Slot, ...]:
        return self._within.slots()

    def submit(self, key: str, spec: WorkerSpec) -> Handle:
        self._ask()
        return self._within.submit(key, spec)

    def find(self, key: str) -> Handle | None:
        return self._within.find(key)

    def poll(self, handles: Sequence[Handle]) -> dict[str, WorkerState]:
        """As the engine within. It also carries on with kills: they were asked about when they began."""
        return self._within.poll(handles)

    def signal(self, handle: Handle, signum: int) -> None:
        self._ask()
        self._within.signal(handle, signum)

    def cancel(self, handle: Handle, grace_seconds: float) -> None:
        self._ask()
        self._within.cancel(handle, grace_seconds)

    def logs(self, handle: Handle, offset: int, limit: int) -> tuple[bytes, int]:
        return self._within.logs(handle, offset, limit)

    def list_owned(self) -> list[Handle]:
        return self._within.list_owned()

    def forget(self, keys: Sequence[str]) -> int:
        self._ask()
        return self._within.forget(keys)

    def close(self) -> None:
        self._within.close()
