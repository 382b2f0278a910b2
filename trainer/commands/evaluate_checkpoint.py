"""The held-out loss of a checkpoint, as its training measured it."""

from pathlib import Path

import torch

from trainer.commands.saved import load_model, open_checkpoint
from trainer.data import open_data
from trainer.devices import find_device, precision
from trainer.evaluate import evaluation_loss
from trainer.perplexity import perplexity


def evaluate_checkpoint(
    path: Path, cache: Path, max_tokens: int | None = None, device: str | None = None
) -> dict[str, object]:
    """Loss and perplexity of the step folder or run directory `path` on at most `max_tokens` held-out tokens.

    Raises `CheckpointProblem`, `DataProblem` and `ConfigProblem`.
    """
    found = find_device(device)
    saved = open_checkpoint(path)
    config, model = load_model(saved, found)
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    data = open_data(config.data, config.sequence_length, cache).limited(max_tokens)
    windows = data.evaluation_windows(config.sequence_length)
    loss = evaluation_loss(model, windows, config.vocab_size, found, precision(config.train, found))
    return {
        "checkpoint": str(saved.path),
        "step": saved.step,
        "eval_loss": loss,
        "perplexity": perplexity(loss),
        "tokens": len(data.held_out) - 1,
        "device": found.type,
        "evaluation_set": data.evaluation_set,
        "tokenizer": data.tokenizer,
    }
