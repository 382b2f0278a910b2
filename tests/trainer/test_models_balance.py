"""The balance loss against its definition, in every convention."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trainer.config import MoeConfig
from trainer.models.balance import StepBalance, balance_loss, move_biases
from trainer.models.moe import Routing
from trainer.team import Team

UNIFORM = ([0.25] * 4, [2] * 4)
COLLAPSED = ([0.5, 0.5, 0, 0], [4, 4, 0, 0])  # top-2 of 4: E / k
OTHER = ([0, 0, 0.5, 0.5], [0, 0, 4, 4])


def loss(*depths: tuple[list[float], list[int]], pooled: bool = False, reduction: str = "mean") -> float:
    importance = torch.tensor([p for p, _ in depths])
    counts = torch.tensor([c for _, c in depths])
    return balance_loss(importance, counts, pooled=pooled, reduction=reduction).item()


def test_conventions() -> None:
    assert loss(UNIFORM) == pytest.approx(1.0)
    assert loss(COLLAPSED) == pytest.approx(2.0)
    assert loss(COLLAPSED, UNIFORM) == pytest.approx(1.5)
    assert loss(COLLAPSED, UNIFORM, reduction="sum") == pytest.approx(3.0)
    # Each depth has its own experts: unbalanced per application, balanced when pooled.
    assert loss(COLLAPSED, OTHER) == pytest.approx(2.0)
    assert loss(COLLAPSED, OTHER, pooled=True) == pytest.approx(1.0)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=12), st.data())
def test_it_is_e_times_the_dot_product_of_importance_and_load(counts: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 1000), min_size=len(counts), max_size=len(counts)))
    importance = [w / sum(weights) for w in weights]
    load = [c / sum(counts) for c in counts]
    expected = len(counts) * sum(p * f for p, f in zip(importance, load, strict=True))
    assert loss((importance, counts)) == pytest.approx(expected, rel=1e-4)


def _routing(logits: Tensor, top_k: int = 2) -> Routing:
    probabilities = logits.softmax(-1)
    chosen = probabilities.topk(top_k, -1).indices
    counts = torch.bincount(chosen.flatten(), minlength=logits.shape[-1])
    z = torch.logsumexp(logits, -1).square().mean()
    return Routing(probabilities, z, chosen, counts, torch.tensor(0), None)


def _brute_force(logits: Tensor, reduction: str, scope: str) -> Tensor:
    """The loss of all passes at once, (P, D, N, E), written from its definition."""
    p = logits.softmax(-1)
    chosen = p.topk(2, -1).indices
    experts = p.shape[-1]
    importance = p.mean((0, 2))  # (D, E)
    load = functional.one_hot(chosen, experts).sum((0, 2, 3)).float()
    load = load / load.sum(-1, keepdim=True)
    if scope == "pooled":
        one = experts * (importance.mean(0) * load.mean(0)).sum()
        return one * len(importance) if reduction == "sum" else one
    each = experts * (importance * load).sum(-1)
    return each.sum() if reduction == "sum" else each.mean()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scope", ["application", "pooled"])
@pytest.mark.parametrize("batch", ["global", "forward"])
def test_gradients_and_what_is_told_against_brute_force(reduction: str, scope: str, batch: str) -> None:
    passes, depths, count, experts = 3, 2, 10, 5
    config = MoeConfig(
        num_experts=experts, top_k=2, d_ff=4, aux_reduction=reduction, aux_scope=scope, aux_batch=batch
    )
    generator = torch.Generator().manual_seed(3)
    mine = (2 * torch.randn(passes, depths, count, experts, generator=generator)).requires_grad_()
    balance = StepBalance(config, Team())
    for one in mine:
        aux, _ = balance.add([_routing(depth) for depth in one])
        (aux / passes).backward()
    assert mine.grad is not None
    other = mine.detach().clone().requires_grad_()
    if batch == "global":
        whole = _brute_force(other, reduction, scope)
        whole.backward()
        assert balance.measured().aux.item() == pytest.approx(whole.item(), rel=1e-5)
        # The last pass has seen every load; those before it have seen those so far.
        torch.testing.assert_close(mine.grad[-1], other.grad[-1])
        assert functional.cosine_similarity(mine.grad.flatten(), other.grad.flatten(), dim=0) > 0.7
    else:
        mean = torch.stack([_brute_force(other[i : i + 1], reduction, scope) for i in range(passes)]).mean()
        mean.backward()
        assert balance.measured().aux.item() == pytest.approx(mean.item(), rel=1e-5)
        torch.testing.assert_close(mine.grad, other.grad)


def test_the_z_loss_is_a_mean_over_tokens_depths_and_passes() -> None:
    config = MoeConfig(num_experts=5, top_k=2, d_ff=4, z_loss_coef=1.0, aux_reduction="sum")
    logits = torch.randn(3, 2, 10, 5)
    balance = StepBalance(config, Team())
    for one in logits:
        balance.add([_routing(depth) for depth in one])
    expected = torch.logsumexp(logits, -1).square().mean()
    assert balance.measured().z.item() == pytest.approx(expected.item(), rel=1e-5)


def test_biases_move_once_per_router_by_all_its_applications() -> None:
    shared, own = torch.zeros(3), torch.zeros(3)
    at = _routing(torch.randn(4, 3))
    routings = [replace(at, bias=shared), replace(at, bias=shared), replace(at, bias=own)]
    move_biases(routings, torch.tensor([[9, 0, 0], [0, 8, 1], [0, 0, 9]]), 0.5)
    assert shared.tolist() == [-0.5, -0.5, 0.5]  # 9, 8 and 1 against a mean of 6
    assert own.tolist() == [0.5, 0.5, -0.5]
