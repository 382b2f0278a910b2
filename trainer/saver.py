"""Checkpoints written beside the training: from a copy, by a thread, one at a time."""

import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from orchestrator.protocol.report import CheckpointRecord
from trainer import checkpoint
from trainer.contract import folders
from trainer.contract.room import room

Tensors = dict[str, Tensor]
SWITCH_SECONDS = 0.0001


class Saver:
    """Writes and prunes an attempt's checkpoints. What goes wrong is raised where the result is asked for."""

    def __init__(self, directory: Path, keep_steps: Iterable[int]) -> None:
        self._directory, self._keep = directory, set(keep_steps)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        # Else a training that comes back from a kernel waits 5 ms for a thread that is in Python.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._pending: Future[CheckpointRecord] | None = None
        folders.remove_unfinished(directory)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)

    def start(self, step: int, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> None:
        """Begins to write `step` from a copy of the tensors; the one before must have been taken."""
        copies = _copy(model), _copy(optimizer)
        self._pending = self._thread.submit(self._write, step, *copies, state)

    def take(self, *, wait: bool) -> CheckpointRecord | None:
        """The record of the checkpoint that was begun, once; None when it is not on disk yet, or none was.

        Raises what stopped its writing: `DiskFull` when there was no room for it.
        """
        pending = self._pending
        if pending is None or not (wait or pending.done()):
            return None
        self._pending = None
        return pending.result()

    def _write(
        self, step: int, model: Tensors, optimizer: Tensors, state: dict[str, Any]
    ) -> CheckpointRecord:
        size = sum(tensor.nbytes for tensor in (*model.values(), *optimizer.values()))
        with room(self._directory, step, size, self._keep):
            record = checkpoint.write(self._directory, step, model, optimizer, state)
        folders.prune(self._directory, self._keep)
        return record


def _copy(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
