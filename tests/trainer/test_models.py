"""Models against formulas, against transformers' GPT-2, and experts against their naive form."""

from typing import Any

import pytest
import torch
from trainer_rigs import tiny_config

from trainer.facts import flops_per_token, parameters_total, validate
from trainer.models.build import build

MOE = {"num_experts": 40, "top_k": 2, "d_ff": 2048}


def _half(kind: str, moe: dict[str, Any] | None = None, **model: Any) -> Any:
    config: dict[str, Any] = {
        "model": {"kind": kind, "n_embd": 512, "n_layer": 12, "n_head": 8, **model},
        "data": {"source": "pydoc", "tokenizer": {"kind": "gpt2"}},
    }
    return validate({**config, "moe": moe} if moe else config)


@pytest.mark.parametrize(
    ("kind", "moe", "model", "total"),
    [
        ("recurrent_shared_moe", MOE, {}, 137_050_112),
        ("recurrent_shared_moe", MOE, {"n_embd": 1024, "n_layer": 24}, 276_115_456),
        ("recurrent_shared_moe", MOE, {"n_embd": 768}, 206_320_640),
        ("recurrent_indexed", MOE, {}, 137_056_256),
        ("recurrent_indexed", MOE, {"depth_index": "norm"}, 137_072_640),
        ("recurrent_indexed", MOE, {"depth_index": "router"}, 137_275_392),
        ("recurrent_indexed", None, {"ffn": "dense", "n_inner": 2048, "depth_index": "ffn"}, 78_237_696),
        ("dense", None, {"n_inner": 2048}, 89_817_088),
        ("dense", None, {"n_inner": 2048, "tied": True}, 64_085_504),
    ],
)
def test_parameter_counts_by_formula_and_by_torch(
    kind: str, moe: dict[str, Any] | None, model: dict[str, Any], total: int
) -> None:
    config = _half(kind, moe, **model)
    with torch.device("meta"):
        built = build(config)
    assert parameters_total(config) == total
    assert sum(p.numel() for p in built.parameters()) == total


def test_the_half_shape_costs_1_40_times_the_dense_half() -> None:
    ratio = flops_per_token(_half("recurrent_shared_moe", MOE)) / flops_per_token(
        _half("dense", n_inner=2048)
    )
    assert ratio == pytest.approx(1.40, abs=0.005)


def test_the_dense_model_is_gpt2() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = validate(tiny_config(model={"tied": True, "dropout": 0.0}))
    torch.manual_seed(0)
    ours = build(config).eval()
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=256, n_positions=16, n_embd=16, n_layer=2, n_head=2, n_inner=64)
    ).eval()
    names = {
        "norms.attention": "ln_1", "norms.ffn": "ln_2", "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj", "ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj",
    }  # fmt: skip
    weights = {"wte.weight": ours.tokens.weight, "wpe.weight": ours.positions.weight}
    weights |= {"ln_f.weight": ours.norm.weight, "ln_f.bias": ours.norm.bias}
    for name, tensor in ours.stack.state_dict().items():
        _, layer, *rest = name.split(".")
        module, kind = ".".join(rest[:-1]), rest[-1]
        conv1d = kind == "weight" and "norms" not in module  # GPT-2 stores these transposed
        weights[f"h.{layer}.{names[module]}.{kind}"] = tensor.T if conv1d else tensor
    with torch.no_grad():
        theirs.transformer.load_state_dict(weights)
        ids = torch.randint(256, (3, 16))
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-6)


def test_positions_and_depths_see_the_past_alone() -> None:
    config = validate(tiny_config("recurrent_indexed", model={"depth_index": "router", "dropout": 0.0}))
    torch.manual_seed(0)
    model = build(config).eval()
    ids = torch.randint(256, (1, 16))
    changed = ids.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 256
    before, after = model(ids), model(changed)
    assert len(before.routings) == 2
    torch.testing.assert_close(before.logits[:, :10], after.logits[:, :10])
    assert not torch.allclose(before.logits[:, 10:], after.logits[:, 10:])
