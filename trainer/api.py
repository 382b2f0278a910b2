"""Training from Python, without a service or a run directory.

training = begin({"model": {...}, "data": {"source": "pydoc"}}, horizon=200)
for step in range(200):
    training.step(step, detailed=False)
print(held_out_loss(training))
"""

from pathlib import Path

from orchestrator.protocol.wire import JsonObject
from trainer.data import open_data
from trainer.devices import find_device
from trainer.evaluate import evaluation_loss
from trainer.facts import validate
from trainer.text.cache import default_cache
from trainer.training import Training


def begin(
    config: JsonObject,
    *,
    horizon: int,
    seed: int = 0,
    device: str | None = None,
    cache: Path | None = None,
) -> Training:
    """A training before its first step: `step(0, detailed=False)` is next, `.model` its torch module.

    `horizon` is the last step, which schedules are sized to. Raises `ConfigProblem` and `DataProblem`.
    """
    complete = validate(config)
    data = open_data(complete.data, complete.sequence_length, cache or default_cache())
    return Training(complete, data, seed=seed, horizon=horizon, device=str(find_device(device)))


def held_out_loss(training: Training, tokens: int | None = None) -> float:
    """Nats per token over the held-out text, or over its first `tokens`."""
    config, data = training.config, training.data.limited(tokens)
    windows = data.evaluation_windows(config.sequence_length)
    return evaluation_loss(training.model, windows, config.vocab_size, training.device, training.precision)
