"""docs/faults.md: 34 faults, in order, each with a test that exists."""

import ast
import re

from doc_pages import ROOT, read, table_rows

ROWS = [row for row in table_rows(read("docs/faults.md")) if row[0].isdigit()]
TESTS = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1]) for row in ROWS]


def functions(file: str) -> set[str]:
    """The functions that a file defines at its top."""
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_34_in_order_and_each_row_is_whole() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 35))
    assert [row for row in ROWS if len(row) != 5 or not all(row)] == []


def test_every_fault_names_a_test_that_exists() -> None:
    assert [row[0] for row, named in zip(ROWS, TESTS, strict=True) if not named] == []
    missing = [
        f"{file}::{name}"
        for named in TESTS
        for file, name in named
        if not (ROOT / file).is_file() or name not in functions(file)
    ]
    assert missing == []


def test_no_test_stands_for_two_faults() -> None:
    named = [test for row in TESTS for test in row]
    assert len(named) == len(set(named))
