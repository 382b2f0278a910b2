"""Experts in every way against the naive one and transformers' own, in outputs and gradients; capacity."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from trainer_rigs import tiny_config

from trainer.config import MoeConfig
from trainer.facts import validate
from trainer.models.build import build
from trainer.models.experts import Experts, choose, mix
from trainer.models.moe import MoeFeedForward, Router, Routing, expert_capacity

WIDTH, INNER, TOKENS = 8, 12, 17
WAYS = ("naive", "sorted", "grouped")


def moe(**changes: Any) -> MoeConfig:
    return MoeConfig(**{"num_experts": 5, "top_k": 2, "d_ff": INNER, "router_init_std": 0.5, **changes})


def layer(config: MoeConfig, how: str = "naive") -> MoeFeedForward:
    """The same weights for every way."""
    torch.manual_seed(0)
    experts = Experts(
        config.num_experts, WIDTH, config.d_ff, 0.3, 0.3, how, dropless=config.capacity_factor is None
    )
    torch.nn.init.normal_(experts.b_in)
    torch.nn.init.normal_(experts.b_out)
    return MoeFeedForward(Router(WIDTH, config), experts, 0.0)


def tokens(n: int = TOKENS) -> Tensor:
    return torch.randn(1, n, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()


def run(ffn: MoeFeedForward, depths: int = 1) -> tuple[Tensor, list[Tensor], list[Routing]]:
    """Output and every gradient of `depths` applications of one bank of experts."""
    x = tokens()
    y, bank, routings = x, ffn.experts.bank(), []
    for _ in range(depths):
        mixed, routing = ffn(y, bank)
        y = y + mixed
        routings.append(routing)
    gradients = torch.autograd.grad(y.square().mean(), [x, *ffn.parameters()])
    return y, list(gradients), routings


@pytest.mark.parametrize("depths", [1, 3])
@pytest.mark.parametrize("changes", [
    {}, {"top_k": 1, "renormalise": False}, {"top_k": 1}, {"top_k": 3}, {"capacity_factor": 0.6},
    {"num_experts": 64},  # more experts than assignments: some have no token
])  # fmt: skip
@pytest.mark.parametrize("how", WAYS[1:])
def test_every_way_equals_the_naive_one(how: str, changes: dict[str, Any], depths: int) -> None:
    config = moe(**changes)
    expected, expected_gradients, _ = run(layer(config), depths)
    output, gradients, _ = run(layer(config, how), depths)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)


def _loss_of(ffn: MoeFeedForward) -> tuple[Tensor, Tensor]:
    x = tokens()
    return x, ffn(x, ffn.experts.bank())[0].square().mean()


def test_one_graph_may_go_backward_twice() -> None:
    ffn = layer(moe(), "sorted")
    _, loss = _loss_of(ffn)
    first = torch.autograd.grad(loss, list(ffn.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(ffn.parameters()))
    torch.testing.assert_close(second, first, rtol=0, atol=0)


def test_what_an_unfinished_backward_pass_left_is_not_counted() -> None:
    ffn = layer(moe(), "sorted")
    _, loss = _loss_of(ffn)
    expected = torch.autograd.grad(loss, ffn.experts.w_in, retain_graph=True)[0]
    x, loss = _loss_of(ffn)
    torch.autograd.grad(loss, x, retain_graph=True)  # fills the ledger, and never asks for it
    torch.testing.assert_close(torch.autograd.grad(loss, ffn.experts.w_in)[0], expected, rtol=0, atol=0)


def test_weights_that_change_between_the_passes_are_noticed() -> None:
    ffn = layer(moe(), "sorted")
    _, loss = _loss_of(ffn)
    with torch.no_grad():
        ffn.experts.w_in.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_built_model_masks_what_it_drops() -> None:
    """Through `build`: rows that the grouped product leaves unwritten are 0 in both passes."""
    results = []
    for how in ("sorted", "grouped"):
        config = tiny_config("recurrent_shared_moe", model={"dropout": 0.0}, moe={"capacity_factor": 0.5})
        config["train"]["experts"] = how
        torch.manual_seed(0)
        model = build(validate(config))
        ids = torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(1))
        model(ids).logits.square().mean().backward()
        results.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_an_evaluation_drops_nothing() -> None:
    ffn = layer(moe(capacity_factor=0.25), "sorted")
    assert int(ffn(tokens())[1].dropped) > 0
    ffn.eval()
    assert int(ffn(tokens())[1].dropped) == 0


def test_experts_equal_transformers_own() -> None:
    """Mixtral's gated experts without biases are ours once tokens carry a 1.

    With it the gate has our bias, `up` is 1, and one more inner unit that is always 1 carries the other bias.
    """
    from transformers.models.mixtral.configuration_mixtral import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts

    ffn = layer(moe(), "sorted")
    weights, chosen, used, _ = ffn.router(tokens()[0])
    weights = weights.detach()
    mixtral = MixtralConfig(
        num_local_experts=5,
        hidden_size=WIDTH + 1,
        intermediate_size=INNER + 1,
        hidden_act="gelu_pytorch_tanh",
    )
    theirs = MixtralExperts(mixtral)
    ours = ffn.experts
    one = 1 / functional.gelu(torch.ones(()), approximate="tanh")
    gate_up, down = torch.zeros_like(theirs.gate_up_proj), torch.zeros_like(theirs.down_proj)
    gate_up[:, :INNER, :WIDTH], gate_up[:, :INNER, WIDTH] = ours.w_in.mT, ours.b_in
    gate_up[:, INNER, WIDTH], gate_up[:, INNER + 1 : -1, WIDTH], gate_up[:, -1, WIDTH] = 1, 1, one
    down[:, :WIDTH, :INNER], down[:, :WIDTH, INNER] = ours.w_out.mT, ours.b_out
    theirs.load_state_dict({"gate_up_proj": gate_up.detach(), "down_proj": down.detach()})

    x = tokens()[0].detach().requires_grad_()
    mine = mix(x, weights, chosen, used, ours.bank())
    y = tokens()[0].detach().requires_grad_()
    other = theirs(torch.cat((y, torch.ones(TOKENS, 1)), -1), chosen, weights)
    torch.testing.assert_close(mine, other[:, :WIDTH], rtol=1e-4, atol=1e-5)
    mine.square().mean().backward()
    other[:, :WIDTH].square().mean().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    g_in, g_out = theirs.gate_up_proj.grad, theirs.down_proj.grad
    for gradient, wanted in (
        (ours.w_in.grad, g_in[:, :INNER, :WIDTH].mT),
        (ours.b_in.grad, g_in[:, :INNER, WIDTH]),
        (ours.w_out.grad, g_out[:, :WIDTH, :INNER].mT),
        (ours.b_out.grad, g_out[:, :WIDTH, INNER]),
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_renormalised_weights_sum_to_one_and_top1_teaches_the_router_only_unnormalised() -> None:
    for renormalise in (True, False):
        ffn = layer(moe(top_k=1, renormalise=renormalise), "sorted")
        weights, *_ = ffn.router(tokens()[0])
        assert bool((weights.sum(-1) - 1).abs().max() < 1e-6) is renormalise
        _, gradients, _ = run(ffn)
        assert bool(gradients[1].abs().max() > 1e-4) is not renormalise


def test_capacity_drops_the_later_choices_and_counts_them() -> None:
    config = moe(num_experts=2, top_k=1, capacity_factor=0.5)
    router = Router(WIDTH, config)
    x = torch.ones(8, WIDTH)  # equal tokens: one expert gets them all
    _, experts, used, routing = router(x)
    assert expert_capacity(8, 2, 0.5) == 2
    kept = (experts < 2).flatten().tolist()
    assert kept == [True, True] + [False] * 6
    assert int(routing.dropped) == 6
    assert used.max() == 2
    assert routing.counts.max() == 8


def test_first_choices_go_before_second_ones() -> None:
    config = moe(num_experts=2, top_k=2, capacity_factor=0.5)
    router = Router(WIDTH, config)
    with torch.no_grad():
        router.weight.copy_(torch.stack((torch.ones(WIDTH), -torch.ones(WIDTH))))
    x = torch.cat((-torch.ones(2, WIDTH), torch.ones(2, WIDTH)))  # two tokens prefer each expert
    _, experts, _, _ = router(x)
    assert experts.tolist() == [[1, 2], [1, 2], [0, 2], [0, 2]]


def test_a_dropped_token_gets_nothing() -> None:
    config = moe(num_experts=2, top_k=1, capacity_factor=0.5)
    ffn = layer(config, "sorted")
    out, routing = ffn(torch.ones(1, 8, WIDTH))
    assert out[0, :2].abs().min() > 0
    assert out[0, 2:].abs().max() == 0
    assert int(routing.dropped) == 6


@pytest.mark.parametrize("how", WAYS)
def test_bf16_stays_near_fp32(how: str) -> None:
    expected, expected_gradients, _ = run(layer(moe()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, gradients, _ = run(layer(moe(d_ff=16), how)) if how == "grouped" else run(layer(moe(), how))
    if how == "grouped":  # rows of 12 bf16 values are no multiple of 16 bytes
        expected, expected_gradients, _ = run(layer(moe(d_ff=16)))
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.15)
    assert all(g.dtype is torch.float32 for g in gradients)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert functional.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0) > 0.99


def test_the_way_is_chosen_by_device_and_size() -> None:
    fits, odd = torch.Size((4, 16, 32)), torch.Size((4, 16, 30))
    assert choose("auto", torch.bfloat16, fits, hopper=True) == "grouped"
    assert choose("auto", torch.bfloat16, odd, hopper=True) == "sorted"
    assert choose("auto", torch.float32, fits, hopper=True) == "sorted"
    assert choose("auto", torch.bfloat16, fits, hopper=False) == "sorted"
    assert choose("naive", torch.bfloat16, fits, hopper=True) == "naive"


def test_nothing_is_routed_for_no_choice() -> None:
    ffn = layer(moe(), "sorted")
    x = tokens()[0]
    none = torch.full((TOKENS, 2), 5)
    out = mix(x, torch.ones(TOKENS, 2), none, torch.zeros(5, dtype=torch.int64), ffn.experts.bank())
    assert out.abs().max() == 0
