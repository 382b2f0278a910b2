"""Schedules: pure functions of the step and the horizon. Nothing here has state to save."""

from math import cos, pi

from orchestrator.protocol.kind import ConfigProblem
from trainer.config import MoeConfig, ScheduleConfig, TrainConfig


def warmup_steps(config: ScheduleConfig, horizon: int) -> int:
    """Steps over which the rate rises; at least the first of them trains."""
    return config.warmup_steps if config.warmup_steps is not None else round(config.warmup_frac * horizon)


def decay_from_step(config: ScheduleConfig, horizon: int) -> int | None:
    """Where the last phase begins that lowers the rate; None for a family that has no such phase.

    Cosine and linear schedules fall all the way from the warm-up on.
    """
    if config.family != "wsd" or config.decay_frac == 0:
        return None
    return round(horizon * (1 - config.decay_frac))


def learning_rate(config: ScheduleConfig, peak: float, step: int, horizon: int) -> float:
    """The rate that step `step` (counted from 0) trains with; past the horizon, the last one."""
    warmup = warmup_steps(config, horizon)
    if step < warmup:
        return peak * (step + 1) / warmup
    final = config.final_lr_frac
    progress = min(1.0, (step - warmup) / max(1, horizon - warmup))
    if config.family == "constant":
        return peak
    if config.family == "linear":
        return peak * (1 - (1 - final) * progress)
    if config.family == "wsd":
        return peak * (1 - (1 - final) * _decay_progress(step, horizon, config.decay_frac))
    return peak * (final + (1 - final) * 0.5 * (1 + cos(pi * progress)))


def aux_coefficient(config: MoeConfig, step: int, horizon: int) -> float:
    """The balance loss's weight at `step`: start, held, then linear to the end, then held."""
    if config.aux_loss_coef_end is None:
        return config.aux_loss_coef
    begin, end = config.aux_warmup_frac * horizon, config.aux_decay_end_frac * horizon
    if step <= begin:
        return config.aux_loss_coef
    if step >= end:
        return config.aux_loss_coef_end
    share = (step - begin) / (end - begin)
    return config.aux_loss_coef + share * (config.aux_loss_coef_end - config.aux_loss_coef)


def micro_batches(config: TrainConfig, processes: int, memory_factor: int = 1) -> tuple[int, int]:
    """(forward passes, rows of each) of one process, which together train on what one alone would.

    Where the processes divide `batch_size`, each pass has the same rows over all of them as with one process;
    else a process takes passes of at most `batch_size` rows. A step has `batch_size * accumulation` rows in
    all. `memory_factor` divides the rows of a pass by as much, or by the next number that divides them; one
    row stays. Raises `ConfigProblem`.
    """
    passes, rows = _whole_batches(config, processes)
    fewer = _divisor(rows, max(1, rows // memory_factor))
    return passes * (rows // fewer), fewer


def _whole_batches(config: TrainConfig, processes: int) -> tuple[int, int]:
    total = config.batch_size * config.accumulation
    share, rest = divmod(total, processes)
    if rest:
        text = f"{processes} processes cannot share {total} rows per step: use a multiple of {processes}"
        raise ConfigProblem([("train.batch_size", text)])
    if config.batch_size % processes == 0:
        return config.accumulation, config.batch_size // processes
    rows = _divisor(share, min(share, config.batch_size))
    return share // rows, rows


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is not above `most`."""
    return max(d for d in range(1, most + 1) if number % d == 0)


def _decay_progress(step: int, horizon: int, decay_frac: float) -> float:
    begin = horizon * (1 - decay_frac)
    return min(1.0, max(0.0, (step - begin) / max(1.0, horizon - begin)))
