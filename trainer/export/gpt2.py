"""The dense model under the names of transformers' GPT-2, which it is in every detail."""

from collections.abc import Mapping

from torch import Tensor

from trainer.config import Config

BLOCK = {
    "norms.attention": "ln_1",
    "norms.ffn": "ln_2",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
}
AROUND = {"tokens": "wte", "positions": "wpe", "norm": "ln_f"}


def is_gpt2(config: Config) -> bool:
    """Whether the model is one that `GPT2LMHeadModel` can hold."""
    return config.model.depth == "stacked" and config.model.ffn == "dense"


def gpt2_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors, or gradients, by the names of `GPT2LMHeadModel`. A tied head is none."""
    return dict(_renamed(name, tensor) for name, tensor in tensors.items())


def gpt2_config(config: Config) -> dict[str, object]:
    """What `GPT2Config` must be told; everything else is its default."""
    m = config.model
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_positions": m.n_positions,
        "n_embd": m.n_embd,
        "n_layer": m.n_layer,
        "n_head": m.n_head,
        "n_inner": config.n_inner,
        "resid_pdrop": m.dropout,
        "embd_pdrop": m.dropout,
        "attn_pdrop": m.dropout,
        "layer_norm_epsilon": m.norm_eps,
        "initializer_range": m.init_std,
        "tie_word_embeddings": m.tied,
    }


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name == "head":
        return "lm_head.weight", tensor
    module, _, kind = name.rpartition(".")
    if module in AROUND:
        return f"transformer.{AROUND[module]}.{kind}", tensor
    _, _, layer, part = module.split(".", 3)  # stack.blocks.<layer>.<part>
    if kind == "weight" and not part.startswith("norms"):
        tensor = tensor.T.contiguous()  # GPT-2 keeps (in, out)
    return f"transformer.h.{layer}.{BLOCK[part]}.{kind}", tensor
