"""The documents as the tests read them: pages, code blocks, commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]
)
PROGRAMS = ("make", "assay", "python")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*", re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language; "" for those that name none, which hold commands."""
    return [body for found, body in _BLOCK.findall(text) if found == language]


def inline_code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))


def commands(text: str) -> Iterator[list[str]]:
    """Every call of `make`, `assay` and `python -m trainer` that a page shows, as program and arguments."""
    lines = [line for body in blocks(text, "") for line in body.replace("\\\n", " ").splitlines()]
    for line in [*lines, *inline_code(text)]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # a piece of prose or code with a lone quote
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if len(words) > 1 and (program := words[0].removeprefix(".venv/bin/")) in PROGRAMS:
            yield [program, *words[1:]]


def table_rows(text: str) -> list[list[str]]:
    """The cells of each row of each table, without heads and rulers."""
    lines = text.splitlines()
    rulers = {i for i, line in enumerate(lines) if re.fullmatch(r"\|(-+\|)+", line.replace(" ", ""))}
    rows = [i for i, line in enumerate(lines) if line.startswith("|") and not {i, i + 1} & rulers]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", lines[i])[1:-1]] for i in rows]


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
