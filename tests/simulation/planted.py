"""Bugs that are put into the service on purpose: the simulation must find each."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, update

from orchestrator.services import ingest
from orchestrator.store import journal
from orchestrator.store.reports import Standing
from orchestrator.store.tables import decisions

Bug = Callable[[Path], AbstractContextManager[None]]


@contextmanager
def without_fence(_template: Path) -> Iterator[None]:
    """The epoch check removed: whoever writes is believed."""
    kept = ingest._fence

    ingest._fence = lambda *_: None
    try:
        yield
    finally:
        ingest._fence = kept


@contextmanager
def without_key(template: Path) -> Iterator[None]:
    """The unique key of decisions removed, and the look before the insert with it."""
    before = template.read_bytes()
    _drop_unique(template, "decisions", "key")
    kept, numbers = journal.add_decision, count()

    def add_again(connection: Connection, *, key: str, **values: Any) -> bool:
        unseen = f"{key}#{next(numbers)}"
        kept(connection, key=unseen, **values)
        connection.execute(update(decisions).where(decisions.c.key == unseen).values(key=key))
        return True

    journal.add_decision = add_again  # type: ignore[assignment]
    try:
        yield
    finally:
        journal.add_decision = kept
        template.write_bytes(before)


@contextmanager
def with_duplicates(_template: Path) -> Iterator[None]:
    """A report that is known is taken in like a new one."""
    kept = ingest.need_standing

    def forgetful(connection: Connection, attempt_id: int, sequence: int = 0) -> Standing:
        return replace(kept(connection, attempt_id, sequence), body_sha256=None)

    ingest.need_standing = forgetful  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ingest.need_standing = kept  # type: ignore[attr-defined]


BUGS: dict[str, Bug] = {"fence": without_fence, "key": without_key, "duplicates": with_duplicates}


def plant(name: str | None, template: Path) -> AbstractContextManager[None]:
    """The bug of this name, for as long as the context lasts; nothing for None."""
    return nullcontext() if name is None else BUGS[name](template)


def _drop_unique(file: Path, table: str, column: str) -> None:
    """Rebuilds a table of a database without the unique constraint on a column."""
    connection = sqlite3.connect(file)
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
    [(made,)] = connection.execute(query, (table,))
    clause = f'CONSTRAINT uq_{table}_{column} UNIQUE ("{column}")'
    if clause not in made:
        raise ValueError(f"{table} has no such constraint: {clause}")
    others = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table,)
    ).fetchall()
    head, _, tail = made.rpartition(clause)
    connection.execute(f"DROP TABLE {table}")
    connection.execute(head.rstrip().rstrip(",") + tail)
    for (index,) in others:
        connection.execute(index)
    connection.commit()
    connection.close()
