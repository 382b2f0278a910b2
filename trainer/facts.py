"""Facts of a config by formula, and `check`: a config is accepted or every problem is named.

Imports no tensor library: the service calls `check` while a person waits.
"""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.protocol.kind import ConfigFacts, ConfigProblem
from orchestrator.protocol.wire import JsonObject
from trainer.config import BYTES_VOCABULARY, Config, TokenizerConfig
from trainer.parts import expert_parameters, parameters_by_part
from trainer.text.sources import absolute_folder, absolute_source, source_problems, unused_fields

PRESETS: dict[str, tuple[str, str, str]] = {
    # kind: depth, depth_index, ffn
    "dense": ("stacked", "none", "dense"),
    "recurrent_shared_moe": ("recurrent", "none", "moe"),
    "recurrent_indexed": ("recurrent", "embedding", "moe"),
}
GPT2_VOCABULARY = 50_257
Problems = list[tuple[str, str]]


def check(config: JsonObject) -> ConfigFacts:
    """What `config` amounts to, every default filled in. Raises `ConfigProblem` with all that is wrong."""
    complete = validate(config)
    return ConfigFacts(
        config=complete.model_dump(mode="json"),
        parameters_total=parameters_total(complete),
        parameters_active=parameters_active(complete),
        flops_per_token=flops_per_token(complete),
        tokens_per_step=complete.tokens_per_step,
        schedule_family=complete.schedule.family,
        rows_per_pass=complete.train.batch_size,
    )


def validate(config: JsonObject, *, with_source: bool = True) -> Config:
    """The complete config. Raises `ConfigProblem`; `with_source` also looks for the text on disk."""
    try:
        parsed = Config.model_validate(config)
    except ValidationError as error:
        raise ConfigProblem([_explain(e) for e in error.errors()]) from None
    filled = _fill(parsed)
    problems = (
        _model_problems(filled) + _moe_problems(filled) + _data_problems(filled) + _loop_problems(filled)
    )
    if with_source:
        problems += source_problems(filled.data)
    if problems:
        raise ConfigProblem(problems)
    return filled


# --- formulas -------------------------------------------------------------------------------------


def parameters_total(config: Config) -> int:
    """Every trained number, shared ones counted once."""
    return sum(parameters_by_part(config).values())


def parameters_active(config: Config) -> int:
    """Those that one token can touch: of each set of experts, `top_k`."""
    if config.moe is None:
        return parameters_total(config)
    sets = config.model.n_layer if _owns_ffn_per_layer(config) else 1
    idle = config.moe.num_experts - config.moe.top_k
    return parameters_total(config) - sets * idle * expert_parameters(config)


def flops_per_token(config: Config) -> float:
    """Forward pass: 2 per weight that a token is multiplied with, at every depth application.

    Attention scores are left out: they depend on the context alone and are the same for every variant.
    """
    m, c = config.model, config.model.n_embd
    ffn = 2 * c * config.n_inner
    if config.moe:
        ffn = config.moe.top_k * 2 * c * config.moe.d_ff + c * config.moe.num_experts
    return float(2 * (m.n_layer * (4 * c * c + ffn) + c * config.vocab_size))


def attention_flops_per_token(config: Config) -> float:
    """Forward pass: scores and weighted values over a full window, causal masking not counted as saving."""
    m = config.model
    return float(4 * m.n_layer * config.sequence_length * m.n_embd)


def _owns_ffn_per_layer(config: Config) -> bool:
    return config.model.depth == "stacked" or config.model.depth_index == "ffn"


# --- defaults that depend on other fields ------------------------------------------------------------


def _fill(config: Config) -> Config:
    """The config with presets and dependent defaults written out."""
    depth, depth_index, ffn = PRESETS[config.model.kind]
    model = config.model.model_copy(
        update={
            "depth": config.model.depth or depth,
            "depth_index": config.model.depth_index or depth_index,
            "ffn": config.model.ffn or ffn,
        }
    )
    if model.ffn == "dense" and model.n_inner is None:
        model = model.model_copy(update={"n_inner": 4 * model.n_embd})
    known = {"bytes": BYTES_VOCABULARY, "gpt2": GPT2_VOCABULARY}.get(config.data.tokenizer.kind)
    tokenizer = config.data.tokenizer
    tokenizer = tokenizer.model_copy(
        update={
            "vocab_size": tokenizer.vocab_size or known,
            "path": tokenizer.path and absolute_folder(tokenizer.path),
        }
    )
    data = config.data.model_copy(
        update={
            "source": absolute_source(config.data.source),
            "tokenizer": tokenizer,
            "sequence_length": config.data.sequence_length or model.n_positions,
        }
    )
    return config.model_copy(update={"model": model, "data": data})


# --- problems across fields ------------------------------------------------------------------------


def _model_problems(config: Config) -> Problems:
    m = config.model
    problems = []
    if m.n_embd % m.n_head:
        fit = [h for h in range(1, m.n_embd + 1) if m.n_embd % h == 0]
        nearest = min(fit, key=lambda h: abs(h - m.n_head))
        problems.append(("model.n_head", f"{m.n_head} does not divide n_embd {m.n_embd}: use {nearest}"))
    if m.depth == "stacked" and m.depth_index != "none":
        problems.append(
            ("model.depth_index", "stacked layers know their depth: use 'none' or depth 'recurrent'")
        )
    if m.depth_index == "router" and m.ffn == "dense":
        problems.append(
            ("model.depth_index", "a dense feed-forward has no router: use 'embedding', 'norm' or 'ffn'")
        )
    if m.ffn == "moe" and m.n_inner is not None:
        problems.append(("model.n_inner", "an MoE model has no dense feed-forward: remove it, set moe.d_ff"))
    return problems


def _grouped_problems(config: Config) -> Problems:
    """What torch's grouped product cannot do."""
    moe, train = config.moe, config.train
    if moe is None or train.experts != "grouped":
        return []
    problems = [
        (name, f"experts 'grouped' needs a multiple of 8, not {size}: change it, or train.experts")
        for name, size in (("model.n_embd", config.model.n_embd), ("moe.d_ff", moe.d_ff))
        if size % 8
    ]
    if train.compile and train.precision == "fp32":
        problems.append(("train.compile", "experts 'grouped' compile in bf16 alone: set train.precision"))
    return problems


def _moe_problems(config: Config) -> Problems:
    moe = config.moe
    if moe is None:
        if config.model.ffn == "moe":
            return [("moe", f"model kind '{config.model.kind}' needs it: give num_experts, top_k and d_ff")]
        return []
    problems = []
    if config.model.ffn == "dense":
        problems.append(("moe", "the model is dense and has no experts: remove `moe`, or set it to null"))
    problems += _grouped_problems(config)
    if moe.top_k > moe.num_experts:
        problems.append(
            (
                "moe.top_k",
                f"{moe.top_k} is more than num_experts {moe.num_experts}: use {moe.num_experts} or fewer",
            )
        )
    if moe.num_experts < 2:
        problems.append(("moe.num_experts", "a router needs 2 or more experts: use 2, or a dense model"))
    if moe.aux_loss_coef_end is not None and moe.aux_decay_end_frac < moe.aux_warmup_frac:
        problems.append(
            ("moe.aux_decay_end_frac", f"ends before aux_warmup_frac {moe.aux_warmup_frac}: raise it")
        )
    return problems


def _data_problems(config: Config) -> Problems:
    tokenizer, problems = config.data.tokenizer, []
    if config.sequence_length > config.model.n_positions:
        problems.append(
            ("data.sequence_length",
             f"{config.sequence_length} is more than model.n_positions {config.model.n_positions}: lower it")
        )  # fmt: skip
    if tokenizer.kind == "bpe" and tokenizer.vocab_size is None:
        problems.append(
            ("data.tokenizer.vocab_size", "a bpe tokenizer needs its size: for a small text use 2048")
        )
    if (
        tokenizer.kind == "bpe"
        and tokenizer.vocab_size is not None
        and tokenizer.vocab_size <= BYTES_VOCABULARY
    ):
        problems.append(("data.tokenizer.vocab_size", "bpe starts from 256 bytes: use more, or kind 'bytes'"))
    return problems + _fixed_vocabulary(tokenizer) + unused_fields(config.data)


def _fixed_vocabulary(tokenizer: TokenizerConfig) -> Problems:
    known = {"bytes": BYTES_VOCABULARY, "gpt2": GPT2_VOCABULARY}.get(tokenizer.kind)
    problems = []
    if known and tokenizer.vocab_size not in (None, known):
        problems.append(
            ("data.tokenizer.vocab_size", f"'{tokenizer.kind}' has {known} ids: remove it, or use bpe")
        )
    if tokenizer.path and tokenizer.kind != "gpt2":
        problems.append(
            ("data.tokenizer.path", f"'{tokenizer.kind}' reads no files: remove it, or use kind 'gpt2'")
        )
    return problems


def _loop_problems(config: Config) -> Problems:
    s = config.schedule
    if s.horizon_steps is not None and s.warmup_steps is not None and s.warmup_steps >= s.horizon_steps:
        return [("schedule.warmup_steps", f"not below horizon_steps {s.horizon_steps}: lower it")]
    if config.tokens_per_step > 2**31:
        return [("train.batch_size", "more than 2^31 tokens per step: lower batch_size or accumulation")]
    return []


# --- words for pydantic's errors ---------------------------------------------------------------------


def _explain(error: ErrorDetails) -> tuple[str, str]:
    """(dotted field, message with the fix) for one error of the schema."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return field, f"unknown setting{_did_you_mean(field)}"
    if error["type"] == "missing":
        return field, "missing: it has no default, give it a value"
    if error["type"] == "finite_number":
        return field, "not a finite number: give a number"
    return field, f"{error['msg'][0].lower()}{error['msg'][1:]} (got {str(error['input'])[:60]!r})"


def _did_you_mean(field: str) -> str:
    known = known_fields(Config)
    by_last = {name.rpartition(".")[2]: name for name in known}
    last = field.rpartition(".")[2]
    if last in by_last:
        return f": did you mean '{by_last[last]}'?"
    close = difflib.get_close_matches(field, known, n=1, cutoff=0.6)
    if close:
        return f": did you mean '{close[0]}'?"
    near = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)
    if near:
        return f": did you mean '{by_last[near[0]]}'?"
    group = [name for name in known if name.rpartition(".")[0] == field.rpartition(".")[0]]
    return f": remove it; known here: {', '.join(group)}" if group else ": remove it"


def known_fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted name that a config may have, groups included."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        group = _group(field.annotation)
        if group is not None:
            names += known_fields(group, f"{prefix}{name}.")
    return names


def _group(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
