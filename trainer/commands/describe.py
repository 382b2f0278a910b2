"""What a config amounts to, by formula. Imports no tensor library: the answer comes at once."""

from orchestrator.protocol.wire import JsonObject
from trainer.commands.advice import advice
from trainer.commands.show import number
from trainer.config import Config, ScheduleConfig
from trainer.facts import attention_flops_per_token, check
from trainer.parts import parameters_by_part
from trainer.schedules import aux_coefficient, learning_rate, warmup_steps

BYTES_PER_TRAINED_NUMBER = 16  # weight, gradient and two moments in fp32
BACKWARD = 3  # forward and backward cost so many forward passes
FLOAT = 4  # bytes
FAR = 10**6  # a horizon where none is given: what is a fraction of it is the same at any other


def describe(config: JsonObject, horizon: int | None = None) -> dict[str, object]:
    """Counts, costs, schedules and warnings. Raises `ConfigProblem`.

    `horizon` goes before the config's own.
    """
    facts = check(config)
    complete = Config.model_validate(facts.config)
    horizon = horizon or complete.schedule.horizon_steps
    attention = attention_flops_per_token(complete)
    per_step = BACKWARD * (facts.flops_per_token + attention) * facts.tokens_per_step
    memory = memory_bytes(complete, facts.parameters_total)
    return {
        "kind": complete.model.kind,
        "parameters_total": facts.parameters_total,
        "parameters_active": facts.parameters_active,
        "parameters": parameters_by_part(complete),
        "flops_per_token": facts.flops_per_token,
        "attention_flops_per_token": attention,
        "training_flops_per_step": per_step,
        "tokens_per_step": facts.tokens_per_step,
        **(_whole_run(horizon, facts.tokens_per_step, per_step) if horizon else {}),
        "memory_bytes": sum(memory.values()),
        "memory": memory,
        "schedule_family": facts.schedule_family,
        "schedule": schedule_line(complete, horizon),
        **_balance(complete),
        "warnings": advice(complete, horizon),
    }


def memory_bytes(config: Config, parameters: int) -> dict[str, int]:
    """An estimate for training in fp32: trained numbers with gradients and moments, and one forward pass."""
    m, tokens = config.model, config.train.batch_size * config.sequence_length
    inner = config.moe.top_k * config.moe.d_ff if config.moe else config.n_inner
    per_layer = 12 * m.n_embd + 2 * inner
    kept = m.n_layer * per_layer
    if config.train.gradient_checkpointing:
        kept = m.n_layer * m.n_embd + per_layer
    return {
        "weights_and_optimizer_bytes": BYTES_PER_TRAINED_NUMBER * parameters,
        "activations_bytes": FLOAT * tokens * kept,
        "logits_bytes": 2 * FLOAT * tokens * config.vocab_size,  # and their gradient
    }


def schedule_line(config: Config, horizon: int | None) -> str:
    """The learning rate over the run, in a sentence."""
    s, peak = config.schedule, config.optimizer.lr
    over = f"{horizon:,} steps" if horizon else "the horizon"
    end = number(learning_rate(s, peak, horizon or FAR, horizon or FAR))
    then = {
        "constant": "then holds",
        "wsd": f"holds, and falls to {end} over the last {s.decay_frac:.0%}",
    }.get(s.family, f"then falls to {end}")
    return f"{s.family} over {over}: rises to {number(peak)} in {_warm_up(s, horizon)}, {then}"


def _warm_up(schedule: ScheduleConfig, horizon: int | None) -> str:
    if horizon is None and schedule.warmup_steps is None:
        return f"the first {schedule.warmup_frac:.3g} of it"
    return f"{warmup_steps(schedule, horizon or FAR):,} steps"


def _whole_run(horizon: int, tokens: int, flops: float) -> dict[str, object]:
    return {
        "horizon_steps": horizon,
        "training_tokens": horizon * tokens,
        "training_flops": horizon * flops,
    }


def _balance(config: Config) -> dict[str, object]:
    """The balance loss's weight where the run starts and where it ends."""
    if config.moe is None:
        return {}
    start, end = (aux_coefficient(config.moe, step, FAR) for step in (0, FAR))
    return {"balance_coefficient": {"start": start, "end": end}}
