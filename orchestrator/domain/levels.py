"""Axes and their levels as variants: a shorthand for writing each one out."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

from pydantic import JsonValue

Axes = Mapping[str, Sequence[JsonValue]]
"""Dotted paths into the config, each with the values that it takes."""

Grid = Literal["one_at_a_time", "full"]
LONGEST = 63


def level_name(path: str, level: JsonValue) -> str:
    """`moe.aux_loss_coef` at 0.005 is `aux_loss_coef-0.005`: letters, digits, `.`, `_` and `-` alone."""
    spelled = level if isinstance(level, str) else json.dumps(level, separators=(",", ":"))
    return f"{path.rpartition('.')[2]}-{_plain(spelled)}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "level"


def expand_levels(axes: Axes, grid: Grid = "one_at_a_time") -> dict[str, dict[str, JsonValue]]:
    """The overrides of each variant by its name, in the order in which the axes and levels stand.

    `one_at_a_time` changes one axis of the base in each; `full` takes every combination.
    Raises `ValueError` for two variants of one name, and for a name that is too long.
    """
    if grid == "full" and axes:
        cells = [dict(zip(axes, levels, strict=True)) for levels in product(*axes.values())]
    else:
        cells = [{path: level} for path, levels in axes.items() for level in levels]
    found: dict[str, dict[str, JsonValue]] = {}
    for cell in cells:
        name = "_".join(level_name(path, level) for path, level in cell.items())
        if len(name) > LONGEST:
            raise ValueError(f"the name `{name}` is longer than {LONGEST} signs: write this variant out")
        if name in found:
            raise ValueError(f"two levels are called `{name}`: write one of the variants out")
        found[name] = cell
    return found
