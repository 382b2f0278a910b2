"""docs/spec.md against the spec: every field has its row, and the example is accepted."""

import re
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.files import read_spec
from orchestrator.domain.errors import Invalid
from orchestrator.domain.expand import expand_variants
from orchestrator.domain.spec import ExperimentSpec, Promote, Resources, StageSpec, parse_spec
from trainer.facts import check

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "spec.md").read_text()
EXAMPLE = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    file = tmp_path / "spec.yaml"
    base = yaml.safe_load(EXAMPLE)["base"]
    file.write_text(EXAMPLE.replace(base, str(ROOT / base)))
    return file


def test_every_field_has_its_row() -> None:
    whole = set(ExperimentSpec.model_fields) - {"resources"}
    whole |= {f"resources.{name}" for name in Resources.model_fields}
    whole |= {f"stages[].{name}" for name in StageSpec.model_fields if name != "promote"}
    whole |= {f"stages[].promote.{name}" for name in Promote.model_fields}
    fields = DOC.partition("## Fields")[2].partition("## Overrides")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", fields, re.MULTILINE)) == whole


def test_the_example_is_accepted(spec_file: Path) -> None:
    variants = expand_variants(parse_spec(read_spec(spec_file)), check).variants
    assert [variant.name for variant in variants] == ["stacked", "narrow", "shared", "late"]


@pytest.mark.parametrize("line", ["budget: {}", "axes: {}"])
def test_what_is_not_there_yet_is_refused(spec_file: Path, line: str) -> None:
    spec_file.write_text(f"{spec_file.read_text()}{line}\n")
    with pytest.raises(Invalid, match="unknown key"):
        parse_spec(read_spec(spec_file))
