"""The built-in trainer's checkpoints: tensors as safetensors, the rest as JSON; nothing that can run code.

    <attempt>/checkpoints/step-00001000/{manifest.json, model.safetensors, optimizer.safetensors, state.json}

`contract/folders.py` says how a folder becomes complete and how damage to it is found.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from orchestrator.protocol.report import CheckpointRecord, PassedOver
from trainer.contract import folders
from trainer.contract.folders import Damaged


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
    folder = folders.building(directory, step)
    try:
        _save(model, folder / "model.safetensors")
        _save(optimizer, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps(state))
        return folders.seal(folder, directory, step)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def newest(directories: Iterable[Path], at_most: int | None = None) -> tuple[Saved | None, list[PassedOver]]:
    """The newest checkpoint that is whole, and each that was passed over for it.

    Raises `CheckpointProblem` when there are some and none can be read.
    """
    return folders.newest(directories, at_most, load)


def load(path: Path) -> Saved:
    """The checkpoint at `path`, verified. Raises `Damaged`."""
    folders.verify(path)
    try:
        state = json.loads((path / "state.json").read_text())
        model = load_file(path / "model.safetensors")
        optimizer = load_file(path / "optimizer.safetensors")
        return Saved(int(state["step"]), path, model, optimizer, state)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Damaged(f"it cannot be read ({type(error).__name__}: {error})") from error


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
