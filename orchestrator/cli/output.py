"""Where words go: tables and JSON to standard output, what went wrong to standard error."""

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from orchestrator.cli.errors import CliError


def console() -> Console:
    """Standard output as it is now; rich knows NO_COLOR, pipes and the window's width."""
    return Console(highlight=False)


def put(item: Any, as_json: bool, shape: Callable[[Any], RenderableType]) -> None:
    """The API's JSON as it came, or what `shape` makes of it."""
    if as_json:
        put_json(item)
    else:
        console().print(shape(item))


def put_json(item: Any, *, lines: bool = False) -> None:
    """As JSON; with `lines` on one line, for a stream of them."""
    print_plain(json.dumps(item, indent=None if lines else 2, ensure_ascii=False))


def print_plain(text: str, end: str = "\n") -> None:
    """Text as it is: never wrapped, styled or read as markup."""
    console().out(text, end=end, highlight=False)


def say(text: str) -> None:
    """A sentence for a person."""
    console().print(Text(text), soft_wrap=True)


def complain(error: CliError) -> None:
    """What went wrong, the first line marked."""
    out = Console(stderr=True, highlight=False)
    first, *rest = error.lines
    out.print(Text.assemble(("error: ", "bold red"), first), soft_wrap=True)
    for line in rest:
        out.print(Text(line), soft_wrap=True)
