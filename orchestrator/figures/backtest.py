"""Cost against regret: what policies pay, and what they lose, on the same sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from orchestrator.figures.style import PALETTE, styled


@dataclass(frozen=True)
class PolicyPoint:
    """One policy, or one setting of its knob."""

    name: str
    cost: float
    """As a share of run-all."""
    regret: float
    """Nats."""
    low: float | None = None
    """Of the regret's interval."""
    high: float | None = None


def cost_against_regret(
    points: Sequence[PolicyPoint], sweep: Sequence[PolicyPoint] = (), *, sweep_name: str = "race"
) -> go.Figure:
    """Each policy as a point with its interval; a sweep of one policy's knob as a line."""
    figure = go.Figure()
    if sweep:
        ordered = sorted(sweep, key=lambda point: point.cost)
        _add(figure, ordered, sweep_name, PALETTE[0], mode="lines+markers+text")
    for place, point in enumerate(points):
        _add(figure, [point], point.name, PALETTE[(place + 1) % len(PALETTE)], mode="markers+text")
    figure.update_traces(textposition="top center", textfont={"size": 10}, cliponaxis=False)
    made = styled(figure, "cost as a share of run-all", "regret (nats)", height=560)
    return made.update_layout(showlegend=False)


def _add(figure: go.Figure, points: Sequence[PolicyPoint], name: str, colour: str, *, mode: str) -> None:
    known = [point for point in points if point.low is not None and point.high is not None]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [(point.high or 0.0) - point.regret for point in points],
        "arrayminus": [point.regret - (point.low or 0.0) for point in points],
        "thickness": 1,
        "width": 3,
    }
    figure.add_scatter(
        x=[point.cost for point in points],
        y=[point.regret for point in points],
        text=[point.name for point in points],
        name=name,
        mode=mode,
        line={"color": colour, "width": 2},
        marker={"color": colour, "size": 8},
        error_y=bars if len(known) == len(points) else None,
        hovertemplate="%{text}: cost %{x:.3f}, regret %{y:.4f}<extra></extra>",
    )
