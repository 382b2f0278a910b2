"""Policy documents by name and version. A row is never changed: another document is another version."""

from datetime import datetime

from sqlalchemy import Connection, insert, select

from orchestrator.protocol.wire import JsonObject
from orchestrator.store.records import PolicyRow, fetch, fetch_one
from orchestrator.store.tables import policies
from orchestrator.store.types import new_id


def add_policy(
    connection: Connection, *, name: str, version: int, hash_: str, document: JsonObject, now: datetime
) -> int:
    """The id of the new row. The database refuses a second document under one name and version."""
    values = {"name": name, "version": version, "hash": hash_, "document": document, "created_at": now}
    return new_id(connection.execute(insert(policies).values(**values)))


def get_policy(connection: Connection, name: str, version: int) -> PolicyRow | None:
    """The document under that name and version."""
    found = select(policies).where(policies.c.name == name, policies.c.version == version)
    return fetch_one(connection, found, PolicyRow)


def list_policies(connection: Connection) -> list[PolicyRow]:
    """Every version of every policy, by name and then by version."""
    return fetch(connection, select(policies).order_by(policies.c.name, policies.c.version), PolicyRow)
