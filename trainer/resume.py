"""What goes into a checkpoint besides tensors, and how a run goes on from one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.report import PassedOver
from trainer import checkpoint
from trainer.config import Config
from trainer.problems import CheckpointProblem, ConfigMismatch
from trainer.state import Progress
from trainer.training import Training

WATCHED_ONLY = {
    "train": {"log_every", "max_nan_steps", "threads", "gradient_checkpointing", "target_losses"},
    "schedule": {"horizon_steps"},
}
"""Settings that leave the curve as it is: a run may be resumed under other values."""


def config_hash(config: Config) -> str:
    """Of everything that shapes the curve."""
    return sha256(config.model_dump_json(exclude=WATCHED_ONLY).encode()).hexdigest()


def snapshot(
    training: Training, progress: Progress
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Model tensors, optimizer tensors and the JSON state: all that the next step depends on."""
    progress.window.counts = training.counts.tolist() if training.counts is not None else []
    progress.window.dropped = int(training.dropped.item()) if training.dropped is not None else 0
    state = {
        "format": 1,
        "step": progress.step,
        "progress": progress.to_json(),
        **_identity(training),
        "config": training.config.model_dump(mode="json"),
        "threads": torch.get_num_threads(),
        "processes": training.team.size,
        "memory_factor": training.memory_factor,
    }
    return dict(training.model.state_dict()), training.optimizer.state(), state


@dataclass(frozen=True)
class Resumed:
    """Where a training goes on, and what is to be told of it."""

    progress: Progress
    passed_over: Sequence[PassedOver] = ()
    notes: Sequence[str] = ()


def resume(assignment: Assignment, training: Training) -> Resumed:
    """Puts `training` where the newest good checkpoint was.

    Raises `CheckpointProblem` when there are checkpoints and none is good, `ConfigMismatch` when it is of
    another run.
    """
    directories = [Path(assignment.directory), *map(Path, assignment.resume_from)]
    saved, passed_over = checkpoint.newest(directories, assignment.resume_at_most)
    if saved is None:
        return Resumed(Progress())
    _refuse_mismatch(saved, training)
    training.model.load_state_dict(dict(saved.model))
    training.optimizer.load(saved.optimizer)
    try:
        progress = Progress.from_json(saved.state["progress"])
    except (TypeError, KeyError) as error:
        raise CheckpointProblem(
            f"checkpoint {saved.path.name} was written by another version of the trainer ({error}): "
            "resume with that version, or train elsewhere"
        ) from error
    if progress.window.counts:
        training.counts = torch.tensor(progress.window.counts, device=training.device)
        training.dropped = torch.tensor(progress.window.dropped, device=training.device)
    return Resumed(progress, passed_over, _changes(saved, training))


def _changes(saved: checkpoint.Saved, training: Training) -> list[str]:
    """A note for each circumstance that moves the curve in its last bits."""
    now = {
        "threads": ("threads", torch.get_num_threads()),
        "processes": ("processes", training.team.size),
        "memory_factor": ("times as many passes per step as configured", training.memory_factor),
    }
    return [
        f"resumed with {number} {words} from a checkpoint written with {saved.state.get(name, 1)}: "
        "the curve goes on, but not bit for bit"
        for name, (words, number) in now.items()
        if saved.state.get(name, 1) != number
    ]


def _identity(training: Training) -> dict[str, Any]:
    return {
        "config_hash": config_hash(training.config),
        "tokenizer": training.data.tokenizer,
        "evaluation_set": training.data.evaluation_set,
        "seed": training.seed,
        "horizon_step": training.horizon,
    }


def _refuse_mismatch(saved: checkpoint.Saved, training: Training) -> None:
    for name, now in _identity(training).items():
        then = saved.state.get(name) if name != "config_hash" else _saved_hash(saved)
        if then != now:
            raise ConfigMismatch(
                f"checkpoint {saved.path.name} has {name} {then!r}, this run has {now!r}: "
                f"resume with what it had{_differences(name, saved, training)}, or train elsewhere"
            )


def _saved_hash(saved: checkpoint.Saved) -> str:
    """Of the saved config as it reads today: a setting that has come since has its default there."""
    try:
        return config_hash(Config.model_validate(saved.state["config"]))
    except (ValidationError, KeyError):
        return str(saved.state.get("config_hash"))


def _differences(name: str, saved: checkpoint.Saved, training: Training) -> str:
    if name != "config_hash":
        return ""
    then, now = _flat(saved.state["config"]), _flat(json.loads(training.config.model_dump_json()))
    changed = [
        f"{k}: {then.get(k)!r} -> {now.get(k)!r}" for k in sorted({*then, *now}) if then.get(k) != now.get(k)
    ]
    return f" ({'; '.join(changed)})"


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
