"""On which home and machine a database may be served."""

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from test_leading import LONG
from worlds import World

from orchestrator.domain.errors import Busy
from orchestrator.engines.fake import FakeWorld
from orchestrator.services.lead import Leadership, LeaderTick
from orchestrator.services.place import FILE, home_id, host_id, is_same_host, settle_in
from orchestrator.services.reconcile import tick
from orchestrator.store import leader
from orchestrator.store.database import Database
from orchestrator.store.leader import Place

HOST = host_id("m1\n", "name", "b1\n")
AFTER_REBOOT = host_id("m1", "name", "b2")
ELSEWHERE = host_id("m2", "name", "b9")


def numbered() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"{next(numbers):032x}"


def test_a_home_has_one_identity_that_goes_with_it(tmp_path: Path) -> None:
    new = numbered()
    first = home_id(tmp_path / "a", new)
    assert home_id(tmp_path / "a", new) == first
    assert home_id(tmp_path / "b", new) != first
    (tmp_path / "a").rename(tmp_path / "moved")
    assert home_id(tmp_path / "moved", new) == first
    assert [file.name for file in (tmp_path / "moved").iterdir()] == [FILE]
    (tmp_path / "b" / FILE).write_text("")
    with pytest.raises(Busy, match="should hold 32 hexadecimal digits"):
        home_id(tmp_path / "b", new)


def test_of_many_that_make_the_identity_one_does(tmp_path: Path) -> None:
    start = threading.Barrier(6)
    found: list[str] = []

    def make(digit: str) -> None:
        start.wait(20)
        found.append(home_id(tmp_path, lambda: digit * 32))

    threads = [threading.Thread(target=make, args=(digit,)) for digit in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 6
    assert len(set(found)) == 1


def test_a_machine_is_itself_after_a_restart_and_in_its_containers() -> None:
    assert is_same_host(HOST, AFTER_REBOOT)
    assert is_same_host(host_id("", "c1", "b1"), host_id("", "c2", "b1"))
    assert is_same_host(host_id("", "c1", "b1"), host_id("", "c1", "b2"))
    assert not is_same_host(HOST, ELSEWHERE)
    assert not is_same_host(host_id("", "c1", "b1"), host_id("", "c2", "b2"))


def test_a_service_starts_beside_a_leader_that_is_paused_in_the_middle_of_a_write(
    postgres: Database, tmp_path: Path
) -> None:
    place = Place("1" * 32, str(tmp_path), HOST)
    settle_in(postgres, place)
    with postgres.engine.begin() as paused:
        leader.take(paused, "paused", "http://127.0.0.1:1", LONG, place)
        settle_in(postgres, place)  # waits for nothing


class Site:
    """A world with a service that leads if it may."""

    def __init__(self, database: Database, home: Path, place: Place) -> None:
        self.world = World(database, home)
        self.place = place
        self.ticked = 0
        self.elapsed = 0.0
        self.leadership = Leadership(database, place.path, "http://one", LONG, lambda: self.elapsed, place)
        self.turn = LeaderTick(self.world.context, self.leadership, self.tick, lambda: None)

    def tick(self, context: object) -> None:
        self.ticked += 1
        tick(self.world.context)

    def machine(self) -> FakeWorld:
        return self.world.machine


@pytest.fixture
def site(postgres: Database, tmp_path: Path) -> Site:
    """One that has led, with live attempts."""
    place = Place(home_id(tmp_path / "a", numbered()), str(tmp_path / "a"), HOST)
    settle_in(postgres, place)
    made = Site(postgres, tmp_path / "a", place)
    made.world.submit()
    made.turn()
    assert made.ticked == 1
    assert len(made.machine().workers) == 2
    return made


def test_another_home_is_refused_and_is_told_what_to_do(site: Site, tmp_path: Path) -> None:
    database = site.world.database
    other = Place("f" * 32, str(tmp_path / "b"), HOST)
    for _ in range(2):
        with pytest.raises(Busy, match=rf"works with the home {site.place.path} .*ASSAY_HOME.*assay db move"):
            settle_in(database, other)
        site.leadership.give_up()
    intruder = Site(database, tmp_path / "b", other)
    intruder.turn()
    assert intruder.ticked == 0
    with database.read() as connection:
        found = leader.read(connection)
    assert found is not None
    assert found.home_id == site.place.home_id


def test_a_moved_home_is_served_once_nobody_leads_on_the_old_one(site: Site) -> None:
    moved = replace(site.place, path="/moved")
    with pytest.raises(Busy, match="is a copy of it"):
        settle_in(site.world.database, moved)
    site.leadership.give_up()
    settle_in(site.world.database, moved)


def test_another_machine_waits_for_the_workers_of_the_first(site: Site, tmp_path: Path) -> None:
    database = site.world.database
    away = replace(site.place, host=ELSEWHERE)
    follower = Site(database, tmp_path / "a", away)
    with pytest.raises(Busy, match="processes of another machine"):
        settle_in(database, away)
    site.leadership.give_up()
    follower.turn()  # it followed before, and nobody leads now: the workers still train on the other machine
    assert follower.ticked == 0
    with pytest.raises(Busy, match="processes of another machine"):
        settle_in(database, away)
    back = Site(database, tmp_path / "a", replace(site.place, host=AFTER_REBOOT))
    settle_in(database, back.place)
    back.turn()
    assert back.ticked == 1


def test_a_place_that_was_given_up_is_free_for_another(site: Site, tmp_path: Path) -> None:
    database = site.world.database
    site.leadership.give_up()
    with database.beside() as connection:
        assert leader.move_out(connection)
    other = Site(database, tmp_path / "b", Place("f" * 32, str(tmp_path / "b"), ELSEWHERE))
    settle_in(database, other.place)
    other.turn()
    assert other.ticked == 1
