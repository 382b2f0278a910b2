"""Plotly figures: one definition for the report, the dashboard and notebooks."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

INK = "#1f2933"
GRID = "#e4e7eb"
CONTROL = "#52606d"
PALETTE = ("#0b69a3", "#d64545", "#2f8f5b", "#b8581e", "#7c4dbd", "#c19a00", "#0c8c95", "#a12d73")


@dataclass(frozen=True)
class Line:
    """One run's curve: x in steps, y in the figure's unit."""

    name: str
    variant: str
    """Lines of one variant share a colour; its later seeds are dotted."""
    is_control: bool
    x: Sequence[int]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Mark:
    """A decision on a curve: where, and the words to show there."""

    kind: str
    x: int
    y: float
    text: str


SYMBOLS = {"promote": "triangle-up", "decline": "x", "stop": "square", "fail": "cross", "hold": "circle-open"}


def learning_curves(
    lines: Sequence[Line], gates: Sequence[tuple[str, int]], marks: Sequence[Mark], *, y_title: str
) -> go.Figure:
    """Curves over steps with the gates as vertical lines and the decisions as marks."""
    figure = go.Figure()
    for line, stroke in zip(lines, _strokes(lines), strict=True):
        figure.add_scatter(
            x=list(line.x),
            y=list(line.y),
            name=f"{line.name} (control)" if line.is_control else line.name,
            mode="lines+markers",
            marker={"size": 4},
            line=stroke,
        )
    for kind in dict.fromkeys(mark.kind for mark in marks):
        chosen = [mark for mark in marks if mark.kind == kind]
        figure.add_scatter(
            x=[mark.x for mark in chosen],
            y=[mark.y for mark in chosen],
            name=kind,
            mode="markers",
            text=[mark.text for mark in chosen],
            hoverinfo="text",
            marker={"symbol": SYMBOLS.get(kind, "circle"), "size": 11, "color": INK},
        )
    for name, step in gates:
        figure.add_vline(x=step, line={"color": CONTROL, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=step, y=1, yref="paper", yanchor="bottom", text=name, showarrow=False, font={"size": 11}
        )
    return _styled(figure, "step", y_title)


def gap_curves(lines: Sequence[Line], gates: Sequence[tuple[str, int]]) -> go.Figure:
    """Eval loss minus the control's at the same step; below the line is better than the control."""
    figure = learning_curves(lines, gates, (), y_title="gap to the control (nats)")
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    return figure


def _strokes(lines: Sequence[Line]) -> list[dict[str, str | int]]:
    """The control in grey and dashed; each variant in a colour of its own, its later seeds dotted."""
    colours: dict[str, str] = {}
    strokes: list[dict[str, str | int]] = []
    for line in lines:
        first = line.variant not in colours
        if first:
            place = sum(colour != CONTROL for colour in colours.values())
            colours[line.variant] = CONTROL if line.is_control else PALETTE[place % len(PALETTE)]
        dash = "dash" if line.is_control else "solid" if first else "dot"
        strokes.append({"color": colours[line.variant], "width": 2, "dash": dash})
    return strokes


def _styled(figure: go.Figure, x_title: str, y_title: str) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=440,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": -0.2},
        xaxis={"title": x_title, "gridcolor": GRID},
        yaxis={"title": y_title, "gridcolor": GRID},
        hovermode="closest",
    )
    return figure
