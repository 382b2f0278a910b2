"""The faults: which may be given now, what each does, and what undoes it later."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from chaos.history import FAULTS, Witnessed, read_worker
from chaos.rig import LEASE_SECONDS, Replica, Workplace

LONG = LEASE_SECONDS + 2.5
"""Seconds: longer than any lease and the grace after it."""

MOST_FULL_DISKS = 5
"""Of one storm: whoever met one is started again a minute later at the soonest."""

Undo = Callable[[], None]


@dataclass
class Storm:
    """Gives faults to one workplace; remembers what is to be undone, and what each run has been through."""

    workplace: Workplace
    replicas: list[Replica]
    random: Random
    kinds: Sequence[str] = ()
    """Those to be given; none named: all."""
    counts: dict[str, int] = field(default_factory=dict)
    undos: list[tuple[float, Undo]] = field(default_factory=list)
    broken_at: dict[int, int] = field(default_factory=dict)
    """The furthest step of each run when it was last broken: it is not broken again before it got past it."""
    busy: set[str] = field(default_factory=set)
    """What is under a fault that lasts: replicas by name, `postgres`, `disk`, workers by pid."""
    down_until: dict[str, float] = field(default_factory=dict)
    postgres_down: list[tuple[float, float]] = field(default_factory=list)
    """From when to when PostgreSQL was away: a service that starts then gives up, and that is right."""

    # --- choosing -----------------------------------------------------------------------------------------

    def strike(self) -> str:
        """Gives one fault that is possible now; its kind, or "" when none is."""
        kinds = list(self.kinds or WEIGHTS)
        if "zombie" in kinds and self.random.random() < 0.5:
            self._arm()
        kinds.sort(key=lambda kind: self.random.random() ** (1 / WEIGHTS[kind]), reverse=True)
        for kind in kinds:
            about = getattr(self, f"give_{kind}")()
            if about is not None:
                self.counts[kind] = self.counts.get(kind, 0) + 1
                self.note("fault", kind=kind, about=about)
                return kind
        return ""

    def settle(self, now: float) -> None:
        """Undoes what is due."""
        due = [undo for at, undo in self.undos if at <= now]
        self.undos = [(at, undo) for at, undo in self.undos if at > now]
        for undo in due:
            undo()

    def settle_all(self) -> None:
        while self.undos:
            self.settle(float("inf"))

    def note(self, record: str, **values: object) -> None:
        line = {"record": record, **values}
        if record == "fault":
            line["at"] = time.monotonic()
        with (self.workplace.history / FAULTS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _later(self, seconds: float, undo: Undo, *holding: str) -> None:
        self.busy.update(holding)

        def undone() -> None:
            self.busy.difference_update(holding)
            undo()

        self.undos.append((time.monotonic() + seconds, undone))

    def _between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    # --- the service --------------------------------------------------------------------------------------

    def _replica(self) -> Replica | None:
        free = [r for r in self.replicas if r.is_up and r.name not in self.busy]
        return self.random.choice(free) if free else None

    def give_service_killed(self) -> str | None:
        replica = self._replica()
        if replica is None:
            return None
        replica.kill()
        self._later(self._between(0.1, 1.5), replica.start, replica.name)
        return replica.name

    def give_service_stopped_gracefully(self) -> str | None:
        replica = self._replica()
        if replica is None:
            return None
        replica.end(signal.SIGTERM)
        self._later(self._between(0.1, 1.0), replica.start, replica.name)
        return replica.name

    def give_service_paused(self) -> str | None:
        return self._pause_service(self._between(0.3, 1.5))

    def give_service_paused_past_every_lease(self) -> str | None:
        return self._pause_service(LONG)

    def _pause_service(self, seconds: float) -> str | None:
        replica = self._replica()
        if replica is None:
            return None
        replica.send(signal.SIGSTOP)
        self._later(seconds, lambda: replica.send(signal.SIGCONT), replica.name)
        return f"{replica.name} for {seconds:.1f} s"

    # --- workers ------------------------------------------------------------------------------------------

    def live_workers(self) -> Iterator[Witnessed]:
        """Workers whose process is there, as their files tell."""
        for file in sorted(self.workplace.history.glob("att_*.jsonl"), reverse=True):
            pid = int(file.name.split(".")[1])
            if alive(pid, self.workplace.folder) and (worker := read_worker(file)) is not None:
                yield worker

    def _worker(self, *, breaking: bool, escaped: bool = False) -> Witnessed | None:
        """One that is training; one that got past its run's last break if this fault is to be another."""
        found = [
            worker
            for worker in self.live_workers()
            if str(worker.pid) not in self.busy
            and worker.escaped is escaped
            and worker.steps
            and worker.stale_at is None
            and (not breaking or worker.acknowledged_step > self.broken_at.get(worker.run, 0))
        ]
        return self.random.choice(found) if found else None

    def _breaks(self, worker: Witnessed) -> None:
        self.broken_at[worker.run] = max(self.broken_at.get(worker.run, 0), worker.last_step + 3)

    def give_worker_killed(self) -> str | None:
        worker = self._worker(breaking=True)
        if worker is None:
            return None
        self._breaks(worker)
        send(worker.pid, signal.SIGKILL)
        return f"attempt {worker.attempt}"

    def give_worker_terminated(self) -> str | None:
        worker = self._worker(breaking=False)
        if worker is None:
            return None
        send(worker.pid, signal.SIGTERM)
        return f"attempt {worker.attempt}"

    def give_worker_paused(self) -> str | None:
        worker = self._worker(breaking=False)
        return None if worker is None else self._pause_worker(worker, self._between(0.3, 2.0))

    def give_worker_paused_past_its_lease(self) -> str | None:
        worker = self._worker(breaking=True)
        if worker is None:
            return None
        self._breaks(worker)
        return self._pause_worker(worker, LONG)

    def _pause_worker(self, worker: Witnessed, seconds: float) -> str:
        send(worker.pid, signal.SIGSTOP)
        stopped = time.monotonic()

        def wake() -> None:
            self.note("pause", pid=worker.pid, stopped=stopped, woken=time.monotonic())
            if alive(worker.pid, self.workplace.folder):
                send(worker.pid, signal.SIGCONT)

        self._later(seconds, wake, str(worker.pid))
        return f"attempt {worker.attempt} for {seconds:.1f} s"

    def give_supervisor_killed(self) -> str | None:
        worker = self._worker(breaking=False)
        if worker is None:
            return None
        with suppress(psutil.Error):
            parent = psutil.Process(psutil.Process(worker.pid).ppid())
            if any("supervisor" in word for word in parent.cmdline()):
                send(parent.pid, signal.SIGKILL)
                return f"of attempt {worker.attempt}"
        return None

    def give_zombie(self) -> str | None:
        """Stops a worker unseen by the engine, kills what the engine sees, wakes it once its run went on."""
        worker = self._worker(breaking=True, escaped=True)
        if worker is None:
            self._arm()
            return None
        launcher = psutil.Process(worker.pid).ppid()
        self._breaks(worker)
        send(worker.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        send(launcher, signal.SIGKILL)

        def wake() -> None:
            if not self._went_on(worker) and time.monotonic() < stopped + 60:
                self._later(0.5, wake, str(worker.pid))
                return
            zombie = self._went_on(worker)
            self.note("pause", pid=worker.pid, stopped=stopped, woken=time.monotonic(), zombie=zombie)
            send(worker.pid, signal.SIGCONT)

        self._later(LONG, wake, str(worker.pid))
        return f"attempt {worker.attempt}"

    def _arm(self) -> None:
        """The next worker that starts is one that the engine cannot see."""
        (self.workplace.history / "escape").touch()

    def _went_on(self, zombie: Witnessed) -> bool:
        """A newer attempt of its run trains."""
        newer = (read_worker(file) for file in self.workplace.history.glob("att_*.jsonl"))
        return any(w and w.run == zombie.run and w.number > zombie.number and w.steps for w in newer)

    # --- disk and database ----------------------------------------------------------------------------------

    def give_disk_full(self) -> str | None:
        if not self.workplace.has_small_disk or "disk" in self.busy:
            return None
        if self.counts.get("disk_full", 0) >= MOST_FULL_DISKS:
            return None
        seconds = self._between(1.0, 3.0)
        self.workplace.fill()
        self._later(seconds, self.workplace.free, "disk")
        return f"for {seconds:.1f} s"

    def give_postgres_crashed(self) -> str | None:
        return self._postgres("immediate")

    def give_postgres_restarted(self) -> str | None:
        return self._postgres("fast")

    def _postgres(self, mode: str) -> str | None:
        if self.workplace.postgres is None or "postgres" in self.busy:
            return None
        seconds = self._between(0.2, 2.0)
        began = time.monotonic()
        self.workplace.stop_postgres(mode)

        def start() -> None:
            self.workplace.start_postgres()
            self.postgres_down.append((began, time.monotonic()))

        self._later(seconds, start, "postgres")
        return f"{mode}, for {seconds:.1f} s"


WEIGHTS = {
    "service_killed": 3.0,
    "service_paused": 2.0,
    "service_paused_past_every_lease": 0.7,
    "service_stopped_gracefully": 1.0,
    "worker_killed": 4.0,
    "worker_terminated": 2.0,
    "worker_paused": 2.0,
    "worker_paused_past_its_lease": 1.5,
    "supervisor_killed": 1.5,
    "zombie": 4.0,
    "disk_full": 1.5,
    "postgres_crashed": 2.0,
    "postgres_restarted": 1.5,
}
"""How often each kind is drawn, against the others; one that is not possible at the moment gives way."""


def send(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.Signals(signum))


def alive(pid: int, folder: Path) -> bool:
    """The process is there, and is one of this folder's: not another one with its pid."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return str(folder) in words
    except OSError:
        return False
