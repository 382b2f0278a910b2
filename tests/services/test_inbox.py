"""Group commit: many messages in one transaction, each with its own fate, answered after the commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.exc import OperationalError
from worlds import Worker, World

from orchestrator.domain.errors import Busy, Conflict, NotAllowed, StaleEpoch, TooMany
from orchestrator.domain.ids import number_of
from orchestrator.protocol.report import Answer, Heartbeat, Phase, Point, Report
from orchestrator.rules.snapshot import Snapshot
from orchestrator.services import ingest, settle
from orchestrator.services.context import Context
from orchestrator.services.inbox import Inbox
from orchestrator.services.reconcile import tick
from orchestrator.services.snapshot import load_snapshot
from orchestrator.store import reports as store_reports
from orchestrator.store import runs
from orchestrator.store.database import Database
from orchestrator.store.tables import events, metrics, points, reports
from orchestrator.store.tables import runs as runs_table

WAIT = 30


class Gate:
    """A database whose writers wait at a door, whose commits are counted and can be made to fail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.open = Event()
        self.fails = False
        self.transactions = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        assert self.open.wait(WAIT)
        with self._database.write() as connection:
            yield connection
            if self.fails:
                raise OperationalError("COMMIT", {}, Exception("database or disk is full"))
        self.transactions += 1

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._database.read() as connection:
            yield connection


def world_of(database: Database, folder: Path) -> tuple[World, list[Worker]]:
    world = World(database, folder / "home", slots=4)
    world.submit()
    world.turn()
    return world, [worker for worker in world.workers.values() if worker.sequence == 1]


def gated(world: World) -> tuple[Gate, Context]:
    gate = Gate(world.database)
    return gate, replace(world.context, database=gate)  # type: ignore[arg-type]  # it has what is used


def report(worker: Worker, sequence: int = 2, **changes: object) -> Report:
    values = (Point(step=1, name="train_loss", value=3.0), Point(step=2, name="train_loss", value=2.0))
    body = {"epoch": worker.assignment.epoch, "sequence": sequence, "phase": Phase.TRAINING, "step": 2}
    return Report.model_validate(body | {"points": values} | changes)


def address(worker: Worker) -> tuple[int, str]:
    assert worker.assignment.service is not None
    return number_of("att", worker.assignment.attempt_id), worker.assignment.service.token


def count(database: Database, table: object) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]  # any table


def test_one_bad_message_does_not_touch_the_others_of_its_batch(database: Database, tmp_path: Path) -> None:
    world, (one, two, three, four) = world_of(database, tmp_path)
    gate, context = gated(world)
    inbox = Inbox(context)
    first = inbox.put(address(one)[0], report(one), address(one)[1])
    stale = inbox.put(address(two)[0], report(two, epoch=7), address(two)[1])
    clash = inbox.put(address(one)[0], report(one, step=9), address(one)[1])
    twice = (Point(step=5, name="x", value=1.0), Point(step=5, name="x", value=2.0))
    torn = inbox.put(address(three)[0], report(three, points=twice), address(three)[1])
    other = report(three, 3, points=(Point(step=5, name="x", value=3.0), Point(step=6, name="x", value=4.0)))
    again = inbox.put(address(three)[0], other, address(three)[1])
    strange = inbox.put(address(three)[0], report(three), address(four)[1])
    beat = Heartbeat(epoch=four.assignment.epoch, phase=Phase.TRAINING, step=7)
    last = inbox.put(address(four)[0], beat, address(four)[1])
    gate.open.set()
    assert first.result(WAIT).acknowledged == 2
    assert last.result(WAIT).acknowledged == 1
    assert (torn.result(WAIT).acknowledged, again.result(WAIT).acknowledged) == (2, 3)
    for future, error in ((stale, StaleEpoch), (clash, Conflict), (strange, NotAllowed)):
        assert type(future.exception(WAIT)) is error
    inbox.close()
    assert gate.transactions <= 2  # the first may have gone alone
    assert count(database, reports) == 7
    assert count(database, points) == 4  # of two values the first
    with database.read() as connection:
        attempt = runs.get_attempt(connection, address(four)[0])
    assert attempt is not None
    assert attempt.step == 7


def test_what_an_undone_message_has_made_is_not_taken_for_there(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first makes a metric and then fails: its metric is gone again, whose id the others must not use."""
    world, workers = world_of(database, tmp_path)
    gate, context = gated(world)
    inbox = Inbox(context)
    failing, add_report = address(workers[0])[0], store_reports.add_report

    def add(connection: Connection, attempt_id: int, *values: object) -> None:
        if attempt_id == failing:
            raise Conflict("on purpose")
        add_report(connection, attempt_id, *values)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(store_reports, "add_report", add)
    fresh = (Point(step=1, name="fresh", value=3.0),)
    together = [inbox.put(address(w)[0], report(w, points=fresh), address(w)[1]) for w in workers]
    gate.open.set()
    assert str(together[0].exception(WAIT)) == "on purpose"
    assert [answer.result(WAIT).acknowledged for answer in together[1:]] == [2, 2, 2]
    alone = inbox.put(failing, report(workers[0], points=fresh), address(workers[0])[1])
    assert str(alone.exception(WAIT)) == "on purpose"
    monkeypatch.undo()
    later = inbox.put(failing, report(workers[0], points=fresh), address(workers[0])[1])
    assert later.result(WAIT).acknowledged == 2
    inbox.close()
    with database.read() as connection:
        for worker in workers:
            run = number_of("run", worker.assignment.run_id)
            assert store_reports.load_series(connection, run, "fresh") == [(1, 3.0)]


def test_a_server_that_lacks_the_last_metrics_is_told_them_again(database: Database, tmp_path: Path) -> None:
    """As a standby does that has taken over: sessions are new, and rows that were committed are not there."""
    world, (one, two, *_) = world_of(database, tmp_path)
    inbox = Inbox(world.context)
    fresh = (Point(step=1, name="fresh", value=3.0),)
    inbox.put(address(one)[0], report(one, points=fresh), address(one)[1]).result(WAIT)
    with database.write() as connection:
        connection.execute(delete(points))
        connection.execute(delete(metrics))
    database.engine.dispose()
    inbox.put(address(two)[0], report(two, points=fresh), address(two)[1]).result(WAIT)
    inbox.close()
    with database.read() as connection:
        run = number_of("run", two.assignment.run_id)
        assert store_reports.load_series(connection, run, "fresh") == [(1, 3.0)]


def test_an_error_that_a_batch_has_told_is_told_though_the_batch_is_taken_anew(
    either: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told is undone with the batch; the second time it is no news."""
    world, workers = world_of(either, tmp_path)
    inner = settle._apply

    def apply(*given: Any) -> None:
        inner(*given)
        raise RuntimeError("a bug of its own")

    monkeypatch.setattr(settle, "_apply", apply)
    gate, context = gated(world)
    inbox = Inbox(context)
    answers = []
    for worker in workers:
        target = worker.assignment.target_step
        measured = tuple(worker.evaluation(step) for step in range(20, target + 1, 20))
        told = report(worker, phase=Phase.AT_GATE, step=target, evaluations=measured)
        answers.append(inbox.put(address(worker)[0], told, address(worker)[1]))
    clash = inbox.put(address(workers[0])[0], report(workers[0], step=9), address(workers[0])[1])
    gate.open.set()
    assert [answer.result(WAIT).acknowledged for answer in answers] == [2, 2, 2, 2]
    assert type(clash.exception(WAIT)) is Conflict
    inbox.close()
    for _ in range(3):
        tick(world.context)
    with either.read() as connection:
        said = connection.execute(select(events.c.text).where(events.c.kind == "poison")).scalars().all()
    assert len(said) == 1


def test_when_the_commit_fails_nobody_is_acknowledged_and_nothing_is_stored(
    database: Database, tmp_path: Path
) -> None:
    world, workers = world_of(database, tmp_path)
    gate, context = gated(world)
    gate.fails = True
    inbox = Inbox(context)
    before = count(database, reports)
    answers = [inbox.put(address(worker)[0], report(worker), address(worker)[1]) for worker in workers]
    assert not any(answer.done() for answer in answers)
    gate.open.set()
    assert all(isinstance(answer.exception(WAIT), OperationalError) for answer in answers)
    assert count(database, reports) == before
    assert count(database, points) == 0
    gate.fails = False
    again = [inbox.put(address(worker)[0], report(worker), address(worker)[1]) for worker in workers]
    assert [answer.result(WAIT).acknowledged for answer in again] == [2] * len(workers)
    inbox.close()


def test_what_is_answered_is_committed(database: Database, tmp_path: Path) -> None:
    world, (worker, *_) = world_of(database, tmp_path)
    inbox = Inbox(world.context)
    for sequence in range(2, 8):
        told = report(worker, sequence, points=(Point(step=sequence, name="train_loss", value=1.0),))
        answer = inbox.put(address(worker)[0], told, address(worker)[1]).result(WAIT)
        assert answer.acknowledged == sequence
        assert count(database, points) == sequence - 1  # on a connection of its own
    inbox.close()


def test_a_full_inbox_refuses_and_a_closed_one_has_drained(either: Database, tmp_path: Path) -> None:
    world, (worker, *_) = world_of(either, tmp_path)
    gate, context = gated(world)
    inbox = Inbox(context, capacity=3)
    number, token = address(worker)
    beat = Heartbeat(epoch=worker.assignment.epoch, phase=Phase.TRAINING, step=1)
    answers = []

    def fill() -> None:
        """The writer may have taken some of the first before it came to the door."""
        for i in range(60):
            answers.append(inbox.put(number, beat, token))
            Event().wait(0.01 if i < 3 else 0)

    with pytest.raises(TooMany, match="3 messages wait"):
        fill()
    gate.open.set()
    inbox.close()
    assert all(isinstance(answer.result(0), Answer) for answer in answers)
    with pytest.raises(Busy, match="stopping"):
        inbox.put(number, beat, token)


def test_a_known_token_is_not_asked_for_again_and_another_is(either: Database, tmp_path: Path) -> None:
    world, (worker, other, *_) = world_of(either, tmp_path)
    inbox = Inbox(world.context)
    number, token = address(worker)
    assert not inbox.knows(number, token)
    inbox.admit(number, token)
    assert inbox.knows(number, token)
    assert not inbox.knows(number, address(other)[1])
    with pytest.raises(NotAllowed):
        inbox.admit(number, address(other)[1])


@pytest.mark.parametrize("slots", [4, 3])
def test_workers_at_gates_are_answered_by_one_look_at_the_queue(
    slots: int, either: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many slots as runs nobody waits, and nothing at all is loaded."""
    world = World(either, tmp_path / "home", slots=slots)
    world.submit()
    world.turn()
    workers = list(world.workers.values())
    assert len(workers) == slots
    with either.write() as connection:
        connection.execute(
            runs_table.update().where(runs_table.c.status != "pending").values(status="at_gate")
        )
    looks: list[int] = []

    def looked(connection: Connection, context: Context) -> Snapshot:
        looks.append(1)
        return load_snapshot(connection, context)

    monkeypatch.setattr(ingest, "load_snapshot", looked)
    gate, context = gated(world)
    inbox = Inbox(context)
    beats = [
        (worker, Heartbeat(epoch=worker.assignment.epoch, phase=Phase.AT_GATE, step=100))
        for _ in range(10)
        for worker in workers
    ]
    answers = [inbox.put(address(worker)[0], beat, address(worker)[1]) for worker, beat in beats]
    gate.open.set()
    told = {answer.result(WAIT).directive.kind for answer in answers}
    inbox.close()
    assert told == {"wait" if slots == 4 else "yield"}
    assert gate.transactions <= 2  # the first may have gone alone
    assert len(looks) == (0 if slots == 4 else gate.transactions)
