"""The leader's row: one holder at a time, a new epoch for each, all by the database's clock."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from orchestrator.domain.errors import Busy
from orchestrator.store import leader
from orchestrator.store.clock import DatabaseClock
from orchestrator.store.database import Database
from orchestrator.store.leader import Lead, Place
from orchestrator.store.tables import leaders

HERE = Place("0" * 32, "/home", "machine boot")
LONG = timedelta(minutes=10)
SOON = 20.0


def take(database: Database, holder: str, lasts: timedelta = LONG) -> Lead | None:
    with database.beside() as connection:
        return leader.take(connection, holder, f"http://{holder}", lasts, HERE)


def renew(database: Database, lead: Lead) -> bool:
    with database.beside() as connection:
        return leader.renew(connection, lead, LONG)


def expire(database: Database) -> None:
    with database.beside() as connection:
        past = datetime(2020, 1, 1, tzinfo=UTC)
        connection.execute(update(leaders).values(expires_at=past))


def test_the_first_takes_it_and_the_second_does_not(postgres: Database) -> None:
    with postgres.read() as connection:
        assert leader.read(connection) is None
    assert take(postgres, "one") == Lead("one", 1)
    assert take(postgres, "two") is None
    with postgres.read() as connection:
        found = leader.read(connection)
    assert found is not None
    assert (found.holder, found.epoch, found.address, found.is_live) == ("one", 1, "http://one", True)


def test_the_database_is_at_home_where_the_first_came_from(postgres: Database) -> None:
    other = Place("1" * 32, "/other", "machine boot")
    with postgres.beside() as connection:
        leader.settle_in(connection, HERE)
        leader.settle_in(connection, other)
        found = leader.read(connection)
        assert found is not None
        assert (found.home_id, found.home_path, found.epoch, found.is_live) == ("0" * 32, "/home", 0, False)
        assert leader.take(connection, "two", "http://two", LONG, other) is None
        assert leader.take(connection, "one", "http://one", LONG, HERE) == Lead("one", 1)
        assert not leader.move_out(connection)
    expire(postgres)
    with postgres.beside() as connection:
        assert leader.move_out(connection)
        assert leader.take(connection, "two", "http://two", LONG, other) == Lead("two", 2)


def test_after_its_lease_another_takes_it_under_a_new_epoch(postgres: Database) -> None:
    one = take(postgres, "one")
    assert one is not None
    expire(postgres)
    assert not renew(postgres, one)
    two = take(postgres, "two")
    assert two == Lead("two", 2)
    assert renew(postgres, two)
    assert not renew(postgres, one)
    with postgres.read() as connection:
        assert leader.holds(connection, two)
        assert not leader.holds(connection, one)


def test_the_same_holder_takes_it_again_under_a_new_epoch(postgres: Database) -> None:
    assert take(postgres, "one") == Lead("one", 1)
    expire(postgres)
    assert take(postgres, "one") == Lead("one", 2)


def test_what_is_given_up_is_free_at_once(postgres: Database) -> None:
    one = take(postgres, "one")
    assert one is not None
    with postgres.beside() as connection:
        leader.give_up(connection, one)
    two = take(postgres, "two")
    assert two == Lead("two", 2)
    with postgres.beside() as connection:
        leader.give_up(connection, one)  # of one that is over: nothing
    assert renew(postgres, two)


def test_of_many_at_once_one_takes_it(postgres: Database) -> None:
    assert take(postgres, "before") is not None
    expire(postgres)
    others = [Database(postgres.url) for _ in range(4)]
    start = threading.Barrier(len(others))
    taken: list[Lead | None] = []

    def try_it(own: Database, name: str) -> None:
        start.wait(SOON)
        taken.append(take(own, name))

    threads = [threading.Thread(target=try_it, args=(own, f"s{i}")) for i, own in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    for own in others:
        own.close()
    winners = [lead for lead in taken if lead is not None]
    assert len(taken) == 4
    assert [lead.epoch for lead in winners] == [2]


def test_nobody_takes_it_while_a_write_that_renewed_it_is_not_over(postgres: Database) -> None:
    one = take(postgres, "one")
    assert one is not None
    other = Database(postgres.url)
    with postgres.write() as connection:
        assert leader.renew(connection, one, LONG)
        with pytest.raises(Busy):
            take(other, "two")
    other.close()


def test_a_guard_that_raises_undoes_the_write(postgres: Database) -> None:
    def refuse(_connection: object) -> None:
        raise Busy("no")

    with pytest.raises(Busy), postgres.guarded(refuse).write() as connection:
        connection.execute(text("INSERT INTO metrics (name) VALUES ('loss')"))
    with postgres.write() as connection:  # the lock is free again, and the other has no guard
        assert connection.execute(text("SELECT count(*) FROM metrics")).scalar_one() == 0


def test_a_writer_that_falls_silent_is_ended_by_the_server(postgres: Database) -> None:
    """A service that is stopped in the middle of a write must not hold up the others for ever."""
    silent = Database(postgres.url)
    silent.pause_seconds = 0.3

    def fall_silent() -> None:
        with silent.write() as connection:
            connection.execute(text("INSERT INTO metrics (name) VALUES ('silent')"))
            with postgres.write() as other:  # waits until the server has ended the silent one
                other.execute(text("INSERT INTO metrics (name) VALUES ('heard')"))
            connection.execute(text("INSERT INTO metrics (name) VALUES ('late')"))

    with pytest.raises(DBAPIError, match=r"idle-in-transaction|closed"):
        fall_silent()
    with silent.write() as connection:
        found = connection.execute(text("SELECT name FROM metrics")).scalars().all()
    assert list(found) == ["heard"]
    silent.close()


def test_the_clock_is_the_databases_and_moves_with_elapsed_time(postgres: Database) -> None:
    elapsed = [100.0]
    clock = DatabaseClock(postgres, lambda: elapsed[0])
    with postgres.read() as connection:
        told = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert abs(told - clock()) < timedelta(seconds=SOON)
    before = clock()
    elapsed[0] += 3.0
    assert clock() - before == timedelta(seconds=3)


def test_the_clock_follows_the_database_when_it_looks_again(postgres: Database) -> None:
    elapsed = [100.0]
    clock = DatabaseClock(postgres, lambda: elapsed[0])
    first = clock()
    elapsed[0] += 3600.0  # this machine's count went astray by an hour
    assert clock() - first > timedelta(minutes=59)
    clock.measure()
    assert clock() - first < timedelta(minutes=1)


def test_the_clock_looks_only_now_and_then(postgres: Database) -> None:
    elapsed = [100.0]
    clock = DatabaseClock(postgres, lambda: elapsed[0])
    elapsed[0] += 1.0
    postgres.close()
    clock.measure()
    assert postgres.engine.pool.checkedin() == 0  # type: ignore[attr-defined]
