"""`assay why`: a run's decisions as a story, the latest first, each with what its criteria saw."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.sentences import (
    MARKS,
    STYLES,
    VERDICT_STYLES,
    criterion_lines,
    decision_head,
    run_name,
    when,
    why_in_short,
)


def story(
    run: Json,
    decisions: Sequence[Json],
    events: Iterable[Json],
    *,
    every: bool = False,
    several_seeds: bool = False,
) -> RenderableType:
    """What became of a run and why. `events` are those of this run: retries, notes of its worker.

    Decisions to go on, but for the latest, are told without their criteria unless `every` one is wanted.
    """
    latest = decisions[-1]["id"] if decisions else None
    told: list[tuple[str, RenderableType]] = []
    for decision in decisions:
        in_full = every or decision["kind"] != "continue" or decision["id"] == latest
        told.append((decision["created_at"], _decision(decision, in_full, several_seeds)))
    told += [(event["at"], _event(event)) for event in events]
    told.sort(key=lambda item: item[0])
    if not told:
        told = [("", Text("\nnothing has been decided about it yet"))]
    return Group(_head(run, several_seeds), *(part for _, part in reversed(told)))


def _head(run: Json, several_seeds: bool) -> RenderableType:
    role = "the control" if run["is_control"] else f"seed {run['seed']}"
    status = Text(run["status"].replace("_", " "), style=STYLES.get(run["status"], ""))
    name = Text.assemble(
        (run_name(run, several_seeds=several_seeds), "bold"),
        f"  {run['id']} of {run['experiment_id']}, {role}  ",
        status,
    )
    return Group(name, Text(why_in_short(run)))


def _decision(decision: Json, in_full: bool, several_seeds: bool) -> RenderableType:
    words = decision_head(decision, several_seeds=several_seeds)
    head = Text.assemble("\n", (words, STYLES.get(decision["kind"], "")), (f"  {_moment(decision)}", "dim"))
    lines = [line for criterion in decision["criteria"] for line in _criterion(criterion)] if in_full else []
    return Group(head, Padding(Text(decision["text"]), (0, 0, 0, 2)), *lines)


def _moment(decision: Json) -> str:
    return f"{decision['id']}, {when(decision['created_at'])} UTC"


def _criterion(criterion: Json) -> Iterator[RenderableType]:
    for depth, verdict, sentence in criterion_lines(criterion):
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(no_wrap=True)
        row.add_column()
        mark = Text(f"{MARKS.get(verdict, '·')} {verdict}", style=VERDICT_STYLES.get(verdict, ""))
        row.add_row(mark, Text(sentence))
        yield Padding(row, (0, 0, 0, 4 + 2 * depth))


def _event(event: Json) -> RenderableType:
    return Text.assemble("\n", f"{event['kind']}: {event['text']}", (f"  {when(event['at'])} UTC", "dim"))
