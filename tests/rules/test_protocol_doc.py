"""The protocol's page names every criterion and every field of a policy."""

import pytest
from rule_builders import ROOT

from orchestrator.rules.criteria import CRITERIA
from orchestrator.rules.policies import Policy

TEXT = (ROOT / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"not_diverged"}))
def test_every_criterion_and_its_numbers(name: str) -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}`"))
    for field, info in CRITERIA[name].params.model_fields.items():
        assert f"`{field}` {_written(info.default)}" in line.replace("`accelerator`", "accelerator"), field


@pytest.mark.parametrize("field", sorted(set(Policy.model_fields) - {"name", "version", "description"}))
def test_every_field_of_a_policy(field: str) -> None:
    assert f"`{field}" in TEXT


def _written(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)
