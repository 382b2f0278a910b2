"""docs/spec.md against the spec: every field has its row, and the example is accepted."""

import json
import re
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.files import read_spec
from orchestrator.domain.expand import expand_variants
from orchestrator.domain.levels import expand_levels
from orchestrator.domain.spec import parse_spec
from orchestrator.domain.spec_models import Budget, ExperimentSpec, Promote, Resources, Retries, StageSpec
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
    whole = set(ExperimentSpec.model_fields) - {"resources", "budget", "retries"}
    whole |= {f"budget.{name}" for name in Budget.model_fields}
    whole |= {f"resources.{name}" for name in Resources.model_fields}
    whole |= {f"retries.{name}" for name in Retries.model_fields}
    whole |= {f"stages[].{name}" for name in StageSpec.model_fields if name != "promote"}
    whole |= {f"stages[].promote.{name}" for name in Promote.model_fields}
    fields = DOC.partition("## Fields")[2].partition("## Overrides")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", fields, re.MULTILINE)) == whole


def test_the_example_is_accepted(spec_file: Path) -> None:
    variants = expand_variants(parse_spec(read_spec(spec_file)), check).variants
    assert [variant.name for variant in variants] == ["stacked", "narrow", "shared", "late"]


BLOCKS = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)


def test_the_example_of_variants_that_wait_is_accepted() -> None:
    base = ROOT / "configs" / "trainer" / "recurrent_shared_moe_40e_top2_ff2048_wikitext103.json"
    document = yaml.safe_load(BLOCKS[1]) | {
        "name": "waits",
        "control": "aux-0.01",
        "base": json.loads(base.read_text()),
    }
    found = expand_variants(parse_spec(document), check)
    assert [waiter.name for waiter in found.waiting] == ["top1", "num_experts-20", "num_experts-60"]


def test_the_example_of_axes_is_what_it_says() -> None:
    axes = yaml.safe_load(re.findall(r"`(axes: \{.*?\})`", DOC)[0])["axes"]
    assert list(expand_levels(axes)) == ["aux_loss_coef-0.0", "aux_loss_coef-0.005", "lr-0.001"]
    names = list(expand_levels(axes, "full"))
    assert names == ["aux_loss_coef-0.0_lr-0.001", "aux_loss_coef-0.005_lr-0.001"]
    assert all(f"`{name}`" in DOC for name in names)
