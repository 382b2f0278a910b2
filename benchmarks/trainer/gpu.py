"""Tokens per second and share of the peak at the half shape, on a GPU where there is one."""

from collections.abc import Iterator
from time import perf_counter

import torch

from benchmarks.trainer.rigs import half, random_tokens
from trainer.measure import flops_utilisation
from trainer.training import Training

STEPS, ROWS = 20, 16


def half_shape() -> Iterator[tuple[str, str]]:
    """Dense and MoE, with and without compile, and the MoE's ways with experts."""
    if not torch.cuda.is_available():
        yield "on a GPU", "skipped: torch sees no CUDA device here"
        return
    yield "device", torch.cuda.get_device_name()
    for kind, train in (
        ("dense", {}),
        ("dense", {"compile": True}),
        ("recurrent_shared_moe", {"experts": "grouped"}),
        ("recurrent_shared_moe", {"experts": "grouped", "compile": True}),
        ("recurrent_shared_moe", {"experts": "sorted"}),
    ):
        label = ", ".join([kind, *(f"{name} {value}" for name, value in train.items())])
        yield label, _speed(kind, **train)
    yield (
        "recurrent_shared_moe, experts naive",
        _speed("recurrent_shared_moe", steps=1, rows=1, experts="naive"),
    )


def _speed(kind: str, steps: int = STEPS, rows: int = ROWS, **train: object) -> str:
    config = half(kind, batch_size=rows, deterministic=False, **train)
    heart = Training(config, random_tokens(config.vocab_size), seed=0, horizon=1000, device="cuda")
    for step in range(min(steps, 3)):  # compiles, and finds its memory
        heart.step(step, detailed=False)
    torch.cuda.synchronize()
    began = perf_counter()
    for step in range(steps):
        heart.step(step, detailed=False)
    torch.cuda.synchronize()
    speed = steps * config.tokens_per_step / (perf_counter() - began)
    share = flops_utilisation(heart, speed)
    used = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    known = f"{share:.1%} of the peak" if share is not None else "peak not known"
    return f"{speed:,.0f} tokens/s, {known}, {used:.1f} GiB"
