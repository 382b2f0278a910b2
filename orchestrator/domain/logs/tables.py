"""CSV with a header, and JSONL: one row for each measurement, columns found by their names."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.logs.rows import Row, number, sessions_of
from orchestrator.domain.logs.sessions import Session
from orchestrator.domain.logs.steps import Choices, on_grid, steps_missing
from orchestrator.domain.suggest import did_you_mean
from orchestrator.protocol.wire import MAX_INTEGER

COLUMNS: dict[str, tuple[str, ...]] = {
    "step": ("step", "steps", "global_step"),
    "eval_loss": ("eval_loss", "val_loss", "validation_loss", "eval/loss", "val/loss"),
    "train_loss": ("train_loss", "loss", "train/loss"),
    "tokens": ("tokens", "num_input_tokens_seen"),
    "epoch": ("epoch",),
    "learning_rate": ("learning_rate", "lr"),
    "grad_norm": ("grad_norm",),
    "run": ("run",),
    "session": ("session",),
    "horizon_step": ("horizon_step", "horizon_steps"),
}
"""What a column is, and the names that it goes by; the first that is there is read."""

RUNS_NAMED = 8
Cells = Mapping[str, Any]
"""One row by its columns' names."""
Rows = list[tuple[int, Cells]]
"""With the line of each."""

Found = tuple[list[Session], int | None, list[str]]
"""Sessions, the step that the schedule was sized to where a column says it, and sentences."""


def read_csv(file: str, text: str, choices: Choices) -> Found:
    """The sessions in a CSV file. Raises `Invalid` with the line and column of what is wrong."""
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise Invalid([FieldError(f"{file}:{reader.line_num}", f"is not CSV: {error}")]) from None
    for line, cells in rows:
        if len(cells) != len(header):
            text = (
                f"has {len(cells)} cells, and the header {len(header)}: every row needs one for each column"
            )
            raise Invalid([FieldError(f"{file}:{line}", text)])
    named: Rows = [(line, dict(zip(header, map(str.strip, cells), strict=True))) for line, cells in rows]
    return _read(file, header, named, choices)


def read_jsonl(file: str, text: str, choices: Choices) -> Found:
    """The sessions in a file of JSON objects, one a line. Raises `Invalid` with the line of what is wrong."""
    rows: Rows = [(line, _object(f"{file}:{line}", part)) for line, part in _lines(text)]
    header = list(dict.fromkeys(name for _, row in rows for name in row))
    return _read(file, header, rows, choices)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for line, part in enumerate(text.split("\n"), 1):
        if part.strip():
            yield line, part


def _object(place: str, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid([FieldError(place, f"is not JSON: {error}")]) from None
    if not isinstance(row, dict):
        raise Invalid([FieldError(place, "is no JSON object: give one object on each line")])
    return row


def _read(file: str, header: Sequence[str], rows: Rows, choices: Choices) -> Found:
    lowered = {name.lower(): name for name in reversed(header)}
    columns = {
        meaning: lowered[found]
        for meaning, names in COLUMNS.items()
        if (found := next((name for name in names if name in lowered), None)) is not None
    }
    _refuse_missing(file, header, columns, choices)
    rows, chosen = _of_one_run(file, columns, rows, choices)
    read = [_row(f"{file}:{line}", columns, cells, choices) for line, cells in rows]
    unread = [f"`{name}`" for name in header if name not in columns.values()]
    notes = [*chosen, *([f"{file}: columns not read: {', '.join(unread[:20])}"] if unread else [])]
    measured = [row for row in read if row.eval_loss is not None or row.train_loss is not None]
    return sessions_of(measured, may_go_back=False), _horizon(file, columns, rows), notes


def _refuse_missing(file: str, header: Sequence[str], columns: Mapping[str, str], choices: Choices) -> None:
    if "eval_loss" not in columns:
        hint = did_you_mean("eval_loss", header)
        raise Invalid([FieldError(f"{file}: eval_loss", f"there is no such column{hint}")])
    if "step" not in columns and "epoch" not in columns:
        hint = did_you_mean("step", header)
        raise Invalid([FieldError(f"{file}: step", f"there is no such column{hint}")])
    if "step" not in columns and choices.steps_per_epoch is None:
        raise steps_missing(file)


def _of_one_run(
    file: str, columns: Mapping[str, str], rows: Rows, choices: Choices
) -> tuple[Rows, list[str]]:
    """The rows of the run that is chosen, or of the only one."""
    if "run" not in columns:
        if choices.run is not None:
            raise Invalid([FieldError("--run", f"{file} has no column `run` to choose by")])
        return rows, []
    runs = list(dict.fromkeys(str(cells.get(columns["run"], "")) for _, cells in rows))
    if choices.run is None:
        if len(runs) > 1:
            more = f" and {len(runs) - RUNS_NAMED:,} more" if len(runs) > RUNS_NAMED else ""
            named = ", ".join(f"`{run}`" for run in runs[:RUNS_NAMED])
            text = f"{file} holds {len(runs):,} runs ({named}{more}): choose one with --run"
            raise Invalid([FieldError("--run", text)])
        return rows, []
    if choices.run not in runs:
        raise Invalid(
            [FieldError("--run", f"{file} has no run `{choices.run}`{did_you_mean(choices.run, runs)}")]
        )
    kept = [row for row in rows if str(row[1].get(columns["run"], "")) == choices.run]
    return kept, [f"{file}: run `{choices.run}`, of {len(runs):,}"]


def _row(place: str, columns: Mapping[str, str], cells: Cells, choices: Choices) -> Row:
    numbers = {
        name: _number(place, columns, cells, name) for name in columns if name not in ("run", "session")
    }
    session = cells.get(columns.get("session", ""))
    return Row(
        place=place,
        step=_step(place, columns, numbers, choices),
        eval_loss=numbers.get("eval_loss"),
        train_loss=numbers.get("train_loss"),
        tokens=_whole(place, columns, numbers, "tokens"),
        learning_rate=numbers.get("learning_rate"),
        grad_norm=numbers.get("grad_norm"),
        session="" if session is None else str(session),
    )


def _number(place: str, columns: Mapping[str, str], cells: Cells, name: str) -> float | None:
    try:
        return number(cells.get(columns[name]))
    except ValueError as error:
        raise Invalid([FieldError(f"{place} {columns[name]}", str(error))]) from None


def _whole(
    place: str, columns: Mapping[str, str], numbers: Mapping[str, float | None], name: str
) -> int | None:
    value = numbers.get(name)
    if value is None:
        return None
    if not (math.isfinite(value) and value == int(value) and 0 <= value <= MAX_INTEGER):
        text = f"is {value}, where a whole number of at least 0 is needed"
        raise Invalid([FieldError(f"{place} {columns[name]}", text)])
    return int(value)


def _step(
    place: str, columns: Mapping[str, str], numbers: Mapping[str, float | None], choices: Choices
) -> int:
    step = _whole(place, columns, numbers, "step")
    if step is not None:
        return step
    epoch = numbers.get("epoch")
    if epoch is None or not (math.isfinite(epoch) and epoch >= 0):
        raise Invalid(
            [FieldError(f"{place} {columns.get('step', 'epoch')}", "is empty, where a step is needed")]
        )
    if choices.steps_per_epoch is None:
        raise steps_missing(place)
    return on_grid(epoch * choices.steps_per_epoch, None, 0.0)


def _horizon(file: str, columns: Mapping[str, str], rows: Rows) -> int | None:
    """The one value of the column, if it has one."""
    if "horizon_step" not in columns:
        return None
    values = {_number(f"{file}:{line}", columns, cells, "horizon_step") for line, cells in rows} - {None}
    value = values.pop() if len(values) == 1 else None
    sound = value is not None and math.isfinite(value) and 1 <= value <= MAX_INTEGER and value == int(value)
    return int(value) if value is not None and sound else None
