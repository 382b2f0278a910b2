"""What every test may use: a database of each kind, made fresh; PostgreSQL is a real server on a socket."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import Phase, settings
from postgres_rig import PostgresServer
from sqlalchemy import event

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
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test process's own."""
    server = PostgresServer()
    yield server
    server.end()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database without any table."""
    url = postgres_server.empty_database()
    yield url
    postgres_server.drop(url)


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[Database]:
    """An empty, migrated database on PostgreSQL."""
    url = postgres_server.new_database()
    database = Database(url)
    yield database
    database.close()
    postgres_server.drop(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied: a migration takes longer than most tests."""
    file = tmp_path_factory.mktemp("template") / "assay.sqlite3"
    database = relaxed(Database(f"sqlite:///{file}"))
    upgrade(database)
    database.close()  # the last connection that closes leaves nothing in the WAL
    return file


def relaxed(database: Database) -> Database:
    """Without the wait for the disk; that the service itself asks for FULL is tested in tests/store."""
    event.listen(database.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    return database


@pytest.fixture
def sqlite(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """An empty, migrated database on SQLite."""
    file = shutil.copy(sqlite_template, tmp_path / "assay.sqlite3")
    database = relaxed(Database(f"sqlite:///{file}"))
    yield database
    database.close()


FIXTURES = {"sqlite": "sqlite", "postgresql": "postgres"}


def pytest_addoption(parser: pytest.Parser) -> None:
    kinds = ["spread", *FIXTURES]
    parser.addoption("--either", choices=kinds, default="spread", help="the kind of database of `either`")


@pytest.fixture
def either(request: pytest.FixtureRequest) -> Database:
    """An empty, migrated database, for what does not depend on its kind.

    By its name a test has one of the two, always the same; the option gives all of them one kind.
    """
    kind = request.config.getoption("--either")
    if kind == "spread":
        kind = list(FIXTURES)[crc32(request.node.nodeid.encode()) % 2]
    database: Database = request.getfixturevalue(FIXTURES[kind])
    return database


@pytest.fixture(params=list(FIXTURES))
def database(request: pytest.FixtureRequest) -> Database:
    """An empty, migrated database: every test that asks runs on both kinds."""
    found: Database = request.getfixturevalue(FIXTURES[request.param])
    return found
