"""Brings a database to the schema of this code, by Alembic, under a lock."""

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, ForeignKeyConstraint, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import SchemaItem

from orchestrator.domain.errors import Busy
from orchestrator.store.database import Database
from orchestrator.store.tables import metadata, points

_UPGRADE = 0x617375  # the advisory lock of the process that upgrades a PostgreSQL database

BeforeUpgrade = Callable[[str, str], object]
"""Told the old and the new revision."""

log = logging.getLogger(__name__)


def migrations_folder() -> Path:
    """Where the migrations lie: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    return config


def upgrade(database: Database, before: BeforeUpgrade | None = None) -> None:
    """Applies every migration that is missing, all or none; nothing happens when none is.

    Of two processes that upgrade at once one does it, and the other waits and finds it done. `before` is
    called with the old and the new revision while no other can write; what it raises ends the upgrade.
    Raises `Busy` for a database of a newer version, and when a migration fails.
    """
    newest = newest_revision()
    if current_revision(database) == newest:
        return
    with _alone(database), database.write() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision == newest or newest is None:
            return
        _refuse_unknown(revision)
        if before is not None and revision is not None:
            before(revision, newest)
        _apply(connection, revision, newest)


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Holds a lock that is waited for: an upgrade may take longer than writers wait for each other."""
    file = database.engine.url.database
    if not database.is_sqlite:
        with database.engine.connect() as holder:
            holder.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _UPGRADE})
            holder.commit()  # the lock is the session's: a transaction that idles would be ended
            try:
                yield
            finally:
                holder.invalidate()  # the session ends, and the lock with it
    elif not file or file == ":memory:":
        yield
    else:
        with Path(f"{file}.upgrade.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _apply(connection: Connection, revision: str | None, newest: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        text_ = (
            f"the database could not be upgraded from revision {revision or 'none'} to {newest} ({reason})"
        )
        raise Busy(f"{text_}: nothing was changed") from error
    if revision is not None:
        log.info("upgraded the database from revision %s to %s", revision, newest)


def _refuse_unknown(revision: str | None) -> None:
    known = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]
    if revision is not None and revision not in known:
        text_ = f"the database is at revision {revision}, which this version of Assay does not know"
        raise Busy(f"{text_}: install the version that made it, or a newer one")


def current_revision(database: Database) -> str | None:
    """The revision of the database, or None if it is empty."""
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def differences(database: Database) -> list[object]:
    """What the tables in the code and the tables in the database do not agree on."""

    def is_compared(item: SchemaItem, *_: object) -> bool:
        of_points = isinstance(item, ForeignKeyConstraint) and item.table.name == points.name
        return database.is_sqlite or not of_points

    with database.read() as connection:
        opts = {"compare_type": True, "include_object": is_compared}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, metadata))
