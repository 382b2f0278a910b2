"""The model that a config describes."""

from math import sqrt

from torch import nn

from trainer.config import Config
from trainer.models.experts import Experts
from trainer.models.moe import MoeFeedForward, Router
from trainer.models.recurrent import RecurrentBlock
from trainer.models.transformer import (
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
        init_std=m.init_std,
        norm_eps=m.norm_eps,
        stack=_recurrent(config) if config.recurrent else _stacked(config),
    )


def _stacked(config: Config) -> nn.Module:
    blocks = [_block(config) for _ in range(config.model.n_layer)]
    return StackedBlocks(blocks, again=config.train.gradient_checkpointing)


def _recurrent(config: Config) -> nn.Module:
    m = config.model
    stack = RecurrentBlock(
        _block(config),
        m.n_layer,
        depth_std=m.init_std if m.depth_index == "embedding" else None,
        again=config.train.gradient_checkpointing,
    )
    others = range(m.n_layer - 1)
    if m.depth_index == "norm":
        stack.norms.extend(Norms(m.n_embd, m.norm_eps) for _ in others)
    if m.depth_index == "router":
        stack.routers.extend(_router(config) for _ in others)
    if m.depth_index == "ffn":
        stack.ffns.extend(_ffn(config) for _ in others)
    return stack


def _block(config: Config) -> Block:
    m = config.model
    attention = Attention(m.n_embd, m.n_head, m.dropout, m.init_std, _out_std(config))
    return Block(attention, _ffn(config), Norms(m.n_embd, m.norm_eps))


def _ffn(config: Config) -> FeedForward:
    m, moe = config.model, config.moe
    if moe is None:
        return DenseFeedForward(m.n_embd, config.n_inner, m.dropout, m.init_std, _out_std(config))
    experts = Experts(
        moe.num_experts, m.n_embd, moe.d_ff, m.init_std, _out_std(config), config.train.experts,
        dropless=moe.capacity_factor is None,
    )  # fmt: skip
    return MoeFeedForward(_router(config), experts, m.dropout)


def _router(config: Config) -> Router:
    assert config.moe is not None, "only an MoE has routers"  # noqa: S101 - a bug here, never a config
    return Router(config.model.n_embd, config.moe)


def _out_std(config: Config) -> float:
    m = config.model
    # Two residual additions per layer: GPT-2's scale keeps the stream's variance at one.
    return m.init_std / sqrt(2 * m.n_layer) if m.residual_init == "scaled" else m.init_std
