"""docs/cli.md against the commands: none is missing, and no example or option is made up."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from orchestrator.cli.main import COMMANDS, app

DOC = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
EXAMPLES = re.findall(r"\| `(assay [^`]+)` \|", DOC)
OPTIONS = {
    command.name: {option for parameter in command.params for option in parameter.opts}
    for command in typer.main.get_group(app).commands.values()
}


def test_every_command_has_an_example() -> None:
    known = [command.__name__ for commands in COMMANDS.values() for command in commands]
    assert [shlex.split(example)[1] for example in EXAMPLES] == known


@pytest.mark.parametrize("row", [line for line in DOC.splitlines() if "`assay " in line and line[0] == "|"])
def test_every_option_in_the_docs_is_there(row: str) -> None:
    name = row.split("`")[1].split()[0]
    assert set(re.findall(r"(?<![\w-])--?[a-z]+\b", row)) <= OPTIONS[name]
