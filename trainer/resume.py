"""What goes into a checkpoint besides tensors, and how a run goes on from one."""

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchestrator.protocol.assignment import Assignment
from trainer import checkpoint
from trainer.config import Config
from trainer.problems import ConfigMismatch
from trainer.state import Progress
from trainer.training import Training

WATCHED_ONLY = {"train": {"log_every", "max_nan_steps", "threads"}, "schedule": {"horizon_steps"}}
"""Settings that leave the curve as it is: a run may be resumed under other values."""


def config_hash(config: Config) -> str:
    """Of everything that shapes the curve."""
    return sha256(config.model_dump_json(exclude=WATCHED_ONLY).encode()).hexdigest()


def snapshot(
    training: Training, progress: Progress
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Model tensors, optimizer tensors and the JSON state: all that the next step depends on."""
    progress.window.counts = training.counts.tolist() if training.counts is not None else []
    state = {
        "format": 1,
        "step": progress.step,
        "progress": progress.to_json(),
        **_identity(training),
        "config": training.config.model_dump(mode="json"),
        "threads": torch.get_num_threads(),
        "rng": _rng_state(training),
    }
    return dict(training.model.state_dict()), training.optimizer.state(), state


def resume(assignment: Assignment, training: Training) -> tuple[Progress, list[str]]:
    """Puts `training` where the newest good checkpoint was; its progress, and notes for a person.

    Raises `CheckpointProblem` when there are checkpoints and none is good, `ConfigMismatch` when it is of
    another run.
    """
    directories = [Path(assignment.directory), *map(Path, assignment.resume_from)]
    saved, notes = checkpoint.newest(directories, assignment.resume_at_most)
    if saved is None:
        return Progress(), notes
    _refuse_mismatch(saved, training)
    training.model.load_state_dict(dict(saved.model))
    training.optimizer.load(saved.optimizer)
    progress = Progress.from_json(saved.state["progress"])
    if progress.window.counts:
        training.counts = torch.tensor(progress.window.counts, device=training.device)
    if saved.state["threads"] != torch.get_num_threads():
        notes.append(
            f"resumed with {torch.get_num_threads()} threads from a checkpoint written with "
            f"{saved.state['threads']}: the curve goes on, but not bit for bit"
        )
    _restore_rng(saved.state["rng"], training)  # last: nothing may draw between here and the first batch
    return progress, notes


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
        then = saved.state.get(name)
        if then != now:
            raise ConfigMismatch(
                f"checkpoint {saved.path.name} has {name} {then!r}, this run has {now!r}: "
                f"resume with what it had{_differences(name, saved, training)}, or train elsewhere"
            )


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


def _rng_state(training: Training) -> dict[str, str]:
    states = {"cpu": torch.get_rng_state()}
    if training.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(training.device)
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def _restore_rng(states: dict[str, str], training: Training) -> None:
    decoded = {
        n: torch.from_numpy(np.frombuffer(base64.b64decode(s), np.uint8).copy()) for n, s in states.items()
    }
    torch.set_rng_state(decoded["cpu"])
    if training.device.type == "cuda" and "cuda" in decoded:
        torch.cuda.set_rng_state(decoded["cuda"], training.device)
