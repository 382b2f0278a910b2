"""Following an experiment to its end: one look every half second, on a terminal as bars, else as lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.cli.bars import render
from orchestrator.cli.client import Client, Json
from orchestrator.cli.errors import OutOfReach, Refused
from orchestrator.cli.progress import Look, Watched, changes, ending, told
from orchestrator.cli.sentences import STYLES

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0
ROOM_FOR_TEXT = 8


class Screen(Protocol):
    """Where a watch is shown."""

    def show(self, before: Look | None, watched: Watched) -> None:
        """One more look."""

    def tell(self, kind: str, sentence: str) -> None:
        """A decision as it falls."""

    def away(self, sentence: str) -> None:
        """The service does not answer; an empty sentence: it does again."""


class Lines:
    """For pipes and logs: one line for every change."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, before: Look | None, watched: Watched) -> None:
        if watched.look is not None:
            for line in changes(before, watched.look):
                self._line(line)

    def tell(self, kind: str, sentence: str) -> None:
        self._line(f"decision: {sentence}")

    def away(self, sentence: str) -> None:
        self._line(sentence or "the service answers again")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class Bars:
    """For a terminal: bars that stay in place, with the decisions above them."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._watched = Watched()

    def show(self, before: Look | None, watched: Watched) -> None:
        self._watched = watched
        self._draw()

    def tell(self, kind: str, sentence: str) -> None:
        self._console.print(Text.assemble(("● ", STYLES.get(kind, "")), sentence))

    def away(self, sentence: str) -> None:
        self._draw(sentence)

    def _draw(self, away: str = "") -> None:
        room = max(3, self._console.height - ROOM_FOR_TEXT)
        self._live.update(render(self._watched, room, self._console.width, away), refresh=True)


@contextmanager
def screen(console: Console) -> Iterator[Screen]:
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield Bars(console, live)


def follow(client: Client, experiment: str, console: Console, *, every: bool = False) -> Json:
    """The experiment as it ended. Raises `OutOfReach` when the service stays away for a minute."""
    with screen(console) as shown:
        watched = Watched()
        last_decision: str | None = None
        while True:
            look = _patient_look(client, experiment, last_decision, shown)
            if look.decisions:
                last_decision = look.decisions[-1]["id"]
            for kind, sentence in told(look, every=every):
                shown.tell(kind, sentence)
            before, watched = watched.look, watched.then(look)
            shown.show(before, watched)
            if look.has_ended:
                break
            Event().wait(POLL_SECONDS)
    console.print(Text(ending(look.experiment), style="bold"), soft_wrap=not console.is_terminal)
    return look.experiment


def _patient_look(client: Client, experiment: str, after: str | None, shown: Screen) -> Look:
    gone_at: float | None = None
    while True:
        try:
            found = look_at(client, experiment, after)
        except (OutOfReach, Refused) as error:
            if isinstance(error, Refused) and not error.may_pass:
                raise
            if gone_at is None:
                gone_at = monotonic()
                shown.away(f"{error.lines[0]}; trying again for {PATIENCE_SECONDS:.0f} s")
            if monotonic() - gone_at > PATIENCE_SECONDS:
                raise
            Event().wait(POLL_SECONDS)
            client.reconnect()
        else:
            if gone_at is not None:
                shown.away("")
            return found


def look_at(client: Client, experiment: str, after: str | None) -> Look:
    """One look. The experiment is read first: once it has ended, what is read after that is final."""
    found = client.get(f"/v1/experiments/{experiment}")
    runs = client.items(f"/v1/experiments/{experiment}/runs")
    decisions = client.items("/v1/decisions", experiment_id=experiment, cursor=after)
    return Look(found, runs, decisions, monotonic())
