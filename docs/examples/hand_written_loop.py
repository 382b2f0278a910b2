"""A loop of one's own as a trainer kind: a table of bigrams over bytes, in numpy."""

from hashlib import sha256
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.wire import JsonObject
from trainer.attempt import Attempt
from trainer.kind import parsed

BYTES = 256


class Config(BaseModel):
    """Every setting of this trainer. What is misspelt is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lr: Annotated[float, Field(gt=0)] = 30.0
    batch_tokens: Annotated[int, Field(ge=1)] = 512


def check(config: JsonObject) -> ConfigFacts:
    """What the service asks before it accepts a config. It runs in the service: numpy is not imported."""
    complete = parsed(Config, config)
    return ConfigFacts(
        config=complete.model_dump(mode="json"),
        parameters_total=BYTES * BYTES,
        parameters_active=BYTES * BYTES,
        flops_per_token=0.0,  # a row is looked up, nothing is multiplied
        tokens_per_step=complete.batch_tokens,
        schedule_family="linear",
    )


def train(attempt: Attempt) -> None:
    import numpy as np

    config, facts = Config.model_validate(attempt.config), check(attempt.config)
    text = np.frombuffer("".join(topics.values()).encode(), np.uint8)
    text, held_out = text[:-20_000], text[-20_000:]
    logits = np.zeros((BYTES, BYTES))  # of the next byte, by the byte before

    def probabilities(before):
        weights = np.exp(logits[before])
        return weights / weights.sum(axis=1, keepdims=True)

    def loss_on(before, after):
        return -np.log(probabilities(before)[np.arange(len(after)), after]).mean()

    def save(folder: Path) -> None:
        np.save(folder / "logits.npy", logits)

    if attempt.resume_folder:
        logits = np.load(attempt.resume_folder / "logits.npy")
    attempt.identify(facts, evaluation_set=sha256(held_out).hexdigest(), tokenizer="bytes")
    for step in attempt.steps(save):
        where = np.random.default_rng((attempt.seed, step)).integers(len(text) - 1, size=config.batch_tokens)
        before, after = text[where], text[where + 1]
        train_loss = loss_on(before, after)
        lr = config.lr * (1 - step / (attempt.horizon + 1))  # sized to the horizon, not to the next gate
        gradient = probabilities(before) - np.eye(BYTES)[after]
        np.subtract.at(logits, before, lr * gradient / config.batch_tokens)
        attempt.log(train_loss=train_loss, learning_rate=lr)
        if attempt.evaluation_due:
            attempt.evaluated(eval_loss=loss_on(held_out[:-1], held_out[1:]))


if __name__ == "__main__":
    with Attempt.from_arguments() as attempt:
        train(attempt)
