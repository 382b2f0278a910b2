"""What an evaluation says beside the loss, from what the run has counted."""

import resource

import torch

from orchestrator.protocol.report import Evaluation
from trainer.facts import attention_flops_per_token, flops_per_token
from trainer.health import routing_health
from trainer.perplexity import perplexity
from trainer.schedules import aux_coefficient, learning_rate
from trainer.state import Progress
from trainer.training import StepResult, Training

PEAK_FLOPS = {
    # Dense bf16 matrix products per second, from the makers' data sheets. The longest name that fits counts.
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "B200": 2250e12,
    "A100": 312e12, "A40": 149.7e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12,
}  # fmt: skip


def evaluation(training: Training, progress: Progress, last: StepResult | None, loss: float) -> Evaluation:
    """The evaluation at `progress.step`, where the held-out loss is `loss` nats per token.

    `last` is the step before it; None in an attempt that has resumed here and trained none.
    """
    w, config, trained = progress.window, training.config, max(0, progress.step - 1)
    health = None
    if training.counts is not None:
        dropped = int(training.dropped.item()) if training.dropped is not None else 0
        health = routing_health(training.counts.tolist(), dropped)
    return Evaluation(
        step=progress.step,
        tokens=progress.tokens,
        eval_loss=loss,
        perplexity=perplexity(loss),
        train_loss=w.mean_loss,
        learning_rate=learning_rate(config.schedule, config.optimizer.lr, trained, training.horizon),
        grad_norm=progress.grad_norm,
        nan_events=progress.nan_events,
        tokens_per_second=w.tokens_per_second,
        wall_seconds=progress.wall_seconds,
        peak_memory_bytes=peak_memory_bytes(training),
        flops_utilisation=flops_utilisation(training, w.tokens_per_second),
        aux_loss=w.mean_aux if config.moe else None,
        aux_loss_pooled=last.aux_loss_pooled if last else None,
        aux_coef=aux_coefficient(config.moe, trained, training.horizon) if config.moe else None,
        routing=health,
    )


def flops_utilisation(training: Training, tokens_per_second: float) -> float | None:
    """Share of the devices' peak that the model's own FLOPs come to; None where the peak is not known.

    Chowdhery et al. 2022, appendix B: forward and backward are 3 times the forward pass; what gradient
    checkpointing computes again is not counted.
    """
    if training.device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(training.device))
    if peak is None:
        return None
    forward = flops_per_token(training.config) + attention_flops_per_token(training.config)
    return 3 * forward * tokens_per_second / (peak * training.team.size)


def peak_flops(device_name: str) -> float | None:
    """Of one device, per second; None for one that the table lacks."""
    fits = [name for name in PEAK_FLOPS if name in device_name]
    return PEAK_FLOPS[max(fits, key=len)] if fits else None


def peak_memory_bytes(training: Training) -> int:
    """Of this process: device memory on CUDA, resident memory on CPU."""
    if training.device.type == "cuda":
        return torch.cuda.max_memory_allocated(training.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux gives KiB


def newly_reached(progress: Progress, targets: tuple[float, ...], loss: float) -> list[float]:
    """Those of `targets` that `loss` is the first to reach; `progress` remembers when."""
    new = [target for target in targets if loss <= target and str(target) not in progress.reached]
    for target in new:
        progress.reached[str(target)] = {
            "step": progress.step,
            "tokens": progress.tokens,
            "wall_seconds": progress.wall_seconds,
        }
    return new
