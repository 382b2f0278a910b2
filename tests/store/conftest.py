"""One migrated database of each kind for all tests of the store, emptied after each."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from orchestrator.store.tables import metadata


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'assay.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres_server").empty_database()
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
