"""What must hold after every step, asked of the rows by a connection of its own."""

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.domain.lifecycle import RunStatus
from orchestrator.engines.fake import FakeWorld
from orchestrator.protocol.report import Report
from simulation.faults import Violation
from simulation.workers import Worker

ENDED = "ended"
OVER = frozenset(status.value for status in RunStatus if status.is_terminal)
DECISION = "id, key, run_id, stage, step, kind, reason, author, verdict, text, policy_hash, gate_id, attempt"
KINDS = {0: None, 1: math.nan, 2: math.inf, 3: -math.inf}


class Checker:
    """Remembers what was promised and what was seen, and holds the rows against it."""

    def __init__(self, file: Path) -> None:
        self.connection = sqlite3.connect(file, isolation_level=None)
        self.version: int | None = None
        self.acknowledged: dict[tuple[int, int], Report] = {}
        self.ended: dict[int, int] = {}
        """By attempt that has ended: how many reports it had then."""
        self.over: dict[int, tuple[Any, ...]] = {}
        self.decisions: dict[int, tuple[Any, ...]] = {}
        self.bodies: dict[int, tuple[Any, ...]] = {}
        self.checks = 0

    def close(self) -> None:
        self.connection.close()

    def promise(self, worker: Worker, report: Report, acknowledged: int) -> None:
        """The service has answered: this report is kept, and every one up to `acknowledged`."""
        for known in (report, *worker.spooled[:acknowledged]):
            self.acknowledged[worker.attempt, known.sequence] = known

    def check(self, machine: FakeWorld, workers: Mapping[str, Worker]) -> None:
        """Raises `Violation` for whatever does not hold now."""
        self._machine_is_sound(machine, workers)
        version = self._rows("PRAGMA data_version")[0][0]
        if version == self.version:
            return
        self.version = version
        self.checks += 1
        self.connection.execute("BEGIN")
        try:
            self._attempts()
            self._nothing_acknowledged_is_gone()
            self._terminal_stays()
            self._decisions_stay()
            self._every_move_is_explained()
        finally:
            self.connection.execute("ROLLBACK")

    def check_at_end(self) -> None:
        """What is too dear to ask after every step: the whole of each decision."""
        for row in self._rows("SELECT id, criteria, evidence FROM decisions"):
            if self.bodies.get(row[0]) != row[1:]:
                raise Violation("a decision never changes", f"the evidence of decision {row[0]} did")

    def steps_of(self, run: int) -> list[tuple[int, str, str | None, int]]:
        """(attempt, status, reason, step) of a run's attempts, oldest first."""
        query = "SELECT id, status, reason, step FROM attempts WHERE run_id = ? ORDER BY number"
        return self.connection.execute(query, (run,)).fetchall()

    def _rows(self, query: str) -> list[Any]:
        return self.connection.execute(query).fetchall()

    def _machine_is_sound(self, machine: FakeWorld, workers: Mapping[str, Worker]) -> None:
        running = [worker for worker in machine.workers.values() if not worker.state.is_over]
        _once("a slot never has two workers", [slot for worker in running for slot in worker.spec.slots])
        _once("a worker is started once", machine.starts)

    def _attempts(self) -> None:
        rows = self._rows("SELECT id, run_id, number, epoch, status, key, slots FROM attempts")
        live = [row for row in rows if row[4] != ENDED]
        _once("one live attempt of a run", [row[1] for row in live])
        _once("one attempt for each epoch of a run", [(row[1], row[3]) for row in rows])
        _once("one attempt for each key", [row[5] for row in rows])
        _once("a slot is held once", [slot for row in live for slot in row[6].strip("[]").split(", ")])
        held = dict(self._rows("SELECT attempt_id, count(*) FROM reports GROUP BY attempt_id"))
        for row in rows:
            if row[4] == ENDED and self.ended.setdefault(row[0], held.get(row[0], 0)) != held.get(row[0], 0):
                raise Violation("an attempt that has ended takes in nothing", f"attempt {row[0]} did")
        for row in rows:
            if row[0] in self.ended and row[4] != ENDED:
                raise Violation("an attempt that has ended stays so", f"attempt {row[0]} is {row[4]}")

    def _nothing_acknowledged_is_gone(self) -> None:
        stored = Counter(self._rows("SELECT attempt_id, sequence FROM reports"))
        _once("a report is stored once", list(stored.elements()))
        missing = [key for key in self.acknowledged if key not in stored]
        if missing:
            raise Violation("an acknowledged report is kept", f"(attempt, sequence) {missing[0]} is gone")
        for attempt, acknowledged in self._rows("SELECT id, acknowledged FROM attempts"):
            if any((attempt, sequence) not in stored for sequence in range(1, acknowledged + 1)):
                text = f"attempt {attempt} has {acknowledged} acknowledged and not all of them stored"
                raise Violation("an acknowledged report is kept", text)
        self._measurements()

    def _measurements(self) -> None:
        rows = self._rows("SELECT attempt_id, step, eval_loss, eval_loss_kind FROM evaluations")
        evaluations = {(row[0], row[1]): _number(row[2], row[3]) for row in rows}
        rows = self._rows("SELECT attempt_id, step, value, kind FROM points")
        points = {(row[0], row[1]): _number(row[2], row[3]) for row in rows}
        for (attempt, _), report in self.acknowledged.items():
            for told in report.evaluations:
                if evaluations.get((attempt, told.step)) != repr(told.eval_loss):
                    raise Violation("an acknowledged evaluation is kept", f"attempt {attempt}: {told.step}")
            for point in report.points:
                if points.get((attempt, point.step)) != repr(point.value):
                    raise Violation("an acknowledged point is kept", f"attempt {attempt}: {point.step}")

    def _terminal_stays(self) -> None:
        for id_, status, reason in self._rows("SELECT id, status, reason FROM runs"):
            if id_ in self.over and self.over[id_] != (status, reason):
                raise Violation("a terminal status stays", f"run {id_}: {self.over[id_]}, then {status}")
            if status in OVER:
                self.over[id_] = (status, reason)

    def _decisions_stay(self) -> None:
        rows = {row[0]: row for row in self._rows(f"SELECT {DECISION} FROM decisions")}  # noqa: S608
        _once("a decision is made once", [row[1] for row in rows.values()])
        for id_, row in self.decisions.items():
            if rows.get(id_) != row:
                raise Violation("a decision never changes", f"{row} became {rows.get(id_)}")
        for id_ in sorted(rows.keys() - self.decisions.keys()):
            query = "SELECT criteria, evidence FROM decisions WHERE id = ?"
            self.bodies[id_] = self.connection.execute(query, (id_,)).fetchone()
        self.decisions = rows
        _once("a gate is judged once", [row[0] for row in self._rows("SELECT key FROM gates")])

    def _every_move_is_explained(self) -> None:
        explained = {
            (row[2], row[3])
            for row in self.decisions.values()
            if row[5] in {"promote", "decline"} and all(len(body) > len("[]") for body in self.bodies[row[0]])
        }
        query = """SELECT runs.id, runs.stage, runs.reason, stages.position, stages.name FROM runs
            JOIN variants ON variants.id = runs.variant_id AND NOT variants.is_control
            JOIN stages ON stages.experiment_id = runs.experiment_id AND stages.position <= runs.stage"""
        for run, stage, reason, position, name in self._rows(query):
            left = position < stage or (position == stage and reason == "not_promoted")
            if left and (run, name) not in explained:
                raise Violation("a promotion has its evidence", f"run {run} left {name} without a decision")


def _once(invariant: str, values: list[Any]) -> None:
    if len(set(values)) != len(values):
        twice = [value for value, times in Counter(values).items() if times > 1]
        raise Violation(invariant, f"{twice[0]} is there more than once")


def _number(value: float, kind: int) -> str:
    other = KINDS[kind]
    return repr(value if other is None else other)
