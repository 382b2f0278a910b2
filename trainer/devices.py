"""The device that a person asked for, and what a forward pass runs under on it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from orchestrator.protocol.kind import ConfigProblem
from trainer.config import TrainConfig


def find_device(wanted: str | None) -> torch.device:
    """`wanted`, or CUDA where there is one. Raises `ConfigProblem`."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigProblem(
            [("--device cuda", f"torch {torch.__version__} sees no CUDA device here: use --device cpu")]
        )
    return torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))


def precision(config: TrainConfig, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Makes what a forward pass of the training runs under: autocast to bf16, or nothing."""
    if config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda"):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext
