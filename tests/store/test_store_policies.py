"""Policies by name and version, on both databases."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import IntegrityError

from orchestrator.store.database import Database
from orchestrator.store.policies import add_policy, get_policy, list_policies

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def add(database: Database, name: str, version: int) -> int:
    with database.write() as connection:
        document = {"name": name, "version": version, "noise": [{"sigma": 0.001}]}
        return add_policy(
            connection, name=name, version=version, hash_=f"{version:064d}", document=document, now=NOW
        )


def test_a_policy_is_found_by_name_and_version(database: Database) -> None:
    ids = [add(database, "race", version) for version in (1, 2)]
    with database.read() as connection:
        found = get_policy(connection, "race", 2)
        assert found is not None
        assert (found.id, found.hash, found.created_at) == (ids[1], f"{2:064d}", NOW)
        assert found.document == {"name": "race", "version": 2, "noise": [{"sigma": 0.001}]}
        assert get_policy(connection, "race", 3) is None


def test_they_are_listed_by_name_and_then_by_number(database: Database) -> None:
    for name, version in (("b", 10), ("b", 9), ("a", 1)):
        add(database, name, version)
    with database.read() as connection:
        assert [(row.name, row.version) for row in list_policies(connection)] == [
            ("a", 1),
            ("b", 9),
            ("b", 10),
        ]


def test_a_name_and_version_is_taken_once(database: Database) -> None:
    add(database, "race", 1)
    with pytest.raises(IntegrityError):
        add(database, "race", 1)
