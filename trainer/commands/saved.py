"""A checkpoint as a person names it, and the model that is in it."""

from pathlib import Path

import torch

from orchestrator.protocol.kind import ConfigProblem
from trainer import checkpoint
from trainer.checkpoint import Saved
from trainer.config import Config
from trainer.contract import folders
from trainer.facts import validate
from trainer.models.build import build
from trainer.models.transformer import LanguageModel
from trainer.problems import CheckpointProblem


def open_checkpoint(path: Path) -> Saved:
    """The step folder `path`, or the newest good checkpoint of the run directory `path`, verified.

    Raises `CheckpointProblem`.
    """
    if (path / folders.FOLDER).is_dir():
        saved, _ = checkpoint.newest([path])
        if saved is None:
            raise CheckpointProblem(f"--checkpoint {path}: the run has no checkpoint yet: train it first")
        return saved
    if not path.name.startswith(folders.PREFIX):
        what = "is neither" if path.exists() else "does not exist: give"
        raise CheckpointProblem(f"--checkpoint {path}: {what} a run directory or a step-... folder in it")
    try:
        return checkpoint.load(path)
    except folders.Damaged as error:
        raise CheckpointProblem(
            f"--checkpoint {path}: {error}: give another step-... folder, or the run directory, "
            "whose newest good one is taken"
        ) from error


def load_model(saved: Saved, device: torch.device | str = "cpu") -> tuple[Config, LanguageModel]:
    """The config and the trained model, ready to be evaluated. Raises `CheckpointProblem`."""
    try:
        config = validate(saved.state["config"], with_source=False)
        with torch.device("meta"):
            model = build(config)
        model.load_state_dict(dict(saved.model), assign=True)
    except (ConfigProblem, KeyError, RuntimeError) as error:
        raise CheckpointProblem(f"{saved.path.name} is of another version of the trainer: {error}") from error
    return config, model.to(device).eval()


def evaluated(saved: Saved) -> dict[str, float]:
    """Its last evaluation's step, loss and perplexity; empty when there was none."""
    last = saved.state["progress"]["last_evaluation"] or {}
    return {name: last[name] for name in ("step", "eval_loss", "perplexity") if name in last}
