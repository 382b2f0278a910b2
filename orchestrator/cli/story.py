"""`assay why`: a run's decisions as a story, the latest first, each with what its criteria saw."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.sentences import MARKS, STYLES, criterion_lines, decision_head, when, why_in_short


def story(run: Json, decisions: Iterable[Json], events: Iterable[Json]) -> RenderableType:
    """What became of a run and why. `events` are those of this run: retries, notes of its worker."""
    told: list[tuple[str, RenderableType]] = [
        *((decision["created_at"], _decision(decision)) for decision in decisions),
        *((event["at"], _event(event)) for event in events),
    ]
    told.sort(key=lambda item: item[0], reverse=True)
    if not told:
        told = [("", Text("\nnothing has been decided about it yet"))]
    return Group(_head(run), *(part for _, part in told))


def _head(run: Json) -> RenderableType:
    role = "the control" if run["is_control"] else f"seed {run['seed']}"
    status = Text(run["status"].replace("_", " "), style=STYLES.get(run["status"], ""))
    name = Text.assemble(
        (run["variant"], "bold"), f"  {run['id']} of {run['experiment_id']}, {role}  ", status
    )
    return Group(name, Text(why_in_short(run)))


def _decision(decision: Json) -> RenderableType:
    head = Text.assemble(
        "\n", (decision_head(decision), STYLES.get(decision["kind"], "")), (f"  {_moment(decision)}", "dim")
    )
    lines = [line for criterion in decision["criteria"] for line in _criterion(criterion)]
    return Group(head, Padding(Text(decision["text"]), (0, 0, 0, 2)), *lines)


def _moment(decision: Json) -> str:
    return f"{decision['id']}, {when(decision['created_at'])} UTC"


def _criterion(criterion: Json) -> Iterator[RenderableType]:
    for depth, verdict, sentence in criterion_lines(criterion):
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(no_wrap=True)
        row.add_column()
        mark = Text(f"{MARKS.get(verdict, '·')} {verdict}", style=STYLES.get(verdict, "red"))
        row.add_row(mark, Text(sentence))
        yield Padding(row, (0, 0, 0, 4 + 2 * depth))


def _event(event: Json) -> RenderableType:
    return Text.assemble("\n", f"{event['kind']}: {event['text']}", (f"  {when(event['at'])} UTC", "dim"))
