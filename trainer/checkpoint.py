"""Checkpoints: complete or absent, verified before use, safetensors and JSON alone.

    <attempt>/checkpoints/step-00001000/{manifest.json, model.safetensors, optimizer.safetensors, state.json}

Written to a temporary folder, synced, described by the manifest, renamed. A folder under its final name is
complete unless the disk has damaged it since; the manifest's hashes tell.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from orchestrator.protocol.report import CheckpointRecord
from trainer.problems import CheckpointProblem

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
PREFIX = "step-"
MANIFEST = "manifest.json"
KEPT = 3
"""The newest so many are kept, besides those at gates."""


class Corrupt(Exception):
    """The checkpoint's files are not what its manifest says."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    step: int
    path: Path
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]


def write(
    directory: Path, step: int, model: dict[str, Tensor], optimizer: dict[str, Tensor], state: dict[str, Any]
) -> CheckpointRecord:
    """Writes `step-<step>` under the attempt's `directory` and returns its record once it is on disk."""
    parent = directory / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"{PREFIX}{step:08d}"
    building = parent / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        _save(model, building / "model.safetensors")
        _save(optimizer, building / "optimizer.safetensors")
        (building / "state.json").write_text(json.dumps(state))
        _write_manifest(building, step)
        if final.exists():  # of an attempt that was started twice in one directory
            shutil.rmtree(final)
        building.rename(final)
        _sync(parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return _record(final, step)


def newest(directories: Iterable[Path], at_most: int | None = None) -> tuple[Saved | None, list[str]]:
    """The newest checkpoint that verifies, and a note for each that was passed over.

    Raises `CheckpointProblem` when there are some and none can be read.
    """
    notes: list[str] = []
    found = candidates(directories, at_most)
    for path in found:
        try:
            return load(path), notes
        except Corrupt as error:
            notes.append(f"checkpoint {path.name} of {path.parent.parent.name} was passed over: {error}")
            log.warning(notes[-1])
    if found:
        raise CheckpointProblem("none of the run's checkpoints can be read: " + "; ".join(notes))
    return None, notes


def candidates(directories: Iterable[Path], at_most: int | None = None) -> list[Path]:
    """Checkpoint folders, newest step first; at the same step the earlier directory wins."""
    found = []
    for order, directory in enumerate(directories):
        for path in (directory / FOLDER).glob(f"{PREFIX}*"):
            step = path.name.removeprefix(PREFIX)
            if step.isdigit() and (at_most is None or int(step) <= at_most):
                found.append((-int(step), order, path))
    return [path for _, _, path in sorted(found)]


def load(path: Path) -> Saved:
    """The checkpoint at `path`, verified. Raises `Corrupt`."""
    verify(path)
    try:
        state = json.loads((path / "state.json").read_text())
        model = load_file(path / "model.safetensors")
        optimizer = load_file(path / "optimizer.safetensors")
        return Saved(int(state["step"]), path, model, optimizer, state)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Corrupt(f"it cannot be read ({type(error).__name__}: {error})") from error


def verify(path: Path) -> None:
    """Compares every file with the manifest's sizes and hashes. Raises `Corrupt` with what differs."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, expected in files.items():
            file = path / name
            if file.stat().st_size != expected["size"]:
                raise Corrupt(f"{name} has {file.stat().st_size} bytes, not {expected['size']}")
            if _hash(file) != expected["sha256"]:
                raise Corrupt(f"{name} does not have the manifest's SHA-256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"its manifest or a file is missing or damaged ({type(error).__name__})") from error


def records(directories: Iterable[Path], step: int) -> tuple[CheckpointRecord, ...]:
    """The record of the checkpoint at `step`, if one of `directories` has it."""
    for path in candidates(directories, step):
        if int(path.name.removeprefix(PREFIX)) == step:
            return (_record(path, step),)
    return ()


def remove_unfinished(directory: Path) -> None:
    """Removes what a writer that was killed left; the directory has one writer at a time."""
    for path in (directory / FOLDER).glob(f".{PREFIX}*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def prune(directory: Path, keep_steps: Iterable[int]) -> None:
    """Removes all but the newest `KEPT` and those at `keep_steps` from the attempt's own directory."""
    kept = set(keep_steps)
    for path in candidates([directory])[KEPT:]:
        if int(path.name.removeprefix(PREFIX)) not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path)
    except SafetensorError as error:
        # A full disk comes as this library's own error, its number in the text alone.
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _record(path: Path, step: int) -> CheckpointRecord:
    return CheckpointRecord(
        step=step,
        path=str(path),
        manifest_sha256=_hash(path / MANIFEST),
        size_bytes=sum(f.stat().st_size for f in path.iterdir()),
    )


def _write_manifest(folder: Path, step: int) -> None:
    files = {}
    for file in sorted(folder.iterdir()):
        _sync(file)
        files[file.name] = {"size": file.stat().st_size, "sha256": _hash(file)}
    manifest = json.dumps({"format": 1, "step": step, "files": files}, indent=2).encode()
    (folder / MANIFEST).write_bytes(manifest)
    _sync(folder / MANIFEST)
    _sync(folder)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
