"""The specs of configs/experiments: the service accepts each, with its variants, and they compare equals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import World

from orchestrator.cli.files import read_spec
from orchestrator.domain.expand import Variant, expand_variants
from orchestrator.domain.hashing import content_hash
from orchestrator.domain.spec import parse_spec
from orchestrator.services.context import Context, Trainer
from orchestrator.services.preview import preview
from orchestrator.store.database import Database
from trainer.facts import check

ROOT = Path(__file__).parents[2]
SPECS = {path.stem: path for path in sorted((ROOT / "configs" / "experiments").glob("*.yaml"))}
OLDER = {"demo", "protocol-tiny"}
AUX = {"aux-0.0", "aux-0.005", "aux-0.01", "aux-0.02"}
INDEXED = {"indexed-embedding", "indexed-norm", "indexed-router", "indexed-dense"}
STAGES = {"screen": 1000, "confirm": 5000, "long": 20_000}
EXPECTED = {
    # file: its control and the others
    "a1-aux-loss": ("aux-0.01", AUX),
    "a2-top-k": ("top2", {"top1", "top1-unnormalised"}),
    "a3-num-experts": ("experts-40", {"experts-20", "experts-60"}),
    "a4-d-ff": ("ff-2048", {"ff-1024", "ff-3072"}),
    "a5-depth": ("shared", INDEXED),
    "lean-matrix": ("aux-0.01", AUX | {"top1", "num_experts-20", "num_experts-60"}),
    "short-screen": ("full", {"top1", "experts-20", "ff-1024", "half"}),
    "half-parameter": ("full", {"half-aux-0.05", "half-aux-0.03", "midsize-aux-0.05", "dense"}),
}
TINY = {"experts-20": "experts-4", "experts-40": "experts-8", "experts-60": "experts-12",
        "num_experts-20": "num_experts-4", "num_experts-60": "num_experts-12",
        "ff-1024": "ff-64", "ff-2048": "ff-128", "ff-3072": "ff-192"}  # fmt: skip
BIG_MOE = "recurrent_shared_moe_40e_top2_ff2048_wikitext103"
CANNOT_FIRE = "so it cannot fire in screen"  # two evaluations in a screen of 1,000 steps: the protocol's own


@pytest.fixture
def service(sqlite: Database, tmp_path: Path) -> Context:
    return replace(World(sqlite, tmp_path).context, trainers={"builtin": Trainer(("trainer",), check)})


def variants(name: str) -> dict[str, Variant]:
    return {v.name: v for v in expand_variants(parse_spec(read_spec(SPECS[name])), check).variants}


def file_hash(name: str, **schedule: object) -> str:
    """The hash that a variant has whose config is that file's, with another schedule if one is given."""
    config = json.loads((ROOT / "configs" / "trainer" / f"{name}.json").read_text())
    config["schedule"] |= schedule
    return content_hash(check(config).config)


def test_the_specs_are_these_and_their_twins() -> None:
    assert set(SPECS) == OLDER | set(EXPECTED) | {f"tiny-{name}" for name in EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
def test_variants_and_control(name: str) -> None:
    control, others = EXPECTED[name]
    for file, renamed in ((name, {}), (f"tiny-{name}", TINY)):
        spec = parse_spec(read_spec(SPECS[file]))
        assert spec.name == file
        assert spec.control == renamed.get(control, control)
        named = [name for stage in spec.stages for name in stage.names]
        assert sorted(named) == sorted(renamed.get(v, v) for v in {control, *others})


def test_the_lean_matrix_waits_for_its_results() -> None:
    found = expand_variants(parse_spec(read_spec(SPECS["lean-matrix"])), check)
    assert {variant.name for variant in found.variants} == AUX
    waiting = {waiter.name: waiter for waiter in found.waiting}
    assert set(waiting["top1"].sources) == AUX
    assert waiting["top1"].overrides == {"moe.top_k": 1}
    around = {name: waiter.overrides for name, waiter in waiting.items() if waiter.kind == "around_winner"}
    assert around == {
        "num_experts-20": {"moe.num_experts": 20},
        "num_experts-60": {"moe.num_experts": 60},
    }


@pytest.mark.parametrize("name", sorted(set(SPECS) - OLDER))
def test_the_service_plans_it_and_every_comparison_is_between_equals(name: str, service: Context) -> None:
    plan = preview(service, read_spec(SPECS[name]))
    assert [warning for warning in plan.warnings if CANNOT_FIRE not in warning] == []
    expanded = list(variants(name).values())
    assert len({v.facts.tokens_per_step for v in expanded}) == 1
    assert len({json.dumps([v.facts.config["schedule"], v.facts.config["data"]]) for v in expanded}) == 1


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"half-parameter", "short-screen"}))
def test_stages_are_the_protocols(name: str) -> None:
    spec = parse_spec(read_spec(SPECS[name]))
    assert {stage.name: stage.steps for stage in spec.stages} == STAGES
    assert (spec.eval_every, spec.policy) == (500, "stage-gate")


def test_the_short_screen_has_four_evaluations_and_its_own_policy() -> None:
    spec = parse_spec(read_spec(SPECS["short-screen"]))
    assert (spec.stages[0].steps, spec.eval_every, spec.policy) == (2000, 500, "short-screen")


def test_the_half_parameter_study_is_a_short_screen() -> None:
    spec = parse_spec(read_spec(SPECS["half-parameter"]))
    assert (spec.horizon, spec.eval_every, spec.policy) == (2000, 500, "short-screen")
    assert spec.base["schedule"]["horizon_steps"] == spec.horizon
    found = variants("half-parameter")
    full, half = (found[name].facts.parameters_total for name in ("full", "half-aux-0.03"))
    assert 40 <= 100 * (1 - half / full) <= 60  # the verdict bands speak of these


@pytest.mark.parametrize("name", EXPECTED)
def test_a_tiny_twin_asks_the_same_with_as_many_evaluations_before_its_first_gate(name: str) -> None:
    big, tiny = (parse_spec(read_spec(SPECS[file])) for file in (name, f"tiny-{name}"))
    assert [stage.name for stage in tiny.stages] == [stage.name for stage in big.stages]
    caps = [[stage.promote and stage.promote.best for stage in spec.stages] for spec in (big, tiny)]
    assert caps[0] == caps[1]
    assert (tiny.question, tiny.policy) == (big.question, big.policy)
    assert tiny.stages[0].steps // tiny.eval_every == big.stages[0].steps // big.eval_every
    for one, other in zip(big.stages, tiny.stages, strict=True):
        changed = [[set(v) for v in stage.static.values()] for stage in (one, other)]
        assert changed[0] == changed[1]
        assert set(one.around_winner) == set(other.around_winner)
        assert {name: dependent.set for name, dependent in one.dependents.items()} == {
            name: dependent.set for name, dependent in other.dependents.items()
        }
    if name == "half-parameter":
        assert tiny.base["schedule"]["horizon_steps"] == tiny.horizon


def test_variants_that_have_a_file_are_that_file() -> None:
    depth, half = variants("a5-depth"), variants("half-parameter")
    assert depth["shared"].config_hash == file_hash(BIG_MOE)
    assert depth["indexed-embedding"].config_hash == file_hash(
        "recurrent_indexed_moe_40e_top2_ff2048_wikitext103"
    )
    assert depth["indexed-dense"].config_hash == file_hash("recurrent_indexed_dense_ff4096_wikitext103")
    short = {"warmup_frac": 0.05, "horizon_steps": 2000}
    assert half["half-aux-0.03"].config_hash == file_hash(f"{BIG_MOE}_auxsched_v2_halfparams_aux003_short")
    assert half["midsize-aux-0.05"].config_hash == file_hash(f"{BIG_MOE}_auxsched_v2_midsize_short")
    assert half["dense"].config_hash == file_hash("dense_ff4096_wikitext103", **short)


def test_the_pool_is_resized_at_the_same_active_budget() -> None:
    """Only the router's rows differ: less than 1% of the FLOPs."""
    facts = [variant.facts for variant in variants("a3-num-experts").values()]
    moe = [dict(f.config["moe"]) for f in facts]
    assert {(m["top_k"], m["d_ff"]) for m in moe} == {(2, 2048)}
    assert max(f.flops_per_token for f in facts) / min(f.flops_per_token for f in facts) < 1.01
    assert max(f.parameters_total for f in facts) / min(f.parameters_total for f in facts) > 1.8
