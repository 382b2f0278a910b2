"""What the reading commands show, as rich renderables made from the API's JSON."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.sentences import (
    NOTHING,
    STYLES,
    budget_line,
    decision_head,
    has_several_seeds,
    number,
    run_name,
    when,
    why_in_short,
)


def styled(word: str) -> Text:
    """A status, kind or verdict in its colour."""
    return Text(word.replace("_", " "), style=STYLES.get(word, ""))


def table(*columns: str, wide: str | None = None, right: Sequence[str] = (), wraps: bool = True) -> Table:
    """A table without a frame. The `wide` column gets what room is left; numbers stand on the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=wide is not None)
    for name in columns:
        is_wide = name == wide
        made.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold" if is_wide and wraps else "ellipsis",
            no_wrap=not (is_wide and wraps),
            ratio=1 if is_wide else None,
        )
    return made


def experiments(items: Iterable[Json], empty: str) -> RenderableType:
    columns = ("id", "name", "status", "stage", "created", "conclusion")
    made = table(*columns, wide="conclusion", wraps=False)
    for item in items:
        open_stages = [stage["name"] for stage in item["stages"] if stage["status"] in ("running", "judging")]
        made.add_row(
            item["id"],
            Text(item["name"]),
            styled(item["status"]),
            open_stages[0] if open_stages else NOTHING,
            when(item["created_at"]),
            Text(item["conclusion"] or ""),
        )
    return made if made.row_count else Text(empty)


def experiment(item: Json, runs: list[Json]) -> RenderableType:
    """One experiment: what it asks, where its stages are, how its runs do."""
    head = Text.assemble((item["name"], "bold"), f"  {item['id']}  ", styled(item["status"]))
    about = [
        Text(item["question"]),
        Text(f"control {item['control']}, policy {item['policy']['name']} ({item['policy']['hash'][:12]})"),
        Text(f"created {when(item['created_at'])} UTC, ended {when(item['ended_at'])}"),
        Text(budget_line(item.get("budget"))),
        Text(f"held: {item['held']}" if item.get("held") else "", style="bold red"),
        Text(item["conclusion"] or "", style="bold"),
    ]
    return Group(
        head,
        *(line for line in about if line.plain),
        Text(),
        _stages(item["stages"]),
        Text(),
        run_table(runs),
    )


def _stages(stages: Iterable[Json]) -> Table:
    made = table("stage", "steps", "status", "outcome", wide="outcome", right=("steps",))
    for stage in stages:
        outcome = Text(stage.get("conclusion") or "")
        made.add_row(stage["name"], f"{stage['steps']:,}", styled(stage["status"]), outcome)
    return made


def run_table(runs: list[Json]) -> Table:
    """Where every run stands: stage, step, last eval loss and its gap to the control."""
    columns = ("run", "variant", "stage", "step", "eval loss", "gap", "status")
    made = table(*columns, right=("step", "eval loss", "gap"))
    several = has_several_seeds(runs)
    for run in runs:
        made.add_row(
            run["id"],
            Text(run_name(run, several_seeds=several), style="bold" if run["is_control"] else ""),
            run["stage"],
            f"{run['step']:,}",
            number((run["last_evaluation"] or {}).get("eval_loss")),
            "control" if run["is_control"] else number(run["gap"], "+.3f"),
            styled(run["status"]),
        )
    return made


def closing(runs: list[Json], decisions: list[Json]) -> RenderableType:
    """The end of an experiment: the table of its runs, then why each stands where it does."""
    several = has_several_seeds(runs)
    reasons = Table.grid(padding=(0, 2, 0, 0), expand=True)
    reasons.add_column(no_wrap=True)
    reasons.add_column(ratio=1)
    for run in runs:
        name = Text(run_name(run, several_seeds=several), style="bold" if run["is_control"] else "")
        reasons.add_row(name, Text(why_in_short(run)))
    return Group(run_table(runs), Text(), Text("why", style="bold"), reasons)


def decisions(items: Iterable[Json], *, several_seeds: bool) -> RenderableType:
    """Each on a line of its own, with its sentence below."""
    parts: list[RenderableType] = []
    for item in items:
        words = decision_head(item, several_seeds=several_seeds)
        head = Text.assemble((f"{item['id']}  ", "dim"), (words, STYLES.get(item["kind"], "")))
        parts += [head, Padding(Text(item["text"]), (0, 0, 0, 4))]
    return Group(*parts) if parts else Text("no decision yet")


def events(items: Iterable[Json], runs: list[Json]) -> RenderableType:
    """What happened, with the run that it happened to where it did to one."""
    several = has_several_seeds(runs)
    names = {run["id"]: run_name(run, several_seeds=several) for run in runs}
    made = table("at (UTC)", "event", "variant", "what happened", wide="what happened")
    for item in items:
        run = item["run_id"]
        name = names.get(run, str(run)) if run else NOTHING
        made.add_row(when(item["at"]), Text(item["kind"].replace("_", " ")), Text(name), Text(item["text"]))
    return made if made.row_count else Text("nothing has happened yet")


def slots(items: Iterable[Json]) -> RenderableType:
    made = table("slot", "kind", "device", "run", "variant")
    for item in items:
        run, variant = item["run_id"] or NOTHING, item["variant"] or NOTHING
        made.add_row(item["id"], item["kind"], Text(item["device"]), run, variant)
    return made
