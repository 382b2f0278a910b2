"""Links, anchors and the code that is named: all of it is there."""

import re
from pathlib import Path

import pytest
from doc_pages import PAGES, ROOT, inline_code, name_of, slug

SOURCES = sorted(
    file
    for top in ("orchestrator", "trainer", "migrations", "benchmarks")
    for file in (ROOT / top).rglob("*.py")
)
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def broken(page: Path, text: str) -> list[str]:
    """The relative links of a page that lead nowhere."""
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in links if "://" not in link and not _leads_somewhere(page, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not anchor or anchor in {
        slug(h) for h in re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    }


def unknown_code(text: str) -> list[str]:
    """Python files, with or without `:name`, that a page names and that are not there."""
    named = [code for code in inline_code(text) if re.fullmatch(r"[\w./]+\.py(:\w+)?", code)]
    return [code for code in named if not _is_there(*code.split(":"))]


def _is_there(path: str, name: str = "") -> bool:
    found = [file for file in [*SOURCES, ROOT / path] if f"/{file}".endswith(f"/{path}") and file.is_file()]
    return (
        any(re.search(rf"\b(def|class) {name}\b", file.read_text()) for file in found)
        if name
        else bool(found)
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_code_of_a_page(page: Path) -> None:
    assert broken(page, page.read_text()) == []
    assert unknown_code(page.read_text()) == []


def test_what_leads_nowhere_is_seen() -> None:
    text = "[a](docs/none.md) [b](docs/cli.md#nothing) [c](docs/cli.md) `rules/none.py`"
    text += " `rules/plan.py:nobody` `rules/plan.py:plan`"
    assert broken(ROOT / "README.md", text) == ["docs/none.md", "docs/cli.md#nothing"]
    assert unknown_code(text) == ["rules/none.py", "rules/plan.py:nobody"]


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [name_of(page) for page in ROOT.glob("docs/*.md")]
    assert [page for page in pages if f"({page})" not in text] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_parts(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.name[:4]}: ")
    assert re.findall(r"^## (Context|Decision|Consequences)$", text, re.MULTILINE) == [
        "Context",
        "Decision",
        "Consequences",
    ]


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
