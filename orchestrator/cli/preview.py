"""What `assay plan` shows: the preview of a spec."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.protocol_tables import waiting
from orchestrator.cli.sentences import short
from orchestrator.cli.tables import table

MOST_POINTS = 12
"""Of a stage, that are named."""


def plan(view: Json) -> RenderableType:
    """The preview of a spec."""
    seeds = ", ".join(str(seed) for seed in view["seeds"])
    head = (
        f"control {view['control']}, policy {view['policy']['name']}, seeds {seeds}\n"
        f"at most {view['most_runs']:,} runs and {view['most_steps']:,} training steps "
        f"of {view['tokens_per_step']:,} tokens"
    )
    if view["slot_hours"] is not None:
        head += f", {view['slot_hours']:.1f} slot-hours as this config trained here before"
    parts: list[RenderableType] = [Text(view["name"], style="bold"), Text(head), Text()]
    parts += [_planned_stages(view["stages"]), Text(), _planned_variants(view["variants"])]
    below = waiting(view["waiting"])
    parts += [Text(), below] if below is not None else []
    parts += [Text(sentence) for sentence in [*_points(view["stages"]), *view["left_out"]]]
    return Group(*parts, *_warnings(view["warnings"]))


def _points(stages: Iterable[Json]) -> Iterator[str]:
    """Where runs wait for each other before a gate."""
    for stage in stages:
        steps = stage["points"]
        if steps:
            named = ", ".join(f"{step:,}" for step in steps[:MOST_POINTS])
            more = f" and {len(steps) - MOST_POINTS} more" if len(steps) > MOST_POINTS else ""
            yield f"in {stage['name']} variants are compared with each other at step {named}{more}"


def _planned_stages(stages: Iterable[Json]) -> Table:
    right = ("steps", "evaluations", "runs")
    made = table("stage", *right, "who enters", wide="who enters", right=right)
    for stage in stages:
        numbers = (f"{stage[key]:,}" for key in ("steps", "evaluations", "most_runs"))
        made.add_row(stage["name"], *numbers, Text(stage["entrants"]))
    return made


def _planned_variants(variants: Iterable[Json]) -> Table:
    right = ("params", "active")
    made = table("variant", "from stage", *right, "what differs", wide="what differs", right=right)
    for item in variants:
        differs = ", ".join(f"{path} = {value}" for path, value in item["overrides"].items())
        made.add_row(
            Text(item["name"], style="bold" if item["is_control"] else ""),
            item["stage"],
            short(item["params_total"]),
            short(item["params_active"]),
            Text(differs or "the base as it is"),
        )
    return made


def _warnings(warnings: Iterable[str]) -> Iterator[RenderableType]:
    for warning in warnings:
        yield Text()
        yield Text(f"warning: {warning}", style="yellow")
