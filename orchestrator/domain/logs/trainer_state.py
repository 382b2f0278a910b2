"""Hugging Face's `trainer_state.json`: the `log_history` of a run up to where the file was written."""

import json
import math
from typing import Any

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.logs.rows import Row, number, sessions_of
from orchestrator.domain.logs.sessions import Session
from orchestrator.protocol.wire import MAX_INTEGER

FIX = "give the folder of a run, or the trainer_state.json of one of its checkpoints"


def read_trainer_state(file: str, text: str) -> tuple[list[Session], int | None]:
    """The sessions in a state, and the step to which its schedule was sized, where it says so.

    Raises `Invalid` that names the entry for one that cannot be read.
    """
    state = _object(file, text)
    history = state.get("log_history")
    if not isinstance(history, list):
        raise Invalid([FieldError(file, f"has no list `log_history`: {FIX}")])
    rows = [_row(file, index, entry) for index, entry in enumerate(history)]
    horizon = state.get("max_steps")
    known = isinstance(horizon, int) and not isinstance(horizon, bool) and 0 < horizon <= MAX_INTEGER
    return sessions_of([row for row in rows if row is not None], may_go_back=True), horizon if known else None


def _object(file: str, text: str) -> dict[str, Any]:
    try:
        state = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid([FieldError(file, f"is not JSON ({error}): {FIX}")]) from None
    if not isinstance(state, dict):
        raise Invalid([FieldError(file, f"holds no JSON object: {FIX}")])
    return state


def _row(file: str, index: int, entry: object) -> Row | None:
    """What an entry measured; None for one without a loss, such as the summary at the end."""
    place = f"{file}: log_history[{index}]"
    if not isinstance(entry, dict):
        raise Invalid([FieldError(place, "is no object")])
    if entry.get("loss") is None and entry.get("eval_loss") is None:
        return None
    step = entry.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= MAX_INTEGER:
        raise Invalid([FieldError(f"{place}.step", f"is {step!r}, where a whole number is needed")])
    tokens = _number(place, entry, "num_input_tokens_seen")
    return Row(
        place=place,
        step=step,
        eval_loss=_number(place, entry, "eval_loss"),
        train_loss=_number(place, entry, "loss"),
        tokens=int(tokens) if tokens is not None and math.isfinite(tokens) else None,
        learning_rate=_number(place, entry, "learning_rate"),
        grad_norm=_number(place, entry, "grad_norm"),
    )


def _number(place: str, entry: dict[str, Any], key: str) -> float | None:
    """A number, also one that was written as text: some writers spell NaN so."""
    try:
        return number(entry.get(key))
    except ValueError as error:
        raise Invalid([FieldError(f"{place}.{key}", str(error))]) from None
