"""JSON of the API as words: numbers, times, decisions and criteria. Pure; plain text without styles."""

from collections.abc import Iterator
from datetime import UTC, datetime

from orchestrator.cli.client import Json

NOTHING = "–"
DONE = {
    "promote": "promoted",
    "decline": "declined",
    "stop": "stopped",
    "hold": "holds",
    "fail": "failed",
    "continue": "goes on",
    "fall_back": "falls back",
}
MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "invalid": "!"}
RULES_IN_WORDS = {
    "all": "needs all of these",
    "any": "needs any of these",
    "not": "needs the opposite of this",
}
"""How a rule combines the criteria that are listed below it."""
VERDICT_STYLES = {"pass": "green", "inconclusive": "yellow", "invalid": "magenta"}
STYLES = {
    "promote": "green",
    "decline": "yellow",
    "stop": "yellow",
    "fall_back": "yellow",
    "fail": "red",
    "succeeded": "green",
    "running": "cyan",
    "at_gate": "blue",
    "stopped": "yellow",
    "paused": "yellow",
    "failed": "red",
    "cancelled": "magenta",
}


def number(value: object, spec: str = ".3f") -> str:
    """A number in the form of `spec`; what is not finite comes as a word and stays one."""
    if value is None:
        return NOTHING
    return format(value, spec) if isinstance(value, int | float) else str(value)


def short(value: object) -> str:
    """A large number in few signs: 950, 12.3k, 4.56M."""
    if not isinstance(value, int | float):
        return number(value)
    for limit, letter, size in ((999.5e6, "G", 1e9), (999.5e3, "M", 1e6), (999.5, "k", 1e3)):
        if abs(value) >= limit:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """`0:42`, `1:02:03`."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def when(text: str | None) -> str:
    """An RFC 3339 time to the minute, in UTC."""
    if text is None:
        return NOTHING
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def run_name(run: Json, *, several_seeds: bool) -> str:
    """The variant, with its seed where there is more than one: as EXP/variant/seed is typed."""
    return f"{run['variant']}/{run['seed']}" if several_seeds else str(run["variant"])


def has_several_seeds(runs: list[Json]) -> bool:
    return len({run["seed"] for run in runs}) > 1


def no_experiment(status: str | None = None, name: str | None = None) -> str:
    """That a list of experiments is empty, chosen by these."""
    if status:
        return f"no experiment named `{name}` is {status}" if name else f"no experiment is {status}"
    if name:
        return f"no experiment is named `{name}`"
    return "there is no experiment yet: `assay submit FILE` makes one"


def budget_line(budget: Json | None) -> str:
    """What of the budget is spent and promised, or an empty line."""
    if budget is None:
        return ""
    spent, committed = budget["spent"], budget["committed"]
    return f"budget {budget['slot_hours']:g} slot-hours: {spent:.2f} spent, {committed:.2f} promised"


def decision_head(decision: Json, *, several_seeds: bool) -> str:
    """`aux-0.0 promoted at step 1,000 (screen)`, with the author where it is a person."""
    done = DONE.get(decision["kind"], decision["kind"])
    by = "" if decision["author"] == "policy" else f" by {str(decision['author']).removeprefix('user:')}"
    name = run_name(decision, several_seeds=several_seeds)
    return f"{name} {done} at step {decision['step']:,} ({decision['stage']}){by}"


def decision_sentence(decision: Json, *, several_seeds: bool) -> str:
    return f"{decision_head(decision, several_seeds=several_seeds)}: {decision['text']}"


def why_in_short(run: Json) -> str:
    """The reason of a run's status as one sentence."""
    if run.get("detail") or run.get("reason"):
        return str(run.get("detail") or run["reason"].replace("_", " "))
    return f"{run['status'].replace('_', ' ')}, step {run['step']:,} of {run['target_step']:,}"


def criterion_lines(criterion: Json, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """(depth, verdict, sentence) of a criterion and, below it, of its parts."""
    parts = criterion.get("parts") or []
    text = RULES_IN_WORDS.get(criterion.get("how") or "", str(criterion["text"]))
    yield depth, criterion["verdict"], f"{criterion['name'].replace('_', ' ')}: {text}"
    for part in parts:
        yield from criterion_lines(part, depth + 1)
