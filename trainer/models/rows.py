"""Moving rows to their experts and back: gathers in both directions.

A gather's usual gradient adds by index, which is not deterministic on CUDA; these gather by the inverse.
"""

from typing import Any

import torch
from torch import Tensor


class Permute(torch.autograd.Function):
    """Rows in `order`; the backward pass gathers by its inverse."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class Spread(torch.autograd.Function):
    """Each row k times, grouped by expert: (N, C) -> (N*k, C). The backward pass unsorts and sums over k."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.k = k
        return rows.index_select(0, order // k)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unsorted = grad.index_select(0, ctx.saved_tensors[0])
        return unsorted.view(-1, ctx.k, grad.shape[-1]).sum(1), None, None, None


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """`function.apply` with a type."""
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


def sorting(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The order that groups assignments (N, k) by expert, stably, and its inverse: (N*k) each."""
    order = torch.argsort(chosen.reshape(-1), stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return order, inverse
