"""The model that a config describes."""

from math import sqrt

from torch import nn

from trainer.config import Config
from trainer.models.moe import Experts, MoeFeedForward, Router
from trainer.models.recurrent import RecurrentBlock
from trainer.models.transformer import (
    INIT_STD,
    Attention,
    Block,
    DenseFeedForward,
    FeedForward,
    LanguageModel,
    Norms,
    StackedBlocks,
)


def build(config: Config) -> LanguageModel:
    """A freshly initialised model, from torch's global generator: seed it first."""
    m = config.model
    return LanguageModel(
        vocab=config.vocab_size,
        width=m.n_embd,
        positions=m.n_positions,
        dropout=m.dropout,
        tied=m.tied,
        stack=_recurrent(config) if config.recurrent else _stacked(config),
    )


def _stacked(config: Config) -> nn.Module:
    return StackedBlocks([_block(config) for _ in range(config.model.n_layer)])


def _recurrent(config: Config) -> nn.Module:
    m = config.model
    stack = RecurrentBlock(_block(config), m.n_layer, depth_embedding=m.depth_index == "embedding")
    others = range(m.n_layer - 1)
    if m.depth_index == "norm":
        stack.norms.extend(Norms(m.n_embd) for _ in others)
    if m.depth_index == "router":
        stack.routers.extend(_router(config) for _ in others)
    if m.depth_index == "ffn":
        stack.ffns.extend(_ffn(config) for _ in others)
    return stack


def _block(config: Config) -> Block:
    m = config.model
    attention = Attention(m.n_embd, m.n_head, m.dropout, _out_std(config))
    return Block(attention, _ffn(config), Norms(m.n_embd))


def _ffn(config: Config) -> FeedForward:
    m, moe = config.model, config.moe
    if moe is None:
        return DenseFeedForward(m.n_embd, config.n_inner, m.dropout, _out_std(config))
    experts = Experts(moe.num_experts, m.n_embd, moe.d_ff, INIT_STD, _out_std(config))
    return MoeFeedForward(_router(config), experts, m.dropout)


def _router(config: Config) -> Router:
    assert config.moe is not None, "only an MoE has routers"  # noqa: S101 - a bug here, never a config
    return Router(config.model.n_embd, config.moe.num_experts, config.moe.top_k, config.moe.router_init_std)


def _out_std(config: Config) -> float:
    # Two residual additions per layer: GPT-2's scale keeps the stream's variance at one.
    return INIT_STD / sqrt(2 * config.model.n_layer)
