"""Checkpoints to export, without training."""

from pathlib import Path

import torch

from trainer import checkpoint
from trainer.config import Config
from trainer.data import TokenData
from trainer.resume import snapshot
from trainer.state import Progress
from trainer.training import Training


def saved(config: Config, data: TokenData, directory: Path) -> Training:
    """A training at step 0 with every number moved, its checkpoint under `directory`."""
    training = Training(config, data, seed=0, horizon=10, device="cpu")
    with torch.no_grad():
        for tensor in training.model.state_dict().values():
            tensor += 0.1 * torch.randn_like(tensor)
    checkpoint.write(directory, 0, *snapshot(training, Progress()))
    return training
