"""What the commands do without a service: the same worker, with an assignment made from arguments."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.wire import JsonObject
from trainer.config import Config
from trainer.contract.only_one import only_one
from trainer.facts import check
from trainer.ranks import environment_rank

FILE = "assignment.json"


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


def train(
    arguments: argparse.Namespace, interrupted: Callable[[], bool]
) -> tuple[ExitRecord, dict[str, object]]:
    """Trains in `--run-dir` from where it is; how it ended, and what a person wants to know.

    Raises `ConfigProblem`, and `InUse` when another process trains there.
    """
    from trainer.worker import work

    assignment = make_assignment(arguments)
    if arguments.device == "cuda":
        from trainer.devices import find_device

        find_device("cuda")
    if environment_rank() > 0:  # under torchrun, the others read the same arguments and write nothing
        return work(assignment, interrupted), {}
    with only_one(Path(assignment.directory)):
        record = _noted(assignment, lambda: work(assignment, interrupted))
        return record, result(assignment, record)


def make_assignment(arguments: argparse.Namespace) -> Assignment:
    """An assignment without a service; a resumed run keeps its seed and horizon. Raises `ConfigProblem`."""
    threads = [f"train.threads={arguments.threads}"] if arguments.threads else []
    config = check(read_config(arguments.config, [*arguments.set, *threads])).config
    directory: Path = arguments.run_dir.absolute()
    before = _earlier(directory)
    complete = Config.model_validate(config)
    horizon = arguments.horizon or before.get("horizon_step") or complete.schedule.horizon_steps
    return Assignment(
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


def result(assignment: Assignment, record: ExitRecord) -> dict[str, object]:
    """What a person wants to know at the end of a training."""
    from trainer.contract import folders

    status, target = record.message, assignment.target_step
    if record.code == ExitCode.FINISHED and record.step > target:
        status = f"already at step {record.step}, past --to-step {target}: nothing was trained"
    found = folders.candidates([Path(assignment.directory)], record.step)
    progress = _progress(found[0]) if found else {}
    last = progress.get("last_evaluation") or {}
    shown = ("eval_loss", "perplexity", "train_loss", "tokens", "tokens_per_second", "wall_seconds")
    return {
        "status": status,
        "step": record.step,
        **({"evaluated_at": last["step"]} if last else {}),
        **{name: last[name] for name in shown if name in last},
        **({"reached": progress["reached"]} if progress.get("reached") else {}),
        "checkpoint": str(found[0]) if found else None,
    }


def _progress(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "state.json").read_text())["progress"])
    except (OSError, ValueError, KeyError):
        return {}  # damaged, and passed over when the run was resumed


def _noted(assignment: Assignment, work: Callable[[], ExitRecord]) -> ExitRecord:
    """Runs `work` with the assignment on disk, for the next start; one that is refused leaves the old."""
    file = Path(assignment.directory) / FILE
    before = file.read_bytes() if file.exists() else None
    file.write_text(assignment.model_dump_json(indent=2) + "\n")
    record = work()
    if record.code == ExitCode.CONFIG_ERROR and before is not None:
        file.write_bytes(before)
    return record


def _earlier(directory: Path) -> dict[str, Any]:
    """The assignment that this run directory was started with; empty when it is new."""
    try:
        earlier = json.loads((directory / FILE).read_text())
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
