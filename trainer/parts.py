"""How many numbers each part of a model trains, by formula. Imports no tensor library."""

from trainer.config import Config

PARTS_PER_NORM = 2  # weight and bias


def parameters_by_part(config: Config) -> dict[str, int]:
    """Every trained number under the part that it belongs to, shared ones counted once."""
    m, c = config.model, config.model.n_embd
    blocks = m.n_layer if m.depth == "stacked" else 1
    return {
        "embeddings": config.vocab_size * c,
        "positions": m.n_positions * c,
        "head": 0 if m.tied else config.vocab_size * c,
        "attention": blocks * (4 * c * c + 4 * c),
        "norms": PARTS_PER_NORM * c + blocks * _norms(config),
        **{name: blocks * count for name, count in _feed_forward(config).items()},
        "depth_index": _depth_index(config),
    }


def expert_parameters(config: Config) -> int:
    """Weights and biases of one expert: `C -> F -> C`."""
    return _two_matrices(config.model.n_embd, config.moe.d_ff) if config.moe else 0


def _norms(config: Config) -> int:
    """The two of a block."""
    return 2 * PARTS_PER_NORM * config.model.n_embd


def _feed_forward(config: Config) -> dict[str, int]:
    """Of one block."""
    if config.moe is None:
        return {"feed_forward": _two_matrices(config.model.n_embd, config.n_inner)}
    experts = config.moe.num_experts
    return {"router": config.model.n_embd * experts, "experts": experts * expert_parameters(config)}


def _depth_index(config: Config) -> int:
    """What a recurrent block has more than once, beyond its first: depth 0 uses the block's own."""
    m, ffn = config.model, _feed_forward(config)
    others = m.n_layer - 1
    return {
        "none": 0,
        "embedding": m.n_layer * m.n_embd,
        "norm": others * _norms(config),
        "router": others * ffn.get("router", 0),
        "ffn": others * sum(ffn.values()),
    }[m.depth_index or "none"]


def _two_matrices(width: int, inner: int) -> int:
    return 2 * width * inner + inner + width
