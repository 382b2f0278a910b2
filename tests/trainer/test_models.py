"""Models against formulas, against transformers' GPT-2, and experts against their naive form."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from trainer_rigs import tiny_config

from trainer.export.gpt2 import gpt2_config, gpt2_tensors
from trainer.facts import flops_per_token, parameters_total, validate
from trainer.models.build import build
from trainer.models.transformer import LanguageModel
from trainer.parts import parameters_by_part

PARTS = [
    (r"tokens", "embeddings"),
    (r"positions", "positions"),
    (r"head", "head"),
    (r"stack\.(depth_embedding|norms|routers|ffns)\b", "depth_index"),
    (r"norm\.|.*\.norms\.", "norms"),
    (r".*\.attention\.", "attention"),
    (r".*\.ffn\.router\.", "router"),
    (r".*\.ffn\.experts\.", "experts"),
    (r".*\.ffn\.", "feed_forward"),
]
"""The first that fits a name says which part it belongs to."""
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
    assert parameters_by_part(config) == parts_of(built, parameters_by_part(config))


def parts_of(model: LanguageModel, parts: dict[str, int]) -> dict[str, int]:
    """The same counted over torch's parameters by their names."""
    counts = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():
        (part,) = [part for pattern, part in PARTS if re.match(pattern, name)][:1]
        counts[part] += parameter.numel()
    return counts


def test_the_half_shape_costs_1_40_times_the_dense_half() -> None:
    ratio = flops_per_token(_half("recurrent_shared_moe", MOE)) / flops_per_token(
        _half("dense", n_inner=2048)
    )
    assert ratio == pytest.approx(1.40, abs=0.005)


@pytest.mark.parametrize("tied", [True, False])
def test_the_dense_model_is_gpt2_in_logits_and_gradients(tied: bool) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = validate(tiny_config(model={"tied": tied, "dropout": 0.0, "n_inner": 24, "norm_eps": 1e-4}))
    torch.manual_seed(0)
    ours = build(config)
    theirs = GPT2LMHeadModel(GPT2Config(**gpt2_config(config))).train()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # biases and norms too
    absent = theirs.load_state_dict(gpt2_tensors(ours.state_dict()), strict=False)
    assert (absent.missing_keys, absent.unexpected_keys) == (["lm_head.weight"] if tied else [], [])
    ids = torch.randint(256, (3, 16))

    logits = ours(ids).logits
    functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    output = theirs(ids, labels=ids)
    output.loss.backward()

    torch.testing.assert_close(logits, output.logits, rtol=1e-5, atol=2e-6)
    gradients = gpt2_tensors({name: gradient_of(p) for name, p in ours.named_parameters()})
    expected = {name: gradient_of(p) for name, p in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


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


def test_a_dense_and_an_moe_model_share_everything_but_the_feed_forward() -> None:
    def rest(kind: str, moe: dict[str, Any] | None, **model: Any) -> dict[str, torch.Size]:
        with torch.device("meta"):
            built = build(_half(kind, moe, **model))
        kept = ((n, p) for n, p in built.named_parameters() if "norms" in n or ".ffn." not in n)
        return {name: p.shape for name, p in kept}

    dense = rest("recurrent_indexed", None, ffn="dense", n_inner=2048)
    assert dense == rest("recurrent_indexed", MOE)
    assert rest("dense", None, n_inner=2048) == rest("dense", MOE, ffn="moe")
    assert len(dense) == 3 + 2 + 4 + 4 + 1  # embeddings and head, norm; attention, norms, depth
