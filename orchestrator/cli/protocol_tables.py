"""What waits for a result, and how a replay came out, as rich renderables."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from orchestrator.cli.client import Json
from orchestrator.cli.tables import table

LONGEST = 200
"""Signs of a value that a difference shows."""


def with_waiting(shown: RenderableType, item: Json) -> RenderableType:
    """An experiment, and below it the variants that wait or waited for a result."""
    below = waiting(item.get("waiting", []))
    return shown if below is None else Group(shown, Text(), below)


def waiting(items: Iterable[Json]) -> RenderableType | None:
    """The variants whose config a result chooses; None when there is none."""
    made = table("variant", "from stage", "status", "waits for, or came from", wide="waits for, or came from")
    for item in items:
        made.add_row(item["name"], item["stage"], item["status"], Text(item["detail"] or _awaited(item)))
    return made if made.row_count else None


def _awaited(item: Json) -> str:
    changes = ", ".join(f"{path} = {value}" for path, value in item["overrides"].items())
    source = "the best that enters the stage"
    if item["kind"] == "best_of":
        source = f"the best of {', '.join(item['sources'])}"
    return f"{source}, with {changes}" if changes else source


def replay(view: Json) -> RenderableType:
    """Whether the log came out exactly, and where it did not."""
    left_out = len(view["not_replayed"])
    asked = view["decisions"] - left_out
    said = (
        f"{view['reproduced']:,} of {asked:,} decisions made again exactly" if asked else "nothing to replay"
    )
    style = "green" if view["exact"] else "red" if asked else "yellow"
    parts: list[RenderableType] = [Text(f"{view['experiment_id']}: {said}", style=style)]
    if left_out:
        reasons = sorted({item["why"] for item in view["not_replayed"]})
        parts.append(Text(f"{left_out:,} not made again: {'; '.join(reasons)}"))
    return Group(*parts, *_differences(view["differences"]))


def _differences(items: Iterable[Json]) -> Iterator[RenderableType]:
    for item in items:
        place = f"{item['decision_id']}  {item['variant']} at step {item['step']:,} of {item['stage']}"
        yield Text(f"\n{place}: {item['field']}", style="bold")
        for name in ("recorded", "recomputed"):
            yield Padding(Text(f"{name}: {_short(item[name])}"), (0, 0, 0, 4))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
