"""The table "Clause by clause" of docs/protocol.md is complete: rows have tests, and tests have a row."""

import re
from fnmatch import fnmatchcase

import pytest
from rule_builders import ROOT

from orchestrator.domain.spec_models import ExperimentSpec, StageSpec
from orchestrator.rules.criteria import CRITERIA
from orchestrator.rules.policies import Policy

TEXT = (ROOT / "docs" / "protocol.md").read_text().partition("## Clause by clause")[2]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TEXT.splitlines() if line[:1] == "|"][2:]
FILES = sorted((ROOT / "tests" / "rules").glob("test_clauses_*.py"))
TESTS = sorted(
    name
    for file in FILES
    for name in re.findall(r"def (test_(?:clause|protocol|policy)_\w+)", file.read_text())
)
GUARDS = ("diverged", "unhealthy_routing", "ties", "bands")


def patterns(row: list[str]) -> list[str]:
    return re.findall(r"`(test_[\w*]+)`", row[3])


def fields() -> set[str]:
    """Every name that the column of fields may hold."""
    found = set(Policy.model_fields) | {
        f"{name}.{field}" for name, criterion in CRITERIA.items() for field in criterion.params.model_fields
    }
    defaults = {name: Policy.model_fields[name].default for name in GUARDS}
    found |= {f"{name}.{field}" for name, guard in defaults.items() for field in type(guard).model_fields}
    return found | {f"spec.{field}" for field in {**ExperimentSpec.model_fields, **StageSpec.model_fields}}


def test_there_are_21_clauses_8_points_and_the_policies() -> None:
    """Names alone: what each says is in its tests."""
    clauses = [row[0] for row in ROWS if patterns(row)[0].startswith("test_clause_")]
    assert len(clauses) == 21
    assert [row[0][0] for row in ROWS if patterns(row)[0].startswith("test_protocol_")] == list("12345678")
    offered = {row[0].replace(" ", "-") for row in ROWS if patterns(row)[0].startswith("test_policy_")}
    shipped = {file.stem for file in (ROOT / "configs" / "policies").glob("*.json")}
    assert offered == shipped - {"stage-gate", "short-screen"}  # the clauses, and point 7


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_tests_and_fields_that_are_there(row: list[str]) -> None:
    assert len(row) == 4
    assert all(row)
    (pattern,) = patterns(row)
    assert any(fnmatchcase(name, pattern) for name in TESTS), pattern
    named = re.findall(r"`([\w.]+)`", row[2])
    assert named or row[2].startswith("none")
    assert set(named) - fields() == set()


@pytest.mark.parametrize("name", TESTS)
def test_every_test_of_a_clause_has_one_row(name: str) -> None:
    assert len([row[0] for row in ROWS if fnmatchcase(name, patterns(row)[0])]) == 1


def test_no_two_tests_have_one_name() -> None:
    assert len(set(TESTS)) == len(TESTS)
