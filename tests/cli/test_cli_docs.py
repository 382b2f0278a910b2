"""docs/cli.md against the commands: none is missing, and no example or option is made up."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from orchestrator.cli.main import app

DOC = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
EXAMPLES = re.findall(r"\| `(assay [^`]+)` \|", DOC)


def found(group: Any, above: str = "") -> dict[str, Any]:
    """Every command that can be called, by its words: a group that does something by itself is one, too."""
    made = {}
    for name, command in group.commands.items():
        words = f"{above} {name}".strip()
        below = found(command, words) if hasattr(command, "commands") else {}
        alone = {words: command} if not below or command.invoke_without_command else {}
        made |= alone | below
    return made


KNOWN = found(typer.main.get_group(app))


def called(words: str) -> str:
    """The longest command that a line begins with."""
    return max((name for name in KNOWN if f"{words} ".startswith(f"{name} ")), key=len, default="")


def test_every_command_has_an_example() -> None:
    assert sorted(called(example.removeprefix("assay ")) for example in EXAMPLES) == sorted(KNOWN)


@pytest.mark.parametrize("row", [line for line in DOC.splitlines() if "`assay " in line and line[0] == "|"])
def test_every_option_in_the_docs_is_there(row: str) -> None:
    command = KNOWN[called(row.split("`")[1])]
    options = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--?[a-z]+(?:-[a-z]+)*\b", row)) <= options
