"""The balance loss against its definition, in every convention."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.models.balance import balance_loss

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
