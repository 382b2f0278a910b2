"""The language model: embeddings, a stack of pre-norm blocks, a head. GPT-2 in its details."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.experts import Bank
from trainer.models.moe import MoeFeedForward, Router, Routing


@dataclass(frozen=True)
class Output:
    """Of one forward pass."""

    logits: Tensor
    """(B, T, V)"""
    routings: list[Routing]
    """One per application of a router; empty for a dense model."""


class Stack(Protocol):
    """What lies between the embeddings and the final norm."""

    def __call__(self, x: Tensor) -> tuple[Tensor, list[Routing]]: ...


class Attention(nn.Module):
    """Causal self-attention with biases."""

    def __init__(self, width: int, heads: int, dropout: float, std: float, out_std: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = linear(width, 3 * width, std)
        self.out = linear(width, width, out_std)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (
            self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        )  # (B, H, T, c)
        dropout = self.dropout if self.training else 0.0
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(b, t, c))
        return functional.dropout(y, self.dropout, self.training)


class DenseFeedForward(nn.Module):
    """`C -> F -> C` with GELU and biases."""

    def __init__(self, width: int, inner: int, dropout: float, std: float, out_std: float) -> None:
        super().__init__()
        self.up = linear(width, inner, std)
        self.down = linear(inner, width, out_std)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.down(functional.gelu(self.up(x), approximate="tanh")))
        return y


FeedForward = DenseFeedForward | MoeFeedForward


class Norms(nn.Module):
    """The two LayerNorms of a block."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.attention = nn.LayerNorm(width, eps)
        self.ffn = nn.LayerNorm(width, eps)


class Block(nn.Module):
    """Attention and a feed-forward, each behind its norm and around a residual."""

    def __init__(self, attention: Attention, ffn: FeedForward, norms: Norms) -> None:
        super().__init__()
        self.attention, self.ffn, self.norms = attention, ffn, norms

    def forward(self, x: Tensor) -> tuple[Tensor, Routing | None]:
        return apply_block(x, self.attention, self.ffn, self.norms)


def apply_block(
    x: Tensor,
    attention: Attention,
    ffn: FeedForward,
    norms: Norms,
    bank: Bank | None = None,
    router: Router | None = None,
) -> tuple[Tensor, Routing | None]:
    """One pre-norm block on (B, T, C), with parts that a recurrent stack may swap by depth."""
    x = x + attention(norms.attention(x))
    normed = norms.ffn(x)
    if isinstance(ffn, MoeFeedForward):
        y, routing = ffn(normed, bank, router)
        return x + y, routing
    return x + ffn(normed), None


def maybe_again(
    again: bool, block: Callable[..., tuple[Tensor, Routing | None]], *arguments: object
) -> tuple[Tensor, Routing | None]:
    """`block(*arguments)`; with `again`, its activations are computed once more in the backward pass."""
    if not (again and torch.is_grad_enabled()):
        return block(*arguments)
    from torch.utils.checkpoint import checkpoint

    result: tuple[Tensor, Routing | None] = checkpoint(block, *arguments, use_reentrant=False)
    return result


class StackedBlocks(nn.Module):
    """`n_layer` blocks, each with its own weights."""

    def __init__(self, blocks: list[Block], *, again: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.again = again
        """Keep one activation per layer and compute the rest again in the backward pass."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[Routing]]:
        routings = []
        for block in self.blocks:
            x, routing = maybe_again(self.again, block, x)
            routings += [routing] if routing is not None else []
        return x, routings


class LanguageModel(nn.Module):
    """Next-token logits from token ids."""

    def __init__(
        self,
        *,
        vocab: int,
        width: int,
        positions: int,
        dropout: float,
        tied: bool,
        init_std: float,
        norm_eps: float,
        stack: nn.Module,
    ) -> None:
        super().__init__()
        self.tokens = embedding(vocab, width, init_std)
        self.positions = embedding(positions, width, init_std)
        self.dropout = nn.Dropout(dropout)
        self.stack = stack
        self.norm = nn.LayerNorm(width, norm_eps)
        self.head = None if tied else nn.Parameter(torch.randn(vocab, width) * init_std)

    def forward(self, ids: Tensor) -> Output:
        """Logits (B, T, V) for `ids` (B, T)."""
        at = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.tokens(ids) + self.positions(at))  # (B, T, C)
        x, routings = self.stack(x)
        head = self.tokens.weight if self.head is None else self.head
        return Output(functional.linear(self.norm(x), head), routings)


def linear(inputs: int, outputs: int, std: float) -> nn.Linear:
    """A linear layer with weights N(0, std) and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def embedding(rows: int, width: int, std: float) -> nn.Embedding:
    """An embedding with weights N(0, std)."""
    layer = nn.Embedding(rows, width)
    nn.init.normal_(layer.weight, std=std)
    return layer
