"""Brings a database to the schema of this code, by Alembic, under the writers' lock."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.domain.errors import Busy
from orchestrator.store.database import Database
from orchestrator.store.tables import metadata


def migrations_folder() -> Path:
    """Where the migrations lie: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    return config


def upgrade(database: Database) -> None:
    """Applies every migration that is missing; nothing happens when none is."""
    revision = current_revision(database)
    if revision == newest_revision():
        return
    known = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]
    if revision is not None and revision not in known:
        text = f"the database is at revision {revision}, which this version of Assay does not know"
        raise Busy(f"{text}: install the version that made it, or a newer one")
    config = _config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current_revision(database: Database) -> str | None:
    """The revision of the database, or None if it is empty."""
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def differences(database: Database) -> list[object]:
    """What the tables in the code and the tables in the database do not agree on."""
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))
