"""Curves of many runs over steps, tokens, time or FLOPs: one figure, and buttons where there are several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from orchestrator.figures.style import RULE, Stroke, styled

Number = float | None

MOST_DOTS = 1500
"""Each dot is an element that a browser keeps: beyond this many, curves are drawn without."""

SYMBOLS = {
    "promote": ("triangle-up", "#2f9e63"),
    "decline": ("x", "#d64545"),
    "stop": ("square", "#c8691c"),
    "fail": ("cross", "#d64545"),
    "hold": ("circle-open", "#7b8794"),
    "new attempt": ("diamond-open", "#c8691c"),
    "NaN": ("star", "#d64545"),
}


@dataclass(frozen=True)
class Line:
    """One curve: `x` by the name of each axis it can be drawn over, `y` in the figure's unit."""

    name: str
    stroke: Stroke
    x: Mapping[str, Sequence[Number]]
    y: Sequence[Number]
    error: Sequence[tuple[float, float]] | None = None
    """How far the interval reaches (up, down) from each `y`."""


@dataclass(frozen=True)
class Mark:
    """Something that happened on a curve: where, and the words to show there."""

    kind: str
    x: Mapping[str, Number]
    y: float
    text: str


@dataclass(frozen=True)
class Across:
    """A horizontal axis: the name that lines know it by, the words for it, and the gates along it."""

    name: str
    title: str
    is_log: bool = False
    gates: Sequence[tuple[str, float]] = field(default_factory=tuple)


def draw(
    lines: Sequence[Line],
    across: Sequence[Across],
    marks: Sequence[Mark] = (),
    *,
    y_title: str,
    y_is_log: bool = False,
    zero: bool = False,
    height: int = 440,
) -> go.Figure:
    """The curves over the first axis, with buttons where there are more; `zero` draws a line at 0."""
    figure = go.Figure()
    crowded = sum(len(line.y) for line in lines) > MOST_DOTS
    for line in lines:
        figure.add_scatter(**_curve(line, across[0].name, dots=not crowded or len(line.y) < 2))
    kinds = [[mark for mark in marks if mark.kind == kind] for kind in dict.fromkeys(m.kind for m in marks)]
    for chosen in kinds:
        figure.add_scatter(**_symbols(chosen, across[0].name))
    styled(figure, across[0].title, y_title, height=height)
    figure.update_layout(**_layout_of(across[0], zero=zero))
    figure.update_xaxes(type="log" if across[0].is_log else "linear")
    figure.update_yaxes(type="log" if y_is_log else "linear")
    if len(across) > 1:
        figure.update_layout(updatemenus=[_switch(lines, kinds, across, zero=zero)])
    return figure


def _curve(line: Line, axis: str, *, dots: bool) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "x": list(line.x[axis]),
        "y": list(line.y),
        "name": line.name,
        "mode": "lines+markers" if dots else "lines",
        "marker": {"size": 4},
        "line": {"color": line.stroke.colour, "dash": line.stroke.dash, "width": 2},
    }
    if line.error is not None:
        up, down = [u for u, _ in line.error], [d for _, d in line.error]
        drawn["error_y"] = {"array": up, "arrayminus": down, "thickness": 1, "width": 3}
    return drawn


def _symbols(marks: Sequence[Mark], axis: str) -> dict[str, Any]:
    symbol, colour = SYMBOLS.get(marks[0].kind, ("circle", RULE))
    return {
        "x": [mark.x[axis] for mark in marks],
        "y": [mark.y for mark in marks],
        "name": marks[0].kind,
        "mode": "markers",
        "text": [mark.text for mark in marks],
        "hoverinfo": "text",
        "marker": {"symbol": symbol, "size": 11, "color": colour},
    }


def _layout_of(axis: Across, *, zero: bool) -> dict[str, Any]:
    """The gates as upright lines with their names, and the line at zero."""
    upright = [
        {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": _ruler("dot")}
        for _, x in axis.gates
    ]
    level = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 0, "y1": 0, "line": _ruler("solid")}
    names = [
        {"x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "text": name, "showarrow": False}
        | {"font": {"size": 11}}
        for name, x in axis.gates
    ]
    return {"shapes": [*upright, *([level] if zero else [])], "annotations": names}


def _ruler(dash: str) -> dict[str, Any]:
    return {"color": RULE, "width": 1, "dash": dash}


def _switch(
    lines: Sequence[Line], kinds: Sequence[Sequence[Mark]], across: Sequence[Across], *, zero: bool
) -> dict[str, Any]:
    buttons = []
    for axis in across:
        x: list[Any] = [list(line.x[axis.name]) for line in lines]
        x += [[mark.x[axis.name] for mark in marks] for marks in kinds]
        layout = _layout_of(axis, zero=zero) | {
            "xaxis.title.text": axis.title,
            "xaxis.type": "log" if axis.is_log else "linear",
            "xaxis.autorange": True,
        }
        buttons.append({"label": axis.name, "method": "update", "args": [{"x": x}, layout]})
    return switch(buttons, kind="buttons")


def switch(buttons: list[dict[str, Any]], *, kind: str) -> dict[str, Any]:
    """A row of buttons, or a list that folds down, above the figure."""
    return {
        "type": kind,
        "direction": "right" if kind == "buttons" else "down",
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.06,
        "yanchor": "bottom",
        "pad": {"b": 10},
        "bgcolor": "rgba(128, 140, 152, 0.15)",
        "bordercolor": RULE,
    }
