"""Backups of a database that is used, those that come before upgrades, and `assay db`."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from first_version import first_database
from sqlalchemy import func, insert, select

from orchestrator import upkeep
from orchestrator.domain.errors import Busy, Conflict
from orchestrator.store.backup import KEPT, SPARE_BYTES, back_up, back_up_before_upgrade, backups_in
from orchestrator.store.database import Database, locked_file
from orchestrator.store.integrity import damage_of
from orchestrator.store.migrate import current_revision, newest_revision, upgrade
from orchestrator.store.opening import make_ready
from orchestrator.store.tables import metrics

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def count(file: Path) -> int:
    with closing(Database(f"sqlite:///{file}")) as database, database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(metrics)).scalar_one())


def add(database: Database, names: list[str]) -> None:
    with database.write() as connection:
        connection.execute(insert(metrics), [{"name": name} for name in names])


def file_of(database: Database) -> Path:
    return Path(str(database.engine.url.database))


def test_a_backup_has_what_was_committed_and_nothing_else(sqlite: Database, tmp_path: Path) -> None:
    """What was committed last stands in the WAL alone; what is not committed is not there."""
    add(sqlite, ["committed"])
    target = tmp_path / "deep" / "copy.sqlite3"
    with sqlite.write() as connection:
        connection.execute(insert(metrics).values(name="not yet"))
        size = back_up(file_of(sqlite), target)
    assert target.stat().st_size == size
    assert [file.name for file in target.parent.iterdir()] == ["copy.sqlite3"]
    assert damage_of(target, thorough=True) is None
    assert count(target) == 1


def test_a_backup_under_load_is_one_moment_and_keeps_no_writer_waiting(
    sqlite: Database, tmp_path: Path
) -> None:
    """Two names are written in one transaction: no copy has one without the other."""
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            add(sqlite, [f"a{len(written)}", f"b{len(written)}"])
            written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    for number in range(10):
        back_up(file_of(sqlite), tmp_path / f"{number}.sqlite3")
        counts.append(count(tmp_path / f"{number}.sqlite3"))
    stop.set()
    writer.join()
    assert counts == sorted(counts)
    assert {n % 2 for n in counts} == {0}
    assert count(file_of(sqlite)) == 2 * len(written) >= counts[-1] > 0


def test_a_file_that_is_there_is_never_overwritten(sqlite: Database, tmp_path: Path) -> None:
    target = tmp_path / "mine.sqlite3"
    target.write_text("precious")
    with pytest.raises(Conflict, match="is there already"):
        back_up(file_of(sqlite), target)
    assert target.read_text() == "precious"


@pytest.mark.parametrize("room", [0, SPARE_BYTES])
def test_without_room_nothing_is_written(sqlite: Database, tmp_path: Path, room: int) -> None:
    folder = tmp_path / "backups"
    with pytest.raises(Busy, match=r"needs \d+ bytes of room and there are"):
        back_up(file_of(sqlite), folder / "copy.sqlite3", lambda _: room)
    assert list(folder.iterdir()) == []


def test_a_damaged_database_makes_no_backup(sqlite: Database, tmp_path: Path) -> None:
    add(sqlite, [f"metric {i} {'x' * 80}" for i in range(2000)])
    file = file_of(sqlite)
    sqlite.close()
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2 // 4096 * 4096)
        stream.write(b"\xa5" * 4096)
    with pytest.raises(Busy, match=r"damaged|malformed"):
        back_up(file, tmp_path / "backups" / "copy.sqlite3")
    assert list((tmp_path / "backups").iterdir()) == []


def test_the_newest_backups_of_upgrades_stay_and_all_of_a_persons(sqlite: Database, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    back_up(file_of(sqlite), folder / "assay-mine.sqlite3")
    made = [
        back_up_before_upgrade(file_of(sqlite), folder, NOW + timedelta(days=day), "0001", "0002")
        for day in range(KEPT + 2)
    ]
    for age, file in enumerate(reversed(made[-KEPT:])):
        os.utime(file, (1e9 - age, 1e9 - age))
    assert backups_in(folder, made_before_upgrades=True) == made[: -KEPT - 1 : -1]
    assert (folder / "assay-mine.sqlite3").exists()


def test_an_upgrade_is_preceded_by_a_backup_that_brings_back_the_time_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    home = tmp_path / "home"
    with closing(first_database(f"sqlite:///{home / 'assay.sqlite3'}", home)) as database:
        make_ready(database, home / "backups", lambda: NOW)
        assert current_revision(database) == newest_revision()
    (backup,) = (home / "backups").iterdir()
    assert backup.name == f"assay-20260329T013000Z-0001-before-{newest_revision()}.sqlite3"
    assert str(backup) in caplog.text
    with closing(Database(f"sqlite:///{backup}")) as old:
        assert current_revision(old) == "0001"
        upgrade(old)
        assert current_revision(old) == newest_revision()


def test_neither_a_new_database_nor_one_of_today_is_backed_up(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'assay.sqlite3'}")) as database:
        for _ in range(2):
            with database.read():
                pass
            make_ready(database, tmp_path / "backups", lambda: NOW)
    assert not (tmp_path / "backups").exists()


def test_without_a_backup_there_is_no_upgrade(tmp_path: Path) -> None:
    """A file stands where the folder of backups would be."""
    (tmp_path / "backups").write_text("in the way")
    with closing(first_database(f"sqlite:///{tmp_path / 'assay.sqlite3'}", tmp_path)) as database:
        with pytest.raises(Busy, match="could not be written"):
            make_ready(database, tmp_path / "backups", lambda: NOW)
        assert current_revision(database) == "0001"


Db = Callable[..., tuple[int, str]]


@pytest.fixture
def db(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Db:
    """(exit code, all that was said) of the program behind `assay db`."""

    def run(home: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("ASSAY_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["assay db", *arguments])
        caplog.clear()
        code = upkeep.main()
        return code, capsys.readouterr().out + caplog.text

    return run


def test_the_commands_upgrade_back_up_and_check(tmp_path: Path, db: Db) -> None:
    first_database(f"sqlite:///{tmp_path / 'assay.sqlite3'}", tmp_path).close()
    code, said = db(tmp_path, "check")
    assert (code, "run `assay db upgrade`" in said) == (1, True), said
    code, said = db(tmp_path, "upgrade")
    assert (code, f"upgraded from 0001 to {newest_revision()}" in said) == (0, True), said
    assert db(tmp_path, "check") == (0, f"sound, at revision {newest_revision()}\n")
    out = tmp_path / "mine.sqlite3"
    assert db(tmp_path, "backup", "--out", str(out))[0] == 0
    assert damage_of(out) is None
    code, said = db(tmp_path, "backup", "--out", str(out))
    assert (code, "is there already" in said) == (1, True), said


def test_the_command_line_hands_over(tmp_path: Path) -> None:
    """As a real process: `assay` becomes the program that may touch a database."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "db", "backup", "--home", str(tmp_path / "none")],
        env={name: value for name, value in os.environ.items() if not name.startswith("ASSAY_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert f"there is no database at {tmp_path / 'none' / 'assay.sqlite3'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


def test_an_upgrade_is_refused_while_a_service_works_on_the_home(tmp_path: Path, db: Db) -> None:
    with locked_file(tmp_path / "service.lock", ""):
        code, said = db(tmp_path, "upgrade")
    assert (code, "stop it first" in said) == (1, True), said


def test_postgresql_is_not_ours_to_copy(tmp_path: Path, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_DATABASE_URL", "postgresql://u:p@127.0.0.1:1/none")
    code, said = db(tmp_path, "backup")
    assert (code, "pg_dump" in said) == (1, True), said


def test_postgresql_is_upgraded_and_checked(
    tmp_path: Path, db: Db, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setenv("ASSAY_DATABASE_URL", postgres_url)
    assert db(tmp_path, "upgrade") == (0, f"upgraded from none to {newest_revision()}\n")
    assert db(tmp_path, "check") == (0, f"sound, at revision {newest_revision()}\n")


def test_a_check_of_damage_names_the_file(tmp_path: Path, db: Db) -> None:
    file = tmp_path / "assay.sqlite3"
    with closing(Database(f"sqlite:///{file}")) as database:
        upgrade(database)
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("INSERT INTO idempotency VALUES ('key', 'hash', 99, '2026-01-01')")
        raw.commit()
    code, said = db(tmp_path, "check")
    assert (code, f"{file} is damaged" in said, "names no row of experiments" in said) == (1, True, True), (
        said
    )
