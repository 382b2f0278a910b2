"""From a URL to a database that can be worked with: on a proper disk, undamaged, of this code's schema."""

import logging
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, SQLAlchemyError

from orchestrator.domain.errors import Busy
from orchestrator.store.backup import back_up_before_upgrade, how_to_restore
from orchestrator.store.database import Database
from orchestrator.store.filesystems import read_mounts, refusal
from orchestrator.store.integrity import LARGEST_AT_START, damage_of
from orchestrator.store.migrate import upgrade

log = logging.getLogger(__name__)


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL, None for another database. Raises `ValueError` for no URL and for no file."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(_unusable(error)) from error
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise ValueError("database_url: a database in memory is lost at the end: name a file")
    return Path(parsed.database)


def open_database(url: str, backups: Path, mounts: Callable[[], str] = read_mounts) -> Database:
    """The database of a URL, which has answered.

    Raises `ValueError` when the URL or its server cannot be used, `Busy` when a SQLite file lies where it
    would be damaged or is no database any more; the newest of `backups` is named then.
    """
    file = sqlite_file(url)
    if file is not None and (reason := refusal(file, mounts())):
        raise Busy(reason)
    try:
        database = Database(url)
        with database.read() as connection:
            connection.execute(text("SELECT 1"))
    except (ArgumentError, ImportError, SQLAlchemyError, OSError) as error:
        if file is not None and _is_damage(error):
            raise Busy(damaged(file, _first_line(error), backups)) from error
        raise ValueError(_unusable(error)) from error
    return database


def make_ready(database: Database, backups: Path, clock: Callable[[], datetime]) -> None:
    """Looks for damage, and upgrades; a SQLite database that is upgraded is backed up first.

    Raises `Busy` when it is damaged, when it cannot be backed up, and when a migration fails. Nothing is
    changed then.
    """
    file = sqlite_file(database.url)
    if file is None:
        upgrade(database)
        return
    refuse_damage(file, backups)
    upgrade(database, lambda old, new: back_up_before_upgrade(file, backups, clock(), old, new))


def refuse_damage(file: Path, backups: Path) -> None:
    """Raises `Busy` when the file is damaged. One that is too large to be read at every start is not."""
    size = file.stat().st_size
    if size > LARGEST_AT_START:
        log.info("%s has %d bytes: not checked for damage at the start; `assay db check` does", file, size)
        return
    try:
        damage = damage_of(file)
    except sqlite3.OperationalError as error:
        raise Busy(f"the database {file} cannot be read: {error}") from error
    if damage:
        raise Busy(damaged(file, damage, backups))


def damaged(file: Path, damage: str, backups: Path) -> str:
    """What is said of a damaged database, and what to do about it."""
    return f"the database {file} is damaged ({damage}): {how_to_restore(file, backups)}"


def _is_damage(error: Exception) -> bool:
    """SQLite's own words for a file that is no database; what may pass is an OperationalError."""
    return isinstance(error, DatabaseError) and not isinstance(error, OperationalError)


def _unusable(error: Exception) -> str:
    return f"database_url: the database cannot be opened ({_first_line(error)}): check the URL"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
