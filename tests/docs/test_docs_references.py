"""The page of references against the code: formats, columns, keys, options, numbers."""

import re

import pytest
import typer.main
from doc_pages import read, table_rows

from orchestrator.cli.main import app
from orchestrator.domain.logs.mixture import EVALUATIONS_APART, LOSSES_APART
from orchestrator.domain.logs.moe import NAMES
from orchestrator.domain.logs.read import FORMATS, MOST_TRAIN_LOSSES
from orchestrator.domain.logs.tables import COLUMNS

PAGE = read("docs/references.md")
ROWS = {row[0]: row[1] for row in table_rows(PAGE)}
COMMAND = typer.main.get_group(app).commands["reference"].commands["import"]  # type: ignore[attr-defined]  # a group
OPTIONS = {option for parameter in COMMAND.params for option in parameter.opts}


def names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


@pytest.mark.parametrize(("what", "keys"), [*COLUMNS.items(), *NAMES.items()])
def test_every_name_that_is_read_is_in_its_row(what: str, keys: tuple[str, ...]) -> None:
    rows = [names(row[1]) for row in table_rows(PAGE) if row[0] == f"`{what}`"]
    assert keys in rows


def test_every_format_has_its_row() -> None:
    assert [name for name in FORMATS if f"`{name}`" not in ROWS] == []


def test_every_option_that_is_named_is_there_and_those_of_the_identity_have_rows() -> None:
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) <= OPTIONS | {"--variant", "--name"}
    wanted = ("--evaluation-set", "--tokenizer", "--schedule", "--horizon", "--tokens-per-step", "--like RUN")
    assert [name for name in wanted if f"`{name}`" not in ROWS] == []


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"more than {EVALUATIONS_APART} nats (training losses by {LOSSES_APART})" in PAGE
    assert f"thinned to {MOST_TRAIN_LOSSES:,}" in PAGE
