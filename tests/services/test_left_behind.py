"""What a worker started and left: ended, however the worker went. With real processes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import select, update
from worlds import World

from orchestrator.engines import workers
from orchestrator.engines.claims import Claims
from orchestrator.engines.local import LocalEngine
from orchestrator.services.context import Trainer
from orchestrator.services.reconcile import tick
from orchestrator.store import tables
from orchestrator.store.database import Database

CHILD = "sleep 1000 & setsid sleep 1000 &"


def eventually(is_true: Callable[[], bool]) -> None:
    for _ in range(1500):
        if is_true():
            return
        Event().wait(0.02)
    raise AssertionError("it did not happen in time")


class Machine:
    """A world whose workers are shell scripts."""

    def __init__(self, database: Database, home: Path) -> None:
        self.world = World(database, home, slots=1)
        self.engine = LocalEngine(home / "engine", 1, False, lambda: self.world.passed)

    def run(self, script: str) -> str:
        """The key of the one worker, which has been started."""
        trainer = Trainer(
            ("/bin/sh", "-c", f"echo {{assignment}}; {script}"), self.world.context.trainers["builtin"].check
        )
        self.world.context = replace(self.world.context, engine=self.engine, trainers={"builtin": trainer})
        self.world.submit()
        tick(self.world.context)
        return self.engine.list_owned()[0].key

    def is_over(self, key: str) -> bool:
        handle = self.engine.find(key)
        return handle is not None and self.engine.poll([handle])[key].is_over

    def left(self, key: str) -> int:
        return len(workers.members(Claims(self.world.home / "engine"), key))


@pytest.fixture
def machine(either: Database, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(either, tmp_path / "home")
    yield machine
    keys = [handle.key for handle in machine.engine.list_owned()]
    for handle in machine.engine.list_owned():
        machine.engine.cancel(handle, 0)
    eventually(lambda: bool(machine.engine.poll([]) or True) and not any(map(machine.left, keys)))


@pytest.mark.parametrize("code", [0, 1, 12])
def test_children_of_a_worker_that_exits_by_itself_are_ended(machine: Machine, code: int) -> None:
    key = machine.run(f"{CHILD} exit {code}")
    eventually(lambda: machine.is_over(key) and machine.left(key) == 2)
    machine.world.wait(1)
    tick(machine.world.context)
    eventually(lambda: machine.left(key) == 0)


def test_a_child_that_ignores_term_is_killed_after_the_grace(machine: Machine) -> None:
    key = machine.run("(trap '' TERM; while :; do sleep 0.1; done) & exit 1")
    eventually(lambda: machine.is_over(key) and machine.left(key) >= 1)
    machine.world.wait(1)
    tick(machine.world.context)
    assert machine.left(key) >= 1
    machine.world.wait(25)
    tick(machine.world.context)
    eventually(lambda: machine.left(key) == 0)


def test_children_of_a_worker_that_told_its_end_are_found_when_its_record_cannot_be_dropped(
    machine: Machine,
) -> None:
    """Its attempt has ended by its own word, so nobody buries it."""
    key = machine.run(f"{CHILD} exit 0")
    eventually(lambda: machine.is_over(key) and machine.left(key) == 2)
    told = {"status": "ended", "exit_code": 0, "ended_at": datetime(2026, 1, 1, tzinfo=UTC)}
    with machine.world.database.write() as connection:
        connection.execute(update(tables.attempts).where(tables.attempts.c.key == key).values(**told))
    machine.world.wait(65)
    tick(machine.world.context)
    eventually(lambda: machine.left(key) == 0)
    query = select(tables.events.c.text).where(tables.events.c.kind == "orphan")
    with machine.world.database.read() as connection:
        (said,) = connection.execute(query).scalars()
    assert f"processes that the worker {key} started were left" in said
    machine.world.wait(65)
    tick(machine.world.context)
    assert machine.engine.find(key) is None
