"""Services that share a PostgreSQL database: one ticks, and one that was paused changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from worlds import World, falling

from orchestrator.domain.errors import NotLeading
from orchestrator.engines.base import Handle, WorkerSpec
from orchestrator.engines.fake import FakeEngine
from orchestrator.protocol.assignment import Assignment
from orchestrator.services import launch
from orchestrator.services.context import Context, token_hash
from orchestrator.services.lead import Leadership, LeaderTick
from orchestrator.services.query import list_decisions
from orchestrator.services.reconcile import tick
from orchestrator.store import leader, runs
from orchestrator.store.database import Database
from orchestrator.store.leader import Place
from orchestrator.store.tables import attempts, leaders

BETTER = falling({"wide": -0.20, "wider": -0.10, "slow": 0.30})
LONG = timedelta(minutes=10)
HERE = Place("0" * 32, "/home", "machine boot")
SHORT = [
    {"name": "screen", "steps": 20, "variants": {"base": {}, "wide": {"width": 8}, "slow": {"rate": 0.1}}},
    {"name": "long", "steps": 40, "promote": {"best": 1}},
]


class Pausing(Database):
    """A database that calls `before` before each write."""

    before: Callable[[], None]

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self.before()
        with super().write() as connection:
            yield connection


class PausingLeadership(Leadership):
    """One that calls `before` before each look at the lead that an engine's side effect asks for."""

    before: Callable[[], None]

    def ask(self) -> None:
        self.before()
        super().ask()


class Replica:
    """One service of several on a world's database and machine."""

    def __init__(self, world: World, name: str, place: Place = HERE) -> None:
        self.elapsed = 0.0
        self.announced = 0
        self.ticked = 0
        self.before: Callable[[], None] = lambda: None
        self.database = Pausing(world.database.url)
        self.database.before = lambda: self.before()
        self.leadership = PausingLeadership(
            self.database, name, f"http://{name}", LONG, lambda: self.elapsed, place
        )
        self.leadership.before = lambda: self.before()
        self.context = replace(world.boot(), database=self.database)
        self.tick = LeaderTick(self.context, self.leadership, self.counted, self.announce)

    def announce(self) -> None:
        self.announced += 1

    def counted(self, context: Context) -> None:
        self.ticked += 1
        tick(context)

    def pause_before(self, number: int, meanwhile: Callable[[], None]) -> None:
        """At its side effect of this number, `meanwhile` happens first."""
        calls = count(1)

        def before() -> None:
            if next(calls) == number:
                meanwhile()

        self.before = before


class Replicas(World):
    """A world whose turns are made by several services in turn."""

    def __init__(self, database: Database, home: Path) -> None:
        super().__init__(database, home, loss=BETTER)
        self.replicas = [Replica(self, "one"), Replica(self, "two")]

    def turn(self) -> None:
        for replica in self.replicas:
            replica.tick()
        self.adopt()
        for key, worker in list(self.workers.items()):
            if worker.exited is None and not self.machine.workers[key].state.is_over:
                self.move(key, worker)
        self.wait(1)

    def expire(self) -> None:
        with self.database.beside() as connection:
            past = datetime(2020, 1, 1, tzinfo=UTC)
            connection.execute(update(leaders).values(expires_at=past))

    def take_over(self) -> None:
        """What happens while the first is paused: its lease runs out, and the second ticks."""
        self.expire()
        self.replicas[1].tick()


@pytest.fixture
def world(postgres: Database, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(postgres, tmp_path / "home")
    yield made
    for replica in made.replicas:
        replica.database.close()


def decided(world: World, experiment: int) -> list[tuple[Any, ...]]:
    found = list_decisions(
        world.context, experiment_id=experiment, run_id=None, kinds=(), limit=500, cursor=None
    ).items
    return sorted((d.variant, d.stage, d.step, d.kind, d.reason, d.text) for d in found)


def row(world: World) -> leader.LeaderRecord:
    with world.database.read() as connection:
        found = leader.read(connection)
    assert found is not None
    return found


def test_one_of_two_ticks_and_announces_itself(world: Replicas) -> None:
    experiment = world.submit(stages=SHORT)
    assert world.run_to_end(experiment) == "succeeded"
    one, two = world.replicas
    assert one.ticked == one.announced > 4
    assert two.ticked == two.announced == 0
    assert (row(world).holder, row(world).epoch) == ("one", 1)


def test_the_other_takes_over_when_the_lease_is_over_and_renews_every_workers(world: Replicas) -> None:
    world.submit()
    for _ in range(2):
        world.turn()
    one, two = world.replicas
    world.wait(10_000)  # nobody ticked for long: no worker is judged by its lease
    world.take_over()
    with world.database.read() as connection:
        live = connection.execute(select(attempts.c.lease_expires_at).where(attempts.c.ended_at.is_(None)))
        leases = live.scalars().all()
    assert len(leases) == 2
    assert all(lease > world.now for lease in leases)
    assert (two.ticked, row(world).holder, row(world).epoch) == (1, "two", 2)
    one.elapsed += LONG.total_seconds()
    before = one.ticked
    one.tick()
    assert (one.ticked, one.leadership.lead) == (before, None)


def test_a_lead_is_renewed_when_a_third_is_over_and_not_at_every_tick(world: Replicas) -> None:
    one = world.replicas[0]
    one.tick()
    first = row(world).expires_at
    one.elapsed += 60
    one.tick()
    assert row(world).expires_at == first
    one.elapsed += 200
    one.tick()
    assert row(world).expires_at > first
    assert row(world).epoch == 1


def test_a_service_that_stops_gives_the_lead_away(world: Replicas) -> None:
    one, two = world.replicas
    one.tick()
    one.leadership.give_up()
    two.tick()
    assert (two.ticked, row(world).holder) == (1, "two")
    one.tick()
    assert one.ticked == 1


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_a_leader_paused_before_any_side_effect_changes_nothing(
    world: Replicas, either: Database, tmp_path: Path, number: int
) -> None:
    calm = World(either, tmp_path / "calm", loss=BETTER)
    undisturbed = calm.submit(stages=SHORT)
    calm.run_to_end(undisturbed)
    one, two = world.replicas
    experiment = world.submit(stages=SHORT)
    one.pause_before(number, world.take_over)
    assert world.run_to_end(experiment) == "succeeded"
    assert (row(world).holder, row(world).epoch) == ("two", 2)
    assert one.leadership.lead is None
    assert two.ticked > 0
    assert decided(world, experiment) == decided(calm, undisturbed)
    assert steps_by_run(world, experiment) == steps_by_run(calm, undisturbed)
    assert len(world.machine.workers) == len(calm.machine.workers)


def steps_by_run(world: World, experiment: int) -> list[tuple[str, list[int]]]:
    """Every step that was reported, as often as it was."""
    trained: dict[str, list[int]] = {}
    for worker in world.workers.values():
        trained.setdefault(worker.assignment.variant, []).extend(worker.reported)
    return sorted((variant, sorted(steps)) for variant, steps in trained.items())


def test_a_pause_between_the_look_and_the_submit_makes_no_second_worker(world: Replicas) -> None:
    """The one moment that no look can guard: there the key does."""
    experiment = world.submit(stages=SHORT)
    one, _ = world.replicas
    within = one.context.engine
    pauses = [world.take_over]

    def submit(key: str, spec: WorkerSpec) -> Handle:
        if pauses:
            pauses.pop()()
        return FakeEngine.submit(within, key, spec)  # type: ignore[arg-type]

    within.submit = submit  # type: ignore[method-assign]
    assert world.run_to_end(experiment) == "succeeded"
    assert pauses == []
    assert row(world).holder == "two"
    every = [step for _, steps in steps_by_run(world, experiment) for step in steps]
    assert len(every) == 2 + 2 + 1


def test_a_pause_before_the_assignment_is_in_its_place_leaves_the_new_leaders_there(
    world: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(stages=SHORT)
    write, pauses = launch._write_private, [world.take_over]

    def paused(file: Path, text: str, token: str) -> Path:
        written = write(file, text, token)
        if pauses:
            pauses.pop()()
        return written

    monkeypatch.setattr(launch, "_write_private", paused)
    world.turn()
    assert (pauses, row(world).holder) == ([], "two")
    with world.database.read() as connection:
        rows = runs.live_attempts(connection)
    assert len(world.workers) == len(rows) == 2
    for attempt in rows:
        told = Assignment.model_validate_json((Path(attempt.directory) / "assignment.json").read_bytes())
        assert told.service is not None
        assert token_hash(told.service.token) == attempt.token_hash


def test_outside_a_tick_a_service_writes_though_it_does_not_lead(world: Replicas) -> None:
    """Every replica ingests and answers."""
    world.replicas[0].tick()
    follower = world.replicas[1]
    with follower.context.database.write() as connection:
        connection.execute(update(leaders).values(address="written"))
    with pytest.raises(NotLeading), follower.tick._context.database.write():
        pass
    with pytest.raises(NotLeading):
        follower.tick._context.engine.cancel(Handle("fake", "run-1-1"), 0.0)
    assert row(world).address == "written"
