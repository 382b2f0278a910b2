"""Logs as programs write them, made from a curve."""

import json
from collections.abc import Iterable

from orchestrator.domain.logs.read import Format, LogCurve, read_logs
from orchestrator.domain.logs.steps import Choices

PER_EPOCH = 7001
"""Epochs are then printed with all their digits, and steps come back exact."""
LOG_EVERY, EVAL_EVERY = 10, 50


def loss_at(step: int) -> float:
    return round(3 + 4 * (step + 1) ** -0.25, 4)


def eval_at(step: int) -> float:
    return round(loss_at(step) + 0.1, 4)


def entries(after: int, last: int, shift: float = 0.0) -> list[dict[str, float]]:
    """What a trainer logs in the steps after `after` up to `last`: the epoch in place of the step."""
    found: list[dict[str, float]] = []
    for step in range(after + LOG_EVERY, last + 1, LOG_EVERY):
        epoch = step / PER_EPOCH
        found.append({"loss": loss_at(step) + shift, "grad_norm": 0.5, "learning_rate": 1e-4, "epoch": epoch})
        if step % EVAL_EVERY == 0:
            found.append({"eval_loss": eval_at(step) + shift, "eval_runtime": 1.5, "epoch": epoch})
    return found


def live(found: Iterable[dict[str, float]]) -> str:
    """As the Trainer prints them."""
    return "".join(f"{entry}\n" for entry in found)


def quoted(found: Iterable[dict[str, float]]) -> str:
    """As newer versions print them."""
    return "".join(f"{ {key: f'{value:.6g}' for key, value in entry.items()} }\n" for entry in found)


def state(after: int, last: int, max_steps: int = 1000, shift: float = 0.0) -> str:
    """A trainer_state.json whose history holds these steps."""
    history = [entry | {"step": round(entry["epoch"] * PER_EPOCH)} for entry in entries(after, last, shift)]
    return json.dumps({"global_step": last, "max_steps": max_steps, "log_history": history})


def read(*texts: str, name: str = "train.log", format_: Format | None = None, **choices: object) -> LogCurve:
    """The curve in these texts, each a file of that name with its number before it."""
    files = [(f"{i}-{name}" if len(texts) > 1 else name, text.encode()) for i, text in enumerate(texts, 1)]
    given = {"steps_per_epoch": PER_EPOCH} | choices
    return read_logs(files, Choices(**given), format_)  # type: ignore[arg-type]  # what a test gives


def points(curve: LogCurve) -> list[tuple[object, object]]:
    """(step, eval loss) of every evaluation."""
    return [(evaluation["step"], evaluation["eval_loss"]) for evaluation in curve.evaluations]
