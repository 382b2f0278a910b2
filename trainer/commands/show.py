"""A command's result on stdout: JSON for programs, aligned words and numbers for people."""

import json
import sys
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

BYTES = "_bytes"
HUGE = 1e12
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
Row = tuple[str, str]


def show(result: Mapping[str, object], *, as_json: bool) -> None:
    """Writes `result` to stdout."""
    text = json.dumps(_strict(result), indent=2, allow_nan=False) if as_json else plain(result)
    sys.stdout.write(text + "\n")


def plain(result: Mapping[str, object]) -> str:
    """A line for each entry, those of a group indented under it, the values in one column."""
    rows = list(_rows(result, ""))
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def number(value: float) -> str:
    """With separators, and four decimals where it has any; four digits of a huge or a small one."""
    if isinstance(value, int):
        return f"{value:,}"
    if not 1 <= abs(value) < HUGE:
        return f"{value:.4g}"
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.4f}"


def _rows(result: Mapping[str, object], indent: str) -> Iterator[Row]:
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield indent + name, ""
            yield from _rows(value, indent + "  ")
        elif isinstance(value, list):
            yield from ((indent + name if at == 0 else "", str(one)) for at, one in enumerate(value))
        else:
            yield indent + name, _plain(name, value)


def _plain(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return "none" if value is None else str(value)
    return _size(value) if name.endswith(BYTES) else number(value)


def _size(count: float) -> str:
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count:,.0f} bytes"


def _strict(value: Any) -> Any:
    """The same without what JSON cannot say: numbers that are not finite become words."""
    if isinstance(value, Mapping):
        return {name: _strict(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value
