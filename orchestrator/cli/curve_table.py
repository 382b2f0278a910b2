"""A table of curves (config, run, step, eval_loss, perhaps horizon_steps) as the API takes them."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from orchestrator.cli.client import Json
from orchestrator.cli.errors import BadUsage
from orchestrator.domain.suggest import did_you_mean

NEEDED = ("config", "step", "eval_loss")
KNOWN = (*NEEDED, "run", "horizon_steps", "seconds_per_step")


def read_curves(path: Path) -> list[Json]:
    """One curve for each config and run, in the order of the file; each one's points as they stand there.

    Raises `BadUsage` with the line of what cannot be read, and for a number that is not finite.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _curves(path, csv.DictReader(file))
    except FileNotFoundError:
        raise BadUsage(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise BadUsage(f"{path}: is not UTF-8 text") from None
    except csv.Error as error:
        raise BadUsage(f"{path}: is no table: {error}") from None
    except OSError as error:
        raise BadUsage(f"{path}: cannot be read: {error.strerror}") from None


def _curves(path: Path, rows: "csv.DictReader[str]") -> list[Json]:
    columns = list(rows.fieldnames or ())
    lacking = [name for name in NEEDED if name not in columns]
    if lacking:
        raise BadUsage(
            f"{path}: there is no column {', '.join(lacking)}", f"its columns: {', '.join(columns)}"
        )
    for name in columns:
        if name not in KNOWN:
            raise BadUsage(f"{path}: the column `{name}` means nothing here{did_you_mean(name, KNOWN)}")
    found: dict[tuple[str, str], Json] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        config, run = row["config"], row.get("run") or "0"
        curve = found.setdefault((config, run), {"config": config, "run": run, "points": []})
        curve["points"].append([_whole(row, "step", where), _number(row, "eval_loss", where)])
        _one_value(curve, row, "horizon_steps", where)
        _one_value(curve, row, "seconds_per_step", where)
    if not found:
        raise BadUsage(f"{path}: holds no row")
    return list(found.values())


def _one_value(curve: Json, row: Mapping[str, str], name: str, where: str) -> None:
    """What is the same over all rows of a run, and may be left out."""
    if not row.get(name):
        return
    value = _whole(row, name, where) if name == "horizon_steps" else _number(row, name, where)
    if curve.setdefault(name, value) != value:
        told = (
            f"{name} is {value}, and {curve[name]} in an earlier row of {curve['config']}, run {curve['run']}"
        )
        raise BadUsage(f"{where}: {told}: two runs share a name; give each its own")


def _whole(row: Mapping[str, str], name: str, where: str) -> int:
    try:
        return int(row[name])
    except (TypeError, ValueError):
        raise BadUsage(f"{where}: {name} `{row[name]}` is no whole number") from None


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        raise BadUsage(f"{where}: {name} `{row[name]}` is no number") from None
    if not math.isfinite(value):
        fix = "end the curve before it, and the replay asks for nothing past that"
        raise BadUsage(f"{where}: {name} is {row[name]}, which is no finite number: {fix}")
    return value
