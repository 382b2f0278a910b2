"""The live picture of a watch: a bar for each run. Pure: a state in, a renderable out."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.progress import ENDED, RUNNING, UNDER_WAY, Look, Watched
from orchestrator.cli.sentences import (
    NOTHING,
    STYLES,
    duration,
    has_several_seeds,
    number,
    run_name,
    short,
)

TERMINAL = ENDED | {"stopped"}
COLUMNS = ("variant", "stage", "", "step", "status", "loss", "gap", "tok/s", "left")


def render(watched: Watched, room: int = 40, width: int = 80, away: str = "") -> RenderableType:
    """The bars of at most `room` runs, those at work first, on `width` columns; `away` says what is amiss."""
    if watched.look is None:
        return Text(away or "waiting for the service")
    look = watched.look
    shown, hidden = _fit(look.runs, room)
    parts: list[RenderableType] = [_head(look), _bars(watched, shown, width)]
    if hidden:
        parts.append(Text(f"and {hidden} more: `assay status {look.experiment['id']}`", style="dim"))
    if away:
        parts.append(Text(away, style="yellow"))
    return Group(*parts)


def _fit(runs: list[Json], room: int) -> tuple[list[Json], int]:
    if len(runs) <= room:
        return runs, 0
    chosen = sorted(runs, key=lambda run: (run["status"] not in UNDER_WAY, run["status"] in TERMINAL))[:room]
    ids = {run["id"] for run in chosen}
    return [run for run in runs if run["id"] in ids], len(runs) - room


def _head(look: Look) -> Text:
    experiment = look.experiment
    status = Text(experiment["status"], style=STYLES.get(experiment["status"], ""))
    return Text.assemble("\n", (experiment["name"], "bold"), f" ({experiment['id']}) is ", status)


def _bars(watched: Watched, runs: list[Json], width: int) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", expand=True)
    right = ("step", "loss", "gap", "tok/s", "left")
    for name in COLUMNS:
        if name:
            flexible = name == "variant"
            made.add_column(
                name,
                justify="right" if name in right else "left",
                no_wrap=True,
                overflow="ellipsis",
                max_width=max(20, width - 62) if flexible else None,
                min_width=6 if flexible else None,
            )
        else:
            made.add_column(name, ratio=1, min_width=8)
    look = watched.look
    several = has_several_seeds(look.runs) if look else False
    for run in runs:
        made.add_row(*_row(watched, run, several_seeds=several))
    return made


def _row(watched: Watched, run: Json, *, several_seeds: bool) -> list[RenderableType]:
    style = STYLES.get(run["status"], "")
    return [
        Text(run_name(run, several_seeds=several_seeds), style="bold" if run["is_control"] else ""),
        run["stage"],
        ProgressBar(total=run["target_step"], completed=run["step"], complete_style=style or "white"),
        f"{short(run['step'])}/{short(run['target_step'])}",
        Text(run["status"].replace("_", " "), style=style),
        number((run["last_evaluation"] or {}).get("eval_loss")),
        "control" if run["is_control"] else number(run["gap"], "+.3f"),
        short(run["tokens_per_second"]) if run["status"] == RUNNING else NOTHING,
        duration(watched.eta(run)),
    ]
