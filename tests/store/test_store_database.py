"""Connections: transactions, snapshots, and writers one after the other."""

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from store_rows import NOW, add_experiment, add_run

from orchestrator.domain.errors import Busy
from orchestrator.store import experiments as store
from orchestrator.store.database import Database, locked_file
from orchestrator.store.migrate import current_revision, differences, newest_revision, upgrade
from orchestrator.store.tables import experiments, metrics, runs

SOON = 20.0
"""Seconds after which a thread that has not come on never will."""


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(metrics.c.name).order_by(metrics.c.name)).scalars())


def test_the_migrations_make_the_tables_of_the_code(database: Database) -> None:
    assert differences(database) == []
    assert current_revision(database) == newest_revision() is not None


def test_upgrading_again_changes_nothing(database: Database) -> None:
    with database.write() as connection:
        add_experiment(connection)
    upgrade(database)
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(experiments)).scalar_one() == 1


def test_two_that_upgrade_at_once_both_come_through(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'assay.sqlite3'}"
    databases = [Database(url), Database(url)]
    threads = [in_thread(lambda d=database: upgrade(d)) for database in databases]  # type: ignore[misc]
    for thread in threads:
        thread.join(SOON)
    assert [current_revision(database) for database in databases] == [newest_revision()] * 2
    for database in databases:
        database.close()


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(insert(metrics), [{"name": "loss"}, {"name": "loss"}])
    assert names(database) == []


def test_a_write_is_seen_once_it_is_over(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(metrics).values(name="loss"))
        assert names(database) == []
    assert names(database) == ["loss"]


def test_a_read_sees_one_snapshot_while_others_write(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(metrics).values(name="before"))
    with database.read() as connection:
        query = select(func.count()).select_from(metrics)
        assert connection.execute(query).scalar_one() == 1
        with database.write() as writer:
            writer.execute(insert(metrics).values(name="meanwhile"))
        assert connection.execute(query).scalar_one() == 1
    assert names(database) == ["before", "meanwhile"]


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    seen: list[list[str]] = []
    with database.write() as connection:
        connection.execute(insert(metrics).values(name="loss"))
        thread = in_thread(lambda: seen.append(names(database)))
        thread.join(SOON)
        assert seen == [[]]


def test_writers_lose_no_update(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
    each, start = 15, threading.Barrier(2)

    def count_up() -> None:
        start.wait(SOON)
        for _ in range(each):
            with database.write() as connection:
                step = connection.execute(select(runs.c.step).where(runs.c.id == run.id)).scalar_one()
                connection.execute(update(runs).where(runs.c.id == run.id).values(step=step + 1))

    threads = [in_thread(count_up), in_thread(count_up)]
    for thread in threads:
        thread.join(SOON)
    with database.read() as connection:
        assert connection.execute(select(runs.c.step)).scalar_one() == 2 * each


def test_writers_of_two_services_lose_no_update(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
    other = Database(database.url)
    each, start = 10, threading.Barrier(2)

    def count_up(own: Database) -> None:
        start.wait(SOON)
        for _ in range(each):
            with own.write() as connection:
                step = connection.execute(select(runs.c.step).where(runs.c.id == run.id)).scalar_one()
                connection.execute(update(runs).where(runs.c.id == run.id).values(step=step + 1))

    threads = [in_thread(lambda d=d: count_up(d)) for d in (database, other)]  # type: ignore[misc]
    for thread in threads:
        thread.join(SOON)
    with database.read() as connection:
        assert connection.execute(select(runs.c.step)).scalar_one() == 2 * each
    other.close()


def test_a_row_of_nobody_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as connection:
        store.add_stage(connection, experiment_id=10**9, position=0, name="s", steps=1, status="running")


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    for hours in (0, 5.5, -8):
        given = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=hours)))
        with database.write() as connection:
            record = add_experiment(connection, created_at=given)
        assert record.created_at == given
        assert record.created_at.tzinfo is UTC
        assert record.created_at.microsecond == 123456
        assert record.ended_at is None


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="without a zone"), database.write() as connection:
        add_experiment(connection, created_at=NOW.replace(tzinfo=None))


def test_sqlite_is_durable_and_keeps_its_keys(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'as the service opens it.sqlite3'}")) as made:
        asked = asked_of(made)
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def asked_of(made: Database) -> dict[str, object]:
    with made.read() as connection:
        return {
            name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }


def test_a_lock_is_shared_by_those_who_share_it_and_by_nobody_else(tmp_path: Path) -> None:
    """Services on PostgreSQL share a data folder; one on SQLite has it alone."""
    file = tmp_path / "home" / "service.lock"
    with (
        locked_file(file, "taken", shared=True),
        locked_file(file, "taken", shared=True),
        pytest.raises(Busy, match="taken"),
        locked_file(file, "taken"),
    ):
        pass
    with (
        locked_file(file, "taken"),
        pytest.raises(Busy, match="taken"),
        locked_file(file, "taken", shared=True),
    ):
        pass


def test_a_commit_waits_for_the_disk_whatever_the_servers_settings_are(database: Database) -> None:
    how = "PRAGMA synchronous" if database.is_sqlite else "SHOW synchronous_commit"
    if not database.is_sqlite:
        with database.read() as connection:
            assert connection.execute(text(how)).scalar_one() == "off"  # as tests set the server
    with database.write() as connection:
        assert connection.execute(text(how)).scalar_one() == (2 if database.is_sqlite else "on")  # 2 is FULL
