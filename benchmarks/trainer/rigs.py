"""The models and data that the benchmarks share: the tiny shapes of configs/trainer, on their text."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.commands.standalone import read_config
from trainer.config import Config
from trainer.data import TokenData, open_data
from trainer.facts import validate
from trainer.training import Training

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "trainer"
CACHE = Path(tempfile.gettempdir()) / "assay-bench-cache"
HALF = {"n_embd": 512, "n_layer": 12, "n_head": 8, "n_positions": 1024}
EXPERTS = {"num_experts": 40, "top_k": 2, "d_ff": 2048, "aux_loss_coef": 0.01}


def tiny(name: str, *overrides: str) -> Config:
    """A tiny config of the repository."""
    return validate(read_config(CONFIGS / f"{name}.json", list(overrides)))


def half(kind: str, **train: Any) -> Config:
    """The half shape over random tokens of GPT-2's vocabulary."""
    config: dict[str, Any] = {
        "model": {"kind": kind, **HALF, **({"n_inner": 2048} if kind == "dense" else {})},
        "data": {"source": "pydoc", "tokenizer": {"kind": "gpt2"}},
        "train": train,
    }
    return validate(config | ({} if kind == "dense" else {"moe": EXPERTS}))


def training(config: Config, device: str = "cpu") -> Training:
    data = open_data(config.data, config.sequence_length, CACHE)
    return Training(config, data, seed=0, horizon=1000, device=device)


def random_tokens(vocabulary: int, count: int = 2_000_000) -> TokenData:
    """As many tokens as a few steps need, of no text: speed does not depend on what they say."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, count).astype(np.uint16)
    return TokenData(train=tokens, held_out=tokens[:4097], tokenizer="random")


def single_thread() -> None:
    """One thread, as a tiny run has on a slot of its own."""
    torch.set_num_threads(1)


def config_json(config: Config) -> str:
    return json.dumps(config.model_dump(mode="json"))
