"""A comparison with the control as tables: the variants over their seeds, then each run's points."""

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.sentences import NOTHING, duration, number, short
from orchestrator.cli.tables import table


def comparison(view: Json) -> RenderableType:
    """Each variant against the control, what it costs, and each run at its matched points."""
    parts: list[RenderableType] = [
        Text(f"{view['experiment_id']}: every variant against {_anchor(view)} at the same {view['axis']}")
    ]
    variants = view.get("variants", [])
    if variants:
        parts += [Text(), _quality(variants, view["axis"]), *_said(variants)]
        parts += [*_intervals(variants), Text(), _size(variants), Text(), _cost(variants)]
    rows = [row for row in view["rows"] if not row["is_control"]] or view["rows"]
    for row in rows:
        head = (
            f"\n{row['variant']}/{row['seed']}  {row['status'].replace('_', ' ')}, "
            f"{short(row['params_total'])} parameters, {short(row['params_active'])} active"
        )
        parts += [Text(head, style="bold"), Padding(_points(row["points"], view["axis"]), (0, 0, 0, 2))]
    return Group(*parts)


def _anchor(view: Json) -> str:
    """The control, and what stands in for it should it have broken off."""
    reference = view.get("reference")
    return f"{view['control']} (or the reference {reference})" if reference else str(view["control"])


def _quality(variants: Sequence[Json], axis: str) -> RenderableType:
    """Losses, and the changes against the control: means over the seeds that both have."""
    right = (axis, "eval loss", "gap", "drop %", "perplexity %")
    made = table("variant", *right, "band", right=right)
    for v in variants:
        made.add_row(
            _name(v),
            NOTHING if v["at"] is None else f"{v['at']:,}",
            number(v["eval_loss"]),
            "control" if v["is_control"] else _mean(v["gap"], "+.3f"),
            _mean(v["quality_drop_percent"], "+.2f"),
            _mean(v["perplexity_change_percent"], "+.1f"),
            _band(v),
        )
    return made


def _intervals(variants: Sequence[Json]) -> list[RenderableType]:
    """The 95% intervals of the means, where there are two seeds or more."""
    known = [v for v in variants if v["gap"] is not None and v["gap"]["high"] is not None]
    if not known:
        return []
    made = table("95% interval", "seeds", "gap", "drop %", "perplexity %", right=("seeds",))
    for v in known:
        made.add_row(
            _name(v),
            str(v["gap"]["seeds"]),
            _ends(v["gap"], "+.3f"),
            _ends(v["quality_drop_percent"], "+.2f"),
            _ends(v["perplexity_change_percent"], "+.1f"),
        )
    return [Text(), made]


def _mean(value: Json | None, spec: str) -> str:
    return NOTHING if value is None else number(value["mean"], spec)


def _ends(value: Json, spec: str) -> str:
    return f"{number(value['low'], spec)} to {number(value['high'], spec)}"


def _band(v: Json) -> Text:
    if v["invalid"]:
        return Text("invalid", style="magenta")
    if v["waiting"]:
        return Text("not yet", style="yellow")
    return Text(str(v["band"] or NOTHING))


def _said(variants: Sequence[Json]) -> list[RenderableType]:
    """Why a comparison is invalid or not there yet, and what is left out of one, a line each."""
    lines = []
    for v in variants:
        reasons = [("invalid", v["invalid"]), ("not yet", v["waiting"])]
        lines += [f"{v['variant']}, {word}: {reason}" for word, reason in reasons if reason]
        lines += [f"{v['variant']}: {note}" for note in v["notes"]]
        if v["band_within"]:
            lines.append(f"{v['variant']}: the interval reaches from {' to '.join(v['band_within'])}")
    return [Text(line) for line in lines]


def _size(variants: Sequence[Json]) -> RenderableType:
    """Parameters and FLOPs of a forward pass, each with its change against the control."""
    right = ("parameters", "active", "FLOPs per token")
    made = table("variant", *right, right=right)
    for v in variants:
        shown = [_measure(v[name], short) for name in ("params_total", "params_active", "flops_per_token")]
        made.add_row(_name(v), *shown)
    return made


def _cost(variants: Sequence[Json]) -> RenderableType:
    """Speed, memory and the time to the control's loss, each with its change against the control."""
    right = ("tokens/s", "peak memory", "target loss", "time to it")
    made = table("variant", *right, right=right)
    for v in variants:
        made.add_row(
            _name(v),
            _measure(v["tokens_per_second"], short),
            _measure(v["peak_memory_bytes"], lambda value: f"{short(value)}B"),
            *_time(v["time_to_target"]),
        )
    return made


def _name(v: Json) -> Text:
    return Text(v["variant"], style="bold" if v["is_control"] else "")


def _measure(measure: Json, show: Callable[[float], str]) -> str:
    if measure["value"] is None:
        return NOTHING
    shown, percent = show(measure["value"]), measure["percent"]
    return f"{shown} {percent:+.0f}%" if percent is not None and round(percent) else shown


def _time(time: Json | None) -> tuple[str, str]:
    """The control's loss at the last step where both were measured, and how long it took to come to it."""
    if time is None:
        return NOTHING, NOTHING
    target = number(time["target_loss"])
    if time["seconds"] is None:
        return target, "not reached"
    most = "≤ " if time["at_most"] else ""
    change = "" if time["percent"] is None else f" {time['percent']:+.0f}%"
    return target, f"{most}{duration(time['seconds'])}{change}"


def _points(points: Sequence[Json], axis: str) -> RenderableType:
    right = (axis, "eval loss", "control", "gap", "drop %")
    made = table(*right, "reading", wide="reading", right=right)
    for point in points:
        made.add_row(
            f"{point['at']:,}",
            number(point["eval_loss"]),
            number(point["control_loss"]),
            number(point["gap"], "+.3f"),
            number(point["quality_drop_percent"], "+.2f"),
            Text(_reading(point)),
        )
    return made if made.row_count else Text("no evaluation yet")


def _reading(point: Json) -> str:
    if point["invalid"]:
        return f"not comparable: {point['invalid']}"
    return f"not yet: {point['waiting']}" if point.get("waiting") else str(point["band"] or "")
