"""Every command that the documents show exists, with its options and arguments."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml
from doc_pages import PAGES, ROOT, blocks, commands, name_of, read

from orchestrator.cli.files import read_spec
from orchestrator.cli.main import app
from orchestrator.domain.expand import expand_variants
from orchestrator.domain.spec import parse_spec
from trainer.__main__ import _parser as trainer_parser
from trainer.facts import check

TARGETS = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
COMMANDS = typer.main.get_group(app).commands
SHOWN = [(name_of(page), words) for page in PAGES for words in commands(page.read_text())]


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command, or None."""
    program, first, *rest = words
    if program == "make":
        unknown = {first, *rest} - TARGETS
        return f"no target {', '.join(sorted(unknown))}" if unknown else None
    if program == "assay":
        return _assay_complaint(first, rest)
    return _trainer_complaint(rest[1:]) if [first, *rest[:1]] == ["-m", "trainer"] else None


def _trainer_complaint(arguments: list[str]) -> str | None:
    if not arguments:
        return None
    try:
        trainer_parser().parse_args(arguments)
    except SystemExit:
        return f"python -m trainer refuses {arguments}"
    return None


def _assay_complaint(name: str, arguments: list[str]) -> str | None:
    if name not in COMMANDS:
        return f"no command {name}"
    if not arguments:
        return None  # named in a sentence
    try:
        COMMANDS[name].make_context(name, arguments)
    except Exception as error:
        return str(getattr(error, "message", error)) or repr(error)
    return None


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[f"{page}: {' '.join(w)}"[:90] for page, w in SHOWN])
def test_a_command_that_is_shown_exists(page: str, words: list[str]) -> None:
    assert complaint(words) is None


def test_commands_are_found_and_wrong_ones_are_seen() -> None:
    shown = [words[:2] for page, words in SHOWN if page == "README.md"]
    assert {tuple(words) for words in shown} >= {("make", "demo"), ("make", "test"), ("assay", "submit")}
    calls = ["ASSAY_HOME=x .venv/bin/assay serv", "make demos", "assay logs run_1 --folow", "make test"]
    calls += ["python -m trainer train --config c.json", "python -m trainer describe --config c.json"]
    text = "\n".join(["```", *calls, "```", "`assay why`, `assay ls -x`"])
    assert [complaint(words) is None for words in commands(text)] == [False] * 3 + [
        True,
        False,
        True,
        True,
        False,
    ]


def test_every_make_target_of_the_readmes_help_has_its_line() -> None:
    described = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))
    assert described >= {"demo", "test", "lint", "serve", "acceptance", "help"}


def test_the_spec_in_the_readme_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    (document,) = blocks(read("README.md"), "yaml")
    base = ROOT / yaml.safe_load(document)["base"]
    file.write_text(document.replace(yaml.safe_load(document)["base"], str(base)))
    spec = parse_spec(read_spec(file))
    assert len(expand_variants(spec, check).variants) == 3


def test_the_specs_that_are_named_are_there() -> None:
    named = set(re.findall(r"configs/[\w./-]+\.(?:yaml|json)", "".join(page.read_text() for page in PAGES)))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
