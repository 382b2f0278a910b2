"""One migrated database of each kind for all tests of the store, emptied after each."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import delete, make_url, text

from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from orchestrator.store.tables import metadata


def new_database(server: str) -> str:
    """The URL of a database that is made now."""
    name = f"store_{uuid4().hex[:12]}"
    admin = Database(server)
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.close()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'assay.sqlite3'}"
    else:
        url = new_database(request.getfixturevalue("postgres_url"))
    made = Database(url)
    upgrade(made)
    yield made
    made.close()


@pytest.fixture
def database(migrated: Database) -> Iterator[Database]:
    yield migrated
    with migrated.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
