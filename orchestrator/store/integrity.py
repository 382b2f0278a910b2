"""Whether a SQLite file is what was written to it."""

import sqlite3
from contextlib import closing
from pathlib import Path

LARGEST_AT_START = 128 * 2**20
"""Bytes. Up to here each start reads it through, in less than a second; `assay db check` has no limit."""


def damage_of(file: Path, *, thorough: bool = False) -> str | None:
    """What is wrong with a database file, in SQLite's words; None if nothing is.

    Pages and rows alone; `thorough` compares every index with its table and every key with its row, too.
    Raises `sqlite3.OperationalError` when the file cannot be opened or is locked.
    """
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            check = "integrity_check(5)" if thorough else "quick_check(1)"
            said = [" ".join(str(row[0]).split()) for row in connection.execute(f"PRAGMA {check}")]
            orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(5) if thorough else []
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    wrong = [] if said == ["ok"] else said
    wrong += [f"row {row} of {table} names no row of {parent}" for table, row, parent, _ in orphans]
    return "; ".join(wrong) or None
