"""A chaos run from its first experiment to its verdict."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos.checks import violations
from chaos.faults import Storm
from chaos.history import History, read_history
from chaos.plan import calm_outcomes, spec
from chaos.rig import PAUSE, Replica, Workplace, wait_until
from chaos.rows import load_rows, outcomes
from orchestrator.protocol.wire import JsonObject

UNANSWERED_SECONDS = 120.0
MOST_DEATHS = 5
"""Of services by themselves, before the run is given up."""
TO_THE_END_SECONDS = 240.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Weather:
    """What a storm is like."""

    seed: int
    faults: int
    replicas: int = 1
    steps: int = 40
    """Of the first stage; the last has four times as many."""
    every: tuple[float, float] = (1.0, 3.0)
    """Seconds between two faults, at least and at most."""
    kinds: tuple[str, ...] = ()
    """Of faults; none named: all."""
    at_once: int = 3
    """Experiments that are under way at a time."""


@dataclass
class Verdict:
    """What came of a chaos run."""

    faults: Mapping[str, int]
    seconds: float = 0.0
    experiments: int = 0
    attempts: int = 0
    reports: int = 0
    decisions: int = 0
    zombies: int = 0
    skipped: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


class ChaosRun:
    """Experiments are submitted as long as faults are given; then all go to their end and are looked at."""

    def __init__(self, workplace: Workplace, weather: Weather, say: Say) -> None:
        self.workplace, self.weather, self.say = workplace, weather, say
        self.random = Random(weather.seed)  # noqa: S311 - not for secrets
        self.replicas = [Replica(f"service-{n + 1}", workplace) for n in range(weather.replicas)]
        self.storm = Storm(workplace, self.replicas, self.random, weather.kinds)
        self.specs: list[JsonObject] = []
        self.open: dict[str, int] = {}
        """Experiments under way, by their ids; the number of the plan."""
        self.wrong: list[str] = []
        self.began = time.monotonic()

    def run(self, calm_folder: Path) -> Verdict:
        """The verdict. Raises `RuntimeError` or `TimeoutError` when the service does not come up at all."""
        for replica in self.replicas:
            replica.start()
        wait_until(lambda: self._ask("GET", "/readyz"), 60)
        self._disturb()
        self.storm.settle_all()
        self.say(f"{sum(self.storm.counts.values())} faults were given; to the end")
        if not wait_until(self._all_ended, TO_THE_END_SECONDS):
            self.wrong.append(f"unended: {sorted(self.open)} had not ended {TO_THE_END_SECONDS:.0f} s later")
        wait_until(lambda: not list(self.storm.live_workers()), 30)
        for replica in self.replicas:
            replica.end(15)
        wait_until(lambda: not self.workplace.processes(), 10)
        return self._look(calm_folder)

    # --- while faults are given -----------------------------------------------------------------------------

    def _disturb(self) -> None:
        next_fault = time.monotonic() + 3
        while sum(self.storm.counts.values()) < self.weather.faults:
            now = time.monotonic()
            self.storm.settle(now)
            self._mind_the_services()
            self._forget_ended()
            while len(self.open) < self.weather.at_once:
                self._submit()
            if now >= next_fault:
                kind = self.storm.strike()
                next_fault = time.monotonic() + (self.random.uniform(*self.weather.every) if kind else 0.3)
                if kind and sum(self.storm.counts.values()) % 10 == 0:
                    self.say(f"{sum(self.storm.counts.values())} of {self.weather.faults} faults")
            PAUSE.wait(0.1)

    def _submit(self) -> None:
        """Under one key until it is answered: once, however often it is asked."""
        number = len(self.specs) + 1
        document = spec(number, steps=self.weather.steps)
        self.specs.append(document)
        key = {"Idempotency-Key": f"chaos-{number}"}
        deadline = time.monotonic() + UNANSWERED_SECONDS
        while time.monotonic() < deadline:
            answer = self._ask("POST", "/v1/experiments", json=document, headers=key)
            if answer is not None:
                self.open[answer["id"]] = number
                return
            self.storm.settle(time.monotonic())
            self._mind_the_services()
            PAUSE.wait(0.2)
        raise TimeoutError(f"no service answered for {UNANSWERED_SECONDS:.0f} s")

    def _mind_the_services(self) -> None:
        """Starts a service that is gone by itself: right while PostgreSQL is away, wrong otherwise."""
        for replica in self.replicas:
            if replica.process is None or replica.is_up or replica.name in self.storm.busy:
                continue
            code = replica.process.returncode
            if not self._was_without_database(replica.started_at):
                self.wrong.append(
                    f"service: {replica.name} ended by itself with code {code}: see {replica.log}"
                )
            if len(self.wrong) > MOST_DEATHS:
                raise RuntimeError(f"the service does not stay up: {replica.last_words()}")
            replica.start()

    def _was_without_database(self, since: float) -> bool:
        away = any(end >= since for _, end in self.storm.postgres_down)
        return away or "postgres" in self.storm.busy

    def _ask(self, method: str, path: str, **options: object) -> dict[str, str] | None:
        for replica in self.random.sample(self.replicas, len(self.replicas)):
            if replica.is_up and not replica.is_stopped:
                answer = replica.request(method, path, **options)
                if answer is not None:
                    return dict(answer)
        return None

    def _forget_ended(self) -> None:
        for name in list(self.open):
            found = self._ask("GET", f"/v1/experiments/{name}")
            if found is not None and found["status"] not in {"running", "paused"}:
                del self.open[name]

    def _all_ended(self) -> bool:
        self.storm.settle(time.monotonic())
        self._mind_the_services()
        self._forget_ended()
        return not self.open

    # --- afterwards -----------------------------------------------------------------------------------------

    def _look(self, calm_folder: Path) -> Verdict:
        left = [f"{p.pid} {' '.join(p.cmdline()[:4])}" for p in self.workplace.processes()]
        history = read_history(self.workplace.history)
        database = self.workplace.database()
        rows, found = load_rows(database), outcomes(database)
        database.close()
        self.say(f"{len(self.specs)} experiments ended; the same without a fault, to compare")
        calm = calm_outcomes(self.specs, calm_folder)
        wrong = [*self.wrong, *(f"left behind: process {one}" for one in left)]
        return Verdict(
            faults=dict(sorted(self.storm.counts.items())),
            seconds=time.monotonic() - self.began,
            experiments=len(rows.experiments),
            attempts=len(rows.attempts),
            reports=len(rows.reports),
            decisions=sum(len(outcome.decisions) for outcome in found.values()),
            zombies=_zombies(history),
            skipped=self._skipped(),
            violations=[*wrong, *violations(history, rows, found, calm)],
        )

    def _skipped(self) -> list[str]:
        if self.workplace.has_small_disk:
            return []
        return ["disk_full: no tmpfs could be mounted (it takes root)"]


def _zombies(history: History) -> int:
    return sum(pause.zombie for pause in history.pauses)
