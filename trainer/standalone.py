"""What the commands do without a service: the same worker, with an assignment made from arguments."""

import argparse
import json
from math import exp
from pathlib import Path
from typing import Any

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitRecord
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.wire import JsonObject
from trainer.config import Config
from trainer.facts import check, validate
from trainer.problems import CheckpointProblem
from trainer.ranks import environment_rank

BYTES_PER_TRAINED_NUMBER = 16  # weight, gradient and two moments in fp32


def read_config(path: Path, overrides: list[str]) -> JsonObject:
    """The file's object with `a.b=c` overrides put in. Raises `ConfigProblem`."""
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise ConfigProblem([("", f"cannot read {path}: {error.strerror}")]) from None
    except ValueError as error:
        raise ConfigProblem([("", f"{path} is not JSON: {error}")]) from None
    if not isinstance(config, dict):
        raise ConfigProblem([("", f"{path} holds no object: give groups such as `model` and `data`")])
    for override in overrides:
        _put(config, override)
    return config


def make_assignment(arguments: argparse.Namespace) -> Assignment:
    """An assignment without a service; a resumed run keeps its seed and horizon. Raises `ConfigProblem`."""
    threads = [f"train.threads={arguments.threads}"] if arguments.threads else []
    config = check(read_config(arguments.config, [*arguments.set, *threads])).config
    directory: Path = arguments.run_dir.absolute()
    before = _earlier(directory)
    complete = Config.model_validate(config)
    horizon = arguments.horizon or before.get("horizon_step") or complete.schedule.horizon_steps
    assignment = Assignment(
        experiment_id="standalone",
        run_id=directory.name or "run",
        attempt_id="standalone",
        attempt=1,
        epoch=1,
        variant="standalone",
        seed=arguments.seed if arguments.seed is not None else before.get("seed", 0),
        config=config,
        target_step=arguments.to_step,
        horizon_step=horizon or arguments.to_step,
        eval_every=arguments.eval_every,
        directory=str(directory),
        cache_directory=str(arguments.cache.absolute()),
        device=arguments.device,
    )
    if environment_rank() == 0:  # under torchrun, the others read the same arguments and write nothing
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "assignment.json").write_text(assignment.model_dump_json(indent=2) + "\n")
    return assignment


def result(assignment: Assignment, record: ExitRecord) -> dict[str, object]:
    """What a person wants to know at the end of a training."""
    from trainer import checkpoint

    found = checkpoint.candidates([Path(assignment.directory)])
    last: dict[str, Any] = {}
    if found:
        last = json.loads((found[0] / "state.json").read_text())["progress"]["last_evaluation"] or {}
    shown = ("eval_loss", "perplexity", "train_loss", "tokens", "tokens_per_second", "wall_seconds")
    return {
        "status": record.message,
        "step": record.step,
        **({"evaluated_at": last["step"]} if last else {}),
        **{name: last[name] for name in shown if name in last},
        "checkpoint": str(found[0]) if found else "",
    }


def evaluate_checkpoint(path: Path, cache: Path, max_tokens: int | None) -> dict[str, object]:
    """The held-out loss of the checkpoint folder `path`. Raises `CheckpointProblem` and `DataProblem`."""
    import torch

    from trainer import checkpoint
    from trainer.data import open_data
    from trainer.evaluate import evaluation_loss
    from trainer.models.build import build

    try:
        saved = checkpoint.load(path)
    except checkpoint.Corrupt as error:
        raise CheckpointProblem(
            f"--checkpoint {path}: {error}: give a step-... folder that is whole"
        ) from error
    config = validate(saved.state["config"], with_source=False)
    data = open_data(config.data, config.sequence_length, cache).limited(max_tokens)
    model = build(config)
    model.load_state_dict(dict(saved.model))
    windows = data.evaluation_windows(config.sequence_length)
    loss = evaluation_loss(model, windows, config.vocab_size, torch.device("cpu"))
    return {
        "step": saved.step,
        "eval_loss": loss,
        "perplexity": exp(loss),
        "tokens": len(data.held_out) - 1,
        "evaluation_set": data.evaluation_set,
        "tokenizer": data.tokenizer,
    }


def describe(config: JsonObject) -> dict[str, object]:
    """Counts and costs of a config, by formula. Raises `ConfigProblem`."""
    facts = check(config)
    complete = Config.model_validate(facts.config)
    return {
        "kind": complete.model.kind,
        "parameters_total": facts.parameters_total,
        "parameters_active": facts.parameters_active,
        "flops_per_token": facts.flops_per_token,
        "tokens_per_step": facts.tokens_per_step,
        "schedule_family": facts.schedule_family,
        "memory_bytes": _memory_bytes(complete, facts.parameters_total),
    }


def _memory_bytes(config: Config, parameters: int) -> int:
    """An estimate: trained numbers with their moments, activations kept for the backward pass, logits."""
    m, tokens = config.model, config.train.batch_size * config.sequence_length
    inner = config.moe.top_k * config.moe.d_ff if config.moe else config.n_inner
    per_layer = 12 * m.n_embd + 2 * inner
    return BYTES_PER_TRAINED_NUMBER * parameters + 4 * tokens * (
        m.n_layer * per_layer + 2 * config.vocab_size
    )


def _earlier(directory: Path) -> dict[str, Any]:
    """The assignment that this run directory was started with; empty when it is new."""
    try:
        earlier = json.loads((directory / "assignment.json").read_text())
    except (OSError, ValueError):
        return {}
    return earlier if isinstance(earlier, dict) else {}


def _put(config: dict[str, Any], override: str) -> None:
    """Sets one dotted field; the value is JSON, or else text."""
    field, equals, text = override.partition("=")
    if not equals or not field:
        raise ConfigProblem([("", f"--set {override}: write it as group.name=value")])
    *groups, name = field.split(".")
    for group in groups:
        inner = config.get(group)
        if not isinstance(inner, dict):
            inner = config[group] = {}
        config = inner
    try:
        config[name] = json.loads(text)
    except ValueError:
        config[name] = text
