"""Hugging Face's Trainer as a trainer kind: a small GPT-2, made at random, on the standard library's help."""

from hashlib import sha256
from pydoc_data.topics import topics
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.wire import JsonObject
from trainer.attempt import Attempt
from trainer.kind import parsed

BYTES, POSITIONS = 256, 32


class Config(BaseModel):
    """Every setting of this trainer. What is misspelt is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    n_embd: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    n_layer: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 4
    lr: Annotated[float, Field(gt=0)] = 3e-3


def check(config: JsonObject) -> ConfigFacts:
    """What the service asks before it accepts a config. It runs in the service: torch is not imported."""
    c = parsed(Config, config)
    block = 12 * c.n_embd**2
    parameters = (BYTES + POSITIONS) * c.n_embd + c.n_layer * (block + 13 * c.n_embd) + 2 * c.n_embd
    return ConfigFacts(
        config=c.model_dump(mode="json"),
        parameters_total=parameters,
        parameters_active=parameters,
        flops_per_token=2.0 * (c.n_layer * block + BYTES * c.n_embd),
        tokens_per_step=c.batch_size * POSITIONS,
        schedule_family="linear",
    )


def train(attempt: Attempt) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, set_seed

    from trainer.callback import AssayCallback, training_arguments

    torch.set_num_threads(attempt.assignment.threads or 1)
    set_seed(attempt.seed)
    c, facts = Config.model_validate(attempt.config), check(attempt.config)
    shape = {"n_embd": c.n_embd, "n_layer": c.n_layer, "n_head": 2, "n_positions": POSITIONS}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=BYTES, bos_token_id=0, eos_token_id=0, **shape))

    text = "".join(topics.values()).encode()
    tokens = torch.tensor(list(text[: len(text) // POSITIONS * POSITIONS])).view(-1, POSITIONS)
    rows = [{"input_ids": row, "labels": row} for row in tokens]
    arguments = training_arguments(
        attempt,
        per_device_train_batch_size=c.batch_size,
        learning_rate=c.lr,
        lr_scheduler_type="linear",
        warmup_steps=5,
    )
    held_out = sha256(tokens[-50:].numpy().tobytes()).hexdigest()
    attempt.identify(facts, evaluation_set=held_out, tokenizer="bytes", device=str(arguments.device))
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows[:-50],
        eval_dataset=rows[-50:],
        callbacks=[AssayCallback(attempt)],
    )
    trainer.train(resume_from_checkpoint=attempt.resume_folder)


if __name__ == "__main__":
    with Attempt.from_arguments() as attempt:
        train(attempt)
