"""Where tokens go in a mixture of experts: a heat map of layers by experts, one run at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from orchestrator.figures.curves import switch
from orchestrator.figures.style import styled

DEAD, EVEN, CROWDED = "#b3261e", "#e4e9ee", "#0b5d95"


@dataclass(frozen=True)
class Panel:
    """The loads of one run: layers (or depth applications) by experts, as multiples of the fair share."""

    name: str
    loads: Sequence[Sequence[float]]


def heat_map(panels: Sequence[Panel]) -> go.Figure:
    """The loads of the first panel, with a list to choose another from. 1 is an even share."""
    figure = go.Figure()
    most = max(2.0, *(load for panel in panels for row in panel.loads for load in row))
    for place, panel in enumerate(panels):
        figure.add_heatmap(
            z=[list(row) for row in panel.loads],
            x=list(range(len(panel.loads[0]))),
            y=list(range(1, len(panel.loads) + 1)),
            coloraxis="coloraxis",
            visible=place == 0,
            hovertemplate="layer %{y}, expert %{x}: %{z:.3f} of the fair share<extra></extra>",
            name=panel.name,
        )
    layers = max(len(panel.loads) for panel in panels)
    styled(figure, "expert", "layer", height=min(900, 220 + 28 * layers))
    figure.update_yaxes(autorange="reversed", dtick=1 if layers <= 24 else None, showgrid=False)
    figure.update_xaxes(showgrid=False)
    figure.update_layout(
        coloraxis={
            "colorscale": [[0, DEAD], [1 / most, EVEN], [1, CROWDED]],
            "cmin": 0,
            "cmax": most,
            "colorbar": {"thickness": 12},
        }
    )
    if len(panels) > 1:
        figure.update_layout(updatemenus=[switch(_choices(panels), kind="dropdown")])
    return figure


def _choices(panels: Sequence[Panel]) -> list[dict[str, object]]:
    return [
        {"label": panel.name, "method": "restyle", "args": [{"visible": [p is panel for p in panels]}]}
        for panel in panels
    ]
