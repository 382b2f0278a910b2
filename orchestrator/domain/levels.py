"""Axes and their levels as variants: a shorthand for writing each one out."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

from pydantic import JsonValue

Axes = Mapping[str, Sequence[JsonValue]]
"""Dotted paths into the config, each with the values that it takes."""

Grid = Literal["one_at_a_time", "full"]
LONGEST = 63
SHOWN = 60
"""Signs of a name that is refused in its message."""

MOST_VARIANTS = 1000
"""Of one stage's axes, and of a whole spec."""


def level_name(path: str, level: JsonValue) -> str:
    """`moe.aux_loss_coef` at 0.005 is `aux_loss_coef-0.005`: letters, digits, `.`, `_` and `-` alone.

    It starts with a letter or a digit, as the name of a variant that is written out does.
    """
    spelled = level if isinstance(level, str) else json.dumps(level, separators=(",", ":"))
    axis = _plain(path.rpartition(".")[2]).lstrip("._-") or "axis"
    return f"{axis}-{_plain(spelled) or 'level'}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def count_levels(axes: Axes, grid: Grid = "one_at_a_time") -> int:
    """How many variants `expand_levels` makes, without making them."""
    lengths = [len(levels) for levels in axes.values()]
    return math.prod(lengths) if grid == "full" and lengths else sum(lengths)


def expand_levels(axes: Axes, grid: Grid = "one_at_a_time") -> dict[str, dict[str, JsonValue]]:
    """The overrides of each variant by its name, in the order in which the axes and levels stand.

    `one_at_a_time` changes one axis of the base in each; `full` takes every combination.
    Raises `ValueError` for two variants of one name, for a name that is too long, and for more than
    `MOST_VARIANTS`.
    """
    count = count_levels(axes, grid)
    if count > MOST_VARIANTS:
        raise ValueError(f"makes {counted(count)} variants; at most {MOST_VARIANTS:,}: {_fewer(grid)}")
    if grid == "full" and axes:
        cells = [dict(zip(axes, levels, strict=True)) for levels in product(*axes.values())]
    else:
        cells = [{path: level} for path, levels in axes.items() for level in levels]
    found: dict[str, dict[str, JsonValue]] = {}
    for cell in cells:
        name = "_".join(level_name(path, level) for path, level in cell.items())
        if len(name) > LONGEST:
            raise ValueError(
                f"the name `{_short(name)}` is longer than {LONGEST} signs: write this variant out"
            )
        if name in found:
            raise ValueError(f"two levels are called `{name}`: write one of the variants out")
        found[name] = cell
    return found


def counted(count: int) -> str:
    """A count for a message: one of a grid can have hundreds of digits."""
    return f"{count:,}" if count < 10**15 else "more than 10^15"


def _fewer(grid: Grid) -> str:
    return "use fewer levels, or `grid: one_at_a_time`" if grid == "full" else "use fewer levels"


def _short(name: str) -> str:
    return name if len(name) <= SHOWN else f"{name[: SHOWN - 3]}..."
