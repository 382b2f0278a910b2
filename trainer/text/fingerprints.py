"""Hashes of files and folders by content; those of large files are remembered, not computed at each start."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path

LARGE = 16_000_000  # bytes; hashing less takes milliseconds
SETTLED = 2 * 10**9  # nanoseconds; a file may change twice within one tick of its file system's clock


def file_hash(path: Path, cache: Path, large: int = LARGE) -> str:
    """SHA-256 of the content. From `large` bytes on it is remembered until size, times or inode change."""
    now = path.stat()
    if now.st_size < large:
        return _hash(path)
    seen = {
        "size": now.st_size,
        "modified": now.st_mtime_ns,
        "changed": now.st_ctime_ns,
        "inode": now.st_ino,
    }
    note = cache / "fingerprints" / f"{sha256(str(path.absolute()).encode()).hexdigest()[:32]}.json"
    remembered = _remembered(note, seen)
    if remembered is None:
        remembered = _hash(path)
        _remember(note, {**seen, "sha256": remembered})
    return remembered


def folder_hash(folder: Path, cache: Path) -> str:
    """SHA-256 over the relative paths and contents of all files, hidden ones left out."""
    parts = [f"{path.relative_to(folder).as_posix()}\n{file_hash(path, cache)}" for path in _files(folder)]
    return sha256("\n".join(parts).encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _remembered(note: Path, seen: dict[str, int]) -> str | None:
    try:
        known = json.loads(note.read_text())
        settled = note.stat().st_mtime_ns - seen["modified"] > SETTLED
        same = {name: known[name] for name in seen} == seen
        return str(known["sha256"]) if settled and same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(note: Path, known: dict[str, object]) -> None:
    building = note.with_name(f".{note.name}.{os.getpid()}.tmp")
    with suppress(OSError):  # what is not remembered is computed again
        note.parent.mkdir(parents=True, exist_ok=True)
        building.write_text(json.dumps(known))
        building.replace(note)
