"""SQLite where it holds: a disk of this machine, a file that is whole, room to write."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert, select, text
from store_rows import add_experiment

from orchestrator.api import problems
from orchestrator.domain.errors import Busy
from orchestrator.store.backup import back_up
from orchestrator.store.database import Database
from orchestrator.store.filesystems import file_system_of, read_mounts, refusal
from orchestrator.store.integrity import LARGEST_AT_START, damage_of
from orchestrator.store.opening import make_ready, open_database, refuse_damage
from orchestrator.store.tables import metrics

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 0:40 / /home rw,relatime shared:2 master:1 - nfs4 server:/home rw,vers=4.2
29 28 8:1 / /home/ada/local rw - xfs /dev/sdb1 rw
30 27 0:41 / /mnt/my\040share rw - cifs //server/share rw
31 27 0:42 / /scratch rw - ext4 /dev/sdc rw
32 31 0:43 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
33 27 0:44 / /mnt/dev rw - fuse.sshfs dev: rw
a line of another shape
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/assay/assay.sqlite3", "ext4"),
        ("/home/ada/assay.sqlite3", "nfs4"),
        ("/home/ada/local/assay.sqlite3", "xfs"),
        ("/home/ada/locality/assay.sqlite3", "nfs4"),
        ("/homely/assay.sqlite3", "ext4"),
        ("/mnt/my share/assay.sqlite3", "cifs"),
        ("/scratch/assay.sqlite3", "lustre"),
        ("/mnt/dev/assay.sqlite3", "fuse.sshfs"),
    ],
)
def test_the_deepest_and_latest_mount_holds_a_path(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_a_table_that_is_not_there_says_nothing() -> None:
    assert file_system_of(Path("/x"), "") is None
    assert refusal(Path("/x"), "") is None


def test_the_table_of_this_machine_is_read() -> None:
    assert file_system_of(Path("/proc/self"), read_mounts()) == "proc"


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "9p"]
)
def test_a_network_file_system_is_refused_with_the_ways_out(tmp_path: Path, kind: str) -> None:
    mounts = f"27 1 254:0 / / rw - {kind} server:/export rw"
    file = tmp_path / "home" / "assay.sqlite3"
    with pytest.raises(Busy) as refused:
        open_database(f"sqlite:///{file}", tmp_path / "backups", lambda: mounts)
    for word in (kind, str(file), "ASSAY_HOME", "ASSAY_DATABASE_URL", "postgresql://"):
        assert word in refused.value.detail
    assert not file.parent.exists()


def test_a_link_to_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mounts = f"1 1 0:1 / / rw - ext4 x rw\n2 1 0:2 / {tmp_path}/far rw - nfs x rw"
    assert "(nfs)" in str(refusal(tmp_path / "near" / "assay.sqlite3", mounts))


@contextmanager
def opened(home: Path) -> Iterator[Database]:
    with closing(open_database(f"sqlite:///{home / 'assay.sqlite3'}", home / "backups")) as database:
        make_ready(database, home / "backups", lambda: NOW)
        yield database


def made(home: Path) -> Path:
    """A database with rows on a good many pages."""
    with opened(home) as database, database.write() as connection:
        connection.execute(insert(metrics), [{"name": f"metric {i} {'x' * 80}"} for i in range(2000)])
    return home / "assay.sqlite3"


def test_damage_within_is_found_at_the_start_and_the_newest_backup_is_named(tmp_path: Path) -> None:
    file = made(tmp_path)
    backup = tmp_path / "backups" / "assay-20260101T000000Z-0003.sqlite3"
    back_up(file, backup)
    spoil(file, page=file.stat().st_size // 4096 // 2)
    with pytest.raises(Busy) as refused, opened(tmp_path):
        pass
    for word in (f"the database {file} is damaged", str(backup), "-wal"):
        assert word in refused.value.detail


@pytest.mark.parametrize("page", [0, 1])
def test_a_spoilt_head_is_damage_and_no_wrong_url(tmp_path: Path, page: int) -> None:
    file = made(tmp_path)
    spoil(file, page)
    with pytest.raises(Busy, match=r"is damaged .* there is none in"), opened(tmp_path):
        pass


def test_what_is_said_to_do_about_damage_mends_it(tmp_path: Path) -> None:
    file = made(tmp_path)
    back_up(file, tmp_path / "backups" / "assay-1.sqlite3")
    spoil(file, 0)
    for beside in (file, *tmp_path.glob("assay.sqlite3-*")):
        beside.unlink()
    (tmp_path / "backups" / "assay-1.sqlite3").rename(file)
    with opened(tmp_path) as database, database.read() as connection:
        assert len(connection.execute(select(metrics.c.id)).all()) == 2000


def test_a_thorough_check_sees_a_row_of_nobody(tmp_path: Path) -> None:
    file = made(tmp_path)
    assert damage_of(file, thorough=True) is None
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("INSERT INTO idempotency VALUES ('key', 'hash', 99, '2026-01-01')")
        raw.commit()
    assert damage_of(file) is None
    assert "idempotency names no row of experiments" in str(damage_of(file, thorough=True))


def test_a_large_database_is_not_read_through_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = made(tmp_path)
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(file, page=file.stat().st_size // 4096 // 2)
    with file.open("r+b") as stream:
        stream.truncate(LARGEST_AT_START + 4096)
    caplog.set_level("INFO")
    refuse_damage(file, tmp_path)
    assert "not checked for damage at the start" in caplog.text


def spoil(file: Path, page: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(page * 4096)
        stream.write(b"\xa5" * 4096)


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    """The limit of pages is what a full disk is to SQLite: the same error, at the same places."""
    with opened(tmp_path) as database:
        with database.write() as connection:
            add_experiment(connection, name="before")
        limit(database, 1)
        with pytest.raises(Busy, match="disk of the database is full; nothing was written"):
            fill(database)
        with database.read() as connection:
            assert connection.execute(select(metrics.c.id)).all() == []
        limit(database, 2**30)
        fill(database)
        with database.read() as connection:
            assert len(connection.execute(select(metrics.c.id)).all()) == 3000


def limit(database: Database, pages: int) -> None:
    """Of every connection: the pool has one, which all use in turn."""
    with database.engine.connect() as connection:
        connection.execute(text(f"PRAGMA max_page_count={pages}"))


def fill(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(metrics), [{"name": f"{i} {'x' * 90}"} for i in range(3000)])


def test_a_full_disk_is_a_503_that_says_when_to_come_back(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        app = FastAPI()
        problems.install(app)

        @app.post("/fill")
        def _fill() -> None:
            fill(database)

        limit(database, 1)
        answer = TestClient(app, base_url="http://127.0.0.1").post("/fill")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "disk of the database is full" in answer.json()["detail"]
