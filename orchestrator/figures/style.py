"""How every figure looks: one colour for a variant wherever it is drawn, readable on light and on dark."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

INK = "#52606d"
GRID = "rgba(128, 140, 152, 0.25)"
RULE = "rgba(128, 140, 152, 0.8)"
CONTROL = "#7b8794"
PALETTE = ("#2f7fc1", "#d64545", "#2f9e63", "#c8691c", "#8b63cf", "#b08900", "#0f9aa5", "#c0478a")
DASHES = ("solid", "dot", "dashdot", "longdash", "longdashdot")
GOLDEN = 0.618034


@dataclass(frozen=True)
class Stroke:
    colour: str
    dash: str


def colours(variants: Sequence[str], control: str) -> dict[str, str]:
    """A colour for each variant in its place; the control is grey."""
    others = [name for name in variants if name != control]
    return {name: _colour(place) for place, name in enumerate(others)} | {control: CONTROL}


def _colour(place: int) -> str:
    """From the palette, and past its end hues that are far from those before."""
    if place < len(PALETTE):
        return PALETTE[place]
    red, green, blue = colorsys.hls_to_rgb(place * GOLDEN % 1, 0.5, 0.5)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def stroke(colour: str, seed_place: int, *, is_control: bool) -> Stroke:
    """The first seed solid, later ones broken; the control dashed."""
    return Stroke(colour, "dash" if is_control else DASHES[seed_place % len(DASHES)])


def styled(figure: go.Figure, x_title: str, y_title: str, *, height: int = 440) -> go.Figure:
    """The figure with the common layout. No background: the page's shows through."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 48, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "maxheight": 120},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": RULE, "activecolor": INK},
        hovermode="closest",
    )
    line = {"gridcolor": GRID, "zeroline": False, "linecolor": RULE, "automargin": True}
    line["exponentformat"] = "SI"
    figure.update_xaxes(title={"text": x_title, "standoff": 8}, **line)
    figure.update_yaxes(title_text=y_title, **line)
    return figure
