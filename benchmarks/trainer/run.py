"""`make bench-trainer`: every benchmark of the trainer, one line a figure, limits beside the figures."""

import sys

from benchmarks.trainer import gpu, moe, saving, step

ALL = {
    "startup": saving.to_the_first_step,
    "step": step.against_a_bare_loop,
    "metrics": step.with_and_without_metrics,
    "compile": step.compiled,
    "checkpoint": saving.stall,
    "moe": moe.layer_and_stack,
    "gpu": gpu.half_shape,
}


def main() -> None:
    for name in sys.argv[1:] or ALL:
        for label, figure in ALL[name]():
            print(f"{label:<58} {figure}", flush=True)


if __name__ == "__main__":
    main()
