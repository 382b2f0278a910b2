"""Experts: E feed-forwards `C -> F -> C` with GELU and biases, computed in one of three equal ways.

`naive` is what it means. `sorted` groups tokens by expert and multiplies each group once; every application
of a model forward adds into one gradient buffer, so a block that is applied 12 times pays for one gradient
and not for 12. `grouped` hands the groups to torch's grouped matrix product: no count on the host.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trainer.models.rows import Permute, Spread, apply, sorting

Four = tuple[Tensor, Tensor, Tensor, Tensor]
"""w_in (E, C, F), b_in (E, F), w_out (E, F, C), b_out (E, C)."""

GROUPED_STRIDE_BYTES = 16
HOPPER = (9, 0)


class Experts(nn.Module):
    """The weights of E experts, stacked as (E, ., .) whatever computes with them."""

    def __init__(
        self,
        num_experts: int,
        width: int,
        inner: int,
        init_std: float,
        out_std: float,
        how: str = "auto",
        dropless: bool = True,
    ) -> None:
        super().__init__()
        self.how, self.dropless = how, dropless
        self.w_in = nn.Parameter(torch.randn(num_experts, width, inner) * init_std)
        self.b_in = nn.Parameter(torch.zeros(num_experts, inner))
        self.w_out = nn.Parameter(torch.randn(num_experts, inner, width) * out_std)
        self.b_out = nn.Parameter(torch.zeros(num_experts, width))

    def bank(self) -> "Bank":
        """The weights as one model forward uses them: call once per forward, not once per application."""
        dtype = _compute_dtype(self.w_in)
        # Cast once per forward: a block that is applied 12 times would otherwise cast 12 times.
        w_in, b_in, w_out, b_out = (w.to(dtype) for w in (self.w_in, self.b_in, self.w_out, self.b_out))
        how = choose(self.how, dtype, self.w_in.shape, hopper=_is_hopper(self.w_in.device))
        return Bank(how, (w_in, b_in, w_out, b_out), dropless=self.dropless)


class Bank:
    """One model forward's view of the experts, and where its applications gather their gradients."""

    def __init__(self, how: str, weights: Four, *, dropless: bool) -> None:
        self.how, self.weights, self.dropless = how, weights, dropless
        if how == "sorted":
            self.ledger = _Ledger(weights)
            self.ticket = apply(_Gather, self.ledger, *weights)

    @property
    def size(self) -> int:
        return self.weights[0].shape[0]


def choose(how: str, dtype: torch.dtype, shape: torch.Size, *, hopper: bool) -> str:
    """The way for `auto`: grouped on Hopper or later in bf16 where the sizes fit, else sorted.

    Older hardware falls back to a loop that waits for the device at each group.
    """
    if how != "auto":
        return how
    fits = all(size * dtype.itemsize % GROUPED_STRIDE_BYTES == 0 for size in shape[1:])
    return "grouped" if hopper and dtype is torch.bfloat16 and fits else "sorted"


def mix(x: Tensor, weights: Tensor, chosen: Tensor, counts: Tensor, bank: Bank) -> Tensor:
    """Sum over k of `weights` (N, k) times the outputs of the `chosen` experts (N, k): (N, C), as `x`.

    `counts` (E) says how often each is chosen. An index of E stands for no expert: that output is 0.
    """
    rows = x.to(bank.weights[0].dtype)
    if bank.how == "naive":
        return _naive(rows, weights, chosen, bank.weights).to(x.dtype)
    n, k = chosen.shape
    order, inverse = sorting(chosen)
    grouped = apply(Spread, rows, order, inverse, k)  # (N*k, C)
    if bank.how == "sorted":
        detached = (w.detach() for w in bank.weights)  # their gradients go by the ticket
        outputs = apply(_Sorted, bank.ticket, bank.ledger, grouped, counts.tolist(), *detached)
    else:
        outputs = _grouped(grouped, counts, bank, chosen.reshape(-1)[order])
    mixed = apply(Permute, outputs, inverse, order).view(n, k, -1)  # (N, k, C)
    return (mixed * weights.unsqueeze(-1).to(mixed.dtype)).sum(1).to(x.dtype)


# --- naive: one token at a time -----------------------------------------------------------------------


def _naive(x: Tensor, weights: Tensor, chosen: Tensor, four: Four) -> Tensor:
    w_in, b_in, w_out, b_out = four
    outputs = []
    for token, token_weights, experts in zip(x, weights, chosen.tolist(), strict=True):
        total = torch.zeros_like(token)
        for weight, e in zip(token_weights, experts, strict=True):
            if e < len(w_in):
                inner = functional.gelu(token @ w_in[e] + b_in[e], approximate="tanh")
                total = total + weight.to(x.dtype) * (inner @ w_out[e] + b_out[e])
        outputs.append(total)
    return torch.stack(outputs)


# --- sorted: one product per expert, gradients gathered over the whole forward ------------------------------


class _Ledger:
    """Gradients of the experts over every application of one forward, each expert's made at its first use."""

    def __init__(self, weights: tuple[Tensor, ...]) -> None:
        self._like = [(w.shape, w.dtype, w.device) for w in weights]
        self.used: list[bool] = []
        self.gradients: tuple[Tensor, ...] | None = None
        self._pass = -1

    def open(self) -> tuple[Tensor, ...]:
        """Where gradients gather. What a backward pass that never came to its end has left is dropped."""
        this_pass = torch._C._current_graph_task_id()
        if self.gradients is None or self._pass != this_pass:
            self.gradients = tuple(torch.empty(s, dtype=t, device=d) for s, t, d in self._like)
            self.used = [False] * len(self.gradients[0])
            self._pass = this_pass
        return self.gradients

    def close(self) -> tuple[Tensor, ...]:
        """The gradients, zero for an expert that nothing reached; the ledger is empty again."""
        gradients = self.open()
        for e, used in enumerate(self.used):
            if not used:
                for gradient in gradients:
                    gradient[e].zero_()
        self.gradients = None
        return gradients


class _Gather(torch.autograd.Function):
    """A ticket that every application takes: its backward runs after all of theirs."""

    @staticmethod
    def forward(ctx: Any, ledger: _Ledger, *weights: Tensor) -> Tensor:
        ctx.ledger = ledger
        return weights[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.ledger.close())


class _Sorted(torch.autograd.Function):
    """Outputs (R, C) for rows (R, C) grouped by expert, `counts` rows each; rows past them give 0."""

    @staticmethod
    def forward(
        ctx: Any, _ticket: Tensor, ledger: _Ledger, rows: Tensor, counts: list[int], *weights: Tensor
    ) -> Tensor:
        w_in, b_in, w_out, b_out = weights
        spans = _spans(counts)
        inner, outputs = _room(rows, w_in.shape[2], counts), _room(rows, rows.shape[1], counts)
        for e, a, b in spans:
            torch.addmm(b_in[e], rows[a:b], w_in[e], out=inner[a:b])
        active = functional.gelu(inner, approximate="tanh")
        for e, a, b in spans:
            torch.addmm(b_out[e], active[a:b], w_out[e], out=outputs[a:b])
        ctx.save_for_backward(rows, inner, active, w_in, w_out)
        ctx.ledger, ctx.counts = ledger, counts
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, active, w_in, w_out = ctx.saved_tensors
        ledger: _Ledger = ctx.ledger
        g_in, gb_in, g_out, gb_out = ledger.open()
        spans = _spans(ctx.counts)
        grad_inner, grad_rows = (
            _room(inner, inner.shape[1], ctx.counts),
            _room(rows, rows.shape[1], ctx.counts),
        )
        for e, a, b in spans:
            torch.mm(grad[a:b], w_out[e].t(), out=grad_inner[a:b])
        grad_inner = torch.ops.aten.gelu_backward(grad_inner, inner, approximate="tanh")
        for e, a, b in spans:
            again = ledger.used[e]
            torch.mm(grad_inner[a:b], w_in[e].t(), out=grad_rows[a:b])
            _add_product(g_out[e], active[a:b], grad[a:b], again)
            _add_product(g_in[e], rows[a:b], grad_inner[a:b], again)
            _add_sum(gb_out[e], grad[a:b], again)
            _add_sum(gb_in[e], grad_inner[a:b], again)
            ledger.used[e] = True
        return grad.new_zeros(()), None, grad_rows, None, None, None, None, None


def _spans(counts: list[int]) -> list[tuple[int, int, int]]:
    """(expert, first row, row after the last) of each expert that has rows."""
    spans, start = [], 0
    for e, count in enumerate(counts):
        if count:
            spans.append((e, start, start + count))
        start += count
    return spans


def _room(like: Tensor, width: int, counts: list[int]) -> Tensor:
    """Uninitialised (R, width), but for the rows past the last group: those are 0."""
    room = like.new_empty(like.shape[0], width)
    room[sum(counts) :].zero_()
    return room


def _add_product(total: Tensor, left: Tensor, right: Tensor, again: bool) -> None:
    """`left.T @ right` added to `total`, or put in its place the first time: one pass over memory."""
    torch.addmm(total, left.t(), right, beta=int(again), out=total)


def _add_sum(total: Tensor, rows: Tensor, again: bool) -> None:
    if again:
        total += rows.sum(0)
    else:
        torch.sum(rows, 0, out=total)


# --- grouped: torch's grouped matrix product -------------------------------------------------------------


def _grouped(rows: Tensor, counts: Tensor, bank: Bank, owners: Tensor) -> Tensor:
    """As `_Sorted`; `owners` (R) is each row's expert, for the biases that the product does not add."""
    w_in, b_in, w_out, b_out = bank.weights
    ends = counts.cumsum(0).to(torch.int32)
    # A product with ones and zeros: the gradient of an index would add by index.
    ones = (owners.unsqueeze(-1) == torch.arange(bank.size, device=owners.device)).to(rows.dtype)  # (R, E)
    rows = _written(rows, ends, bank)
    inner = _written(functional.grouped_mm(rows, w_in, offs=ends) + ones @ b_in, ends, bank)
    outputs = functional.grouped_mm(functional.gelu(inner, approximate="tanh"), w_out, offs=ends)
    return _written(outputs + ones @ b_out, ends, bank)


def _written(rows: Tensor, ends: Tensor, bank: Bank) -> Tensor:
    """0 for the rows past the last group, in both passes: the product leaves them unwritten."""
    if bank.dropless:
        return rows
    return torch.where((torch.arange(len(rows), device=rows.device) < ends[-1]).unsqueeze(-1), rows, 0)


# --- shared ---------------------------------------------------------------------------------------


def _is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """What matrix products are done in here: autocast's type, or the weights' own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
