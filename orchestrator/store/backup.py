"""Copies of a SQLite database, made while it is used: consistent, checked, and whole or not there at all."""

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from orchestrator.domain.errors import Busy, Conflict
from orchestrator.store.integrity import damage_of

FOLDER = "backups"
KEPT = 5
"""Backups made before upgrades; those that a person asked for are never removed."""
SPARE_BYTES = 16 * 2**20
"""Room that must be left beside a backup: the database itself goes on growing meanwhile."""

FreeBytes = Callable[[Path], int]

log = logging.getLogger(__name__)


def free_bytes(folder: Path) -> int:
    """The room on the disk of a folder."""
    return shutil.disk_usage(folder).free


def default_name(now: datetime, revision: str | None, upgraded_to: str | None = None) -> str:
    """`assay-20260329T013000Z-0002.sqlite3`; one made before an upgrade says to which revision."""
    before = f"-before-{upgraded_to}" if upgraded_to else ""
    return f"assay-{now:%Y%m%dT%H%M%SZ}-{revision or 'empty'}{before}.sqlite3"


def back_up(source: Path, target: Path, free: FreeBytes = free_bytes) -> int:
    """Copies the database as it is at this moment; the size in bytes. No writer is kept waiting.

    The copy is one file, read back and checked before it gets its name. Raises `Conflict` when the target is
    there already, `Busy` when it cannot be written or the copy is damaged; neither leaves a file behind.
    """
    if target.exists():
        raise _taken(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _need_room(source, target.parent, free)
        _copy(source, temporary)
        _publish(temporary, target)
        return target.stat().st_size
    except (OSError, sqlite3.Error) as error:
        raise Busy(
            f"the backup {target} could not be written ({error}): make room, or name another"
        ) from error
    finally:
        for left in (temporary, *_beside(temporary)):
            with suppress(OSError):
                left.unlink()


def back_up_before_upgrade(
    source: Path, folder: Path, now: datetime, revision: str, newest: str, free: FreeBytes = free_bytes
) -> Path:
    """A backup under a name of its own; of those that upgrades made, the newest five stay.

    Raises `Busy` when it cannot be written: without it there is no way back from an upgrade.
    """
    target = folder / default_name(now, revision, newest)
    size = back_up(source, target, free)
    log.info("backed up the database at revision %s to %s (%d bytes)", revision, target, size)
    for old in backups_in(folder, made_before_upgrades=True)[KEPT:]:
        old.unlink(missing_ok=True)
    return target


def backups_in(folder: Path, *, made_before_upgrades: bool = False) -> list[Path]:
    """The backups of a folder, newest first."""
    pattern = "assay-*-before-*.sqlite3" if made_before_upgrades else "assay-*.sqlite3"
    return sorted(folder.glob(pattern), key=lambda file: (file.stat().st_mtime, file.name), reverse=True)


def how_to_restore(database: Path, folder: Path) -> str:
    """What a person does about a damaged database: the newest backup by name, and where it goes."""
    newest = next(iter(backups_in(folder)), None)
    aside = f"move {database}, {database.name}-wal and {database.name}-shm aside"
    if newest is None:
        return f"{aside} and restore a backup of yours: there is none in {folder}"
    return f"{aside}, copy the newest backup {newest} to {database}, and start again"


def _taken(target: Path) -> Conflict:
    return Conflict(f"{target} is there already: name another file, nothing was overwritten")


def _need_room(source: Path, folder: Path, free: FreeBytes) -> None:
    needed = SPARE_BYTES + sum(file.stat().st_size for file in (source, *_beside(source)) if file.exists())
    if (there := free(folder)) < needed:
        raise Busy(f"a backup in {folder} needs {needed} bytes of room and there are {there}: make room")


def _copy(source: Path, temporary: Path) -> None:
    """In one step: it reads one snapshot, where step by step every write would have it begin anew."""
    uri = f"{source.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True)) as reader, closing(sqlite3.connect(temporary)) as writer:
        reader.backup(writer, pages=-1)
        writer.execute("PRAGMA journal_mode=DELETE")  # else the copy's first reader makes files beside it
    if damage := damage_of(temporary):
        raise Busy(f"the copy of {source} is damaged ({damage}): run `assay db check`")


def _publish(temporary: Path, target: Path) -> None:
    """Durable first, then under its name, which no other can have got meanwhile."""
    _sync(temporary)
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a file system without hard links
        temporary.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(file: Path) -> tuple[Path, Path]:
    return file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")
