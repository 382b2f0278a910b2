"""What is worth knowing about a valid config before hours go into it. Imports no tensor library."""

from trainer.config import Config, MoeConfig
from trainer.schedules import warmup_steps

LARGE_LOGITS = 10**9  # bytes
FLOAT = 4


def advice(config: Config, horizon: int | None) -> list[str]:
    """Sentences, each with what to do; none for a config without surprises."""
    routers = _router(config.moe) if config.moe else []
    return [*routers, *_logits(config), *_positions(config), *_warm_up(config, horizon)]


def _router(moe: MoeConfig) -> list[str]:
    found = []
    balanced = max(moe.aux_loss_coef, moe.aux_loss_coef_end or 0.0) > 0
    if moe.top_k == 1 and moe.renormalise:
        found.append(
            f"moe.top_k 1 with renormalise: every weight is 1, and the router {_teachers(moe, balanced)}: "
            "set moe.renormalise=false to let the text teach it"
        )
    if not balanced and not moe.bias_update_rate:
        found.append("nothing balances the experts (moe.aux_loss_coef 0): watch the dead experts")
    if moe.capacity_factor is not None and moe.capacity_factor < 1:
        least = f"{1 - moe.capacity_factor:.0%}"
        found.append(f"moe.capacity_factor {moe.capacity_factor:g} drops {least} of assignments or more")
    return found


def _teachers(moe: MoeConfig, balanced: bool) -> str:
    if balanced:
        return "learns from the balance loss alone"
    return "learns from the z-loss alone" if moe.z_loss_coef else "never learns"


def _logits(config: Config) -> list[str]:
    rows, length = config.train.batch_size, config.sequence_length
    size = FLOAT * rows * length * config.vocab_size
    if size < LARGE_LOGITS:
        return []
    return [
        f"the logits of one forward pass ({rows} x {length} tokens x {config.vocab_size:,} ids) take "
        f"{size / 1e9:.1f} GB in fp32, and so does their gradient: "
        "lower train.batch_size and raise train.accumulation"
    ]


def _positions(config: Config) -> list[str]:
    unused = config.model.n_positions - config.sequence_length
    if not unused:
        return []
    return [
        f"the last {unused} of {config.model.n_positions} positions are never trained: "
        f"data.sequence_length is {config.sequence_length}"
    ]


def _warm_up(config: Config, horizon: int | None) -> list[str]:
    if horizon is None or (warm := warmup_steps(config.schedule, horizon)) < horizon:
        return []
    return [f"the learning rate still rises at the horizon: {warm:,} warm-up steps of {horizon:,}"]
