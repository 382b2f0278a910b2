"""Checkpoint folders, whatever a trainer writes into them: complete or absent, verified before use.

    <attempt>/checkpoints/step-00001000/{manifest.json, whatever the trainer wrote}

Written to a temporary folder, synced, described by the manifest, renamed. A folder under its final name is
complete unless the disk has damaged it since; the manifest's hashes tell. Needs no tensor library.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import TypeVar

from orchestrator.protocol.report import CheckpointRecord, PassedOver
from trainer.problems import CheckpointProblem

Read = TypeVar("Read")
log = logging.getLogger(__name__)

FOLDER = "checkpoints"
PREFIX = "step-"
MANIFEST = "manifest.json"
KEPT = 3
"""The newest so many are kept, besides those at gates."""


class Damaged(Exception):
    """The checkpoint's files are not what its manifest says."""


def building(directory: Path, step: int) -> Path:
    """An empty folder to write the files of a checkpoint into; what a crash left there is gone."""
    folder = directory / FOLDER / f".{PREFIX}{step:08d}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def seal(folder: Path, directory: Path, step: int) -> CheckpointRecord:
    """Makes `folder` the checkpoint of `step`: synced, described by a manifest, then renamed into place."""
    final = directory / FOLDER / f"{PREFIX}{step:08d}"
    final.parent.mkdir(parents=True, exist_ok=True)
    _write_manifest(folder, step)
    if final.exists():  # of an attempt that was started twice in one directory
        remove(final)
    folder.rename(final)
    _sync(final.parent)
    return record(final)


def newest(
    directories: Iterable[Path], at_most: int | None, read: Callable[[Path], Read]
) -> tuple[Read | None, list[PassedOver]]:
    """What `read` makes of the newest checkpoint that is whole, and each that was passed over for it.

    `read` raises `Damaged` for one that is not. Raises `CheckpointProblem` when there are some and none is.
    """
    passed: list[PassedOver] = []
    found = candidates(directories, at_most)
    for path in found:
        try:
            return read(path), passed
        except Damaged as error:
            log.warning("%s was passed over: %s", _named(path), error)
            passed.append(PassedOver(step=step_of(path), path=str(path), problem=str(error)))
    if found:
        each = "; ".join(f"{_named(Path(one.path))}: {one.problem}" for one in passed)
        raise CheckpointProblem(f"none of the run's checkpoints can be read: {each}")
    return None, passed


def _named(path: Path) -> str:
    return f"checkpoint {path.name} of {path.parent.parent.name}"


def candidates(directories: Iterable[Path], at_most: int | None = None) -> list[Path]:
    """Checkpoint folders, newest step first; at the same step the earlier directory wins."""
    found = []
    for order, directory in enumerate(directories):
        for path in (directory / FOLDER).glob(f"{PREFIX}*"):
            number = path.name.removeprefix(PREFIX)
            if number.isdigit() and (at_most is None or int(number) <= at_most):
                found.append((-int(number), order, path))
    return [path for _, _, path in sorted(found)]


def verified(path: Path) -> Path:
    """`path` itself, once it is verified. Raises `Damaged`."""
    verify(path)
    return path


def verify(path: Path) -> None:
    """Compares every file with the manifest's sizes and hashes. Raises `Damaged` with what differs."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, expected in files.items():
            size = (path / name).stat().st_size
            if size != expected["size"]:
                raise Damaged(f"{name} has {size} bytes, not {expected['size']}")
            if _hash(path / name) != expected["sha256"]:
                raise Damaged(f"{name} does not have the manifest's SHA-256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"its manifest or a file is missing or damaged ({type(error).__name__})") from error


def record(path: Path) -> CheckpointRecord:
    """What the service is told of the checkpoint at `path`."""
    return CheckpointRecord(
        step=step_of(path),
        path=str(path),
        manifest_sha256=_hash(path / MANIFEST),
        size_bytes=size_of(path),
    )


def size_of(path: Path) -> int:
    """Of all files of a checkpoint, in bytes."""
    return sum(file.stat().st_size for file in _files(path))


def records(directories: Iterable[Path], step: int) -> tuple[CheckpointRecord, ...]:
    """The record of the checkpoint at `step`, if one of `directories` has it."""
    found = [path for path in candidates(directories, step) if step_of(path) == step]
    return tuple(record(path) for path in found[:1])


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def remove_unfinished(directory: Path) -> None:
    """Removes what a writer that was killed left; the directory has one writer at a time."""
    for path in (directory / FOLDER).glob(f".{PREFIX}*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def remove(path: Path) -> None:
    """Removes a checkpoint: first its name, so that what a crash leaves of it is taken for none."""
    doomed = path.with_name(f".{path.name}.old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(OSError):
        path.rename(doomed)
    for left in (doomed, path):
        shutil.rmtree(left, ignore_errors=True)


def prune(directory: Path, keep_steps: Iterable[int]) -> None:
    """Removes all but the newest `KEPT` and those at `keep_steps` from the attempt's own directory."""
    kept = set(keep_steps)
    for path in candidates([directory])[KEPT:]:
        if step_of(path) not in kept:
            remove(path)


def _write_manifest(folder: Path, step: int) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    files = {}
    for file in _files(folder):
        _sync(file)
        name = file.relative_to(folder).as_posix()
        files[name] = {"size": file.stat().st_size, "sha256": _hash(file)}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "step": step, "files": files}, indent=2))
    _sync(folder / MANIFEST)
    for inner in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _sync(inner)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
