"""Many seeds over several processes, and what is printed of them."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from simulation.faults import draw_plan
from simulation.harness import Laboratory, Result, laboratory, shared_memory
from simulation.planted import plant

PROGRESS_SECONDS = 15.0

_stack = ExitStack()
_laboratory: Laboratory | None = None


@dataclass
class Tally:
    """What a campaign has come to so far."""

    experiments: int = 0
    checks: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    violations: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.experiments += 1
        self.checks += result.checks
        self.struck.update(result.struck)
        if result.violation is not None:
            self.violations.append(result)


def campaign(first: int, experiments: int, processes: int, planted: str | None = None) -> Tally:
    """Runs the seeds from `first`; prints progress, and each violation with what it takes to see it again."""
    tally, began = Tally(), time.perf_counter()
    said = began
    for result in _results(range(first, first + experiments), processes, planted):
        tally.add(result)
        if result.violation is not None:
            print(describe(result, planted), flush=True)
        if time.perf_counter() - said > PROGRESS_SECONDS:
            said = time.perf_counter()
            print(_progress(tally, experiments, said - began), flush=True)
    print(summary(tally, time.perf_counter() - began), flush=True)
    return tally


def _results(seeds: range, processes: int, planted: str | None) -> Iterator[Result]:
    if processes == 1:
        with _stack:
            _open(planted, None)
            yield from map(_run, seeds)
        return
    spawned = multiprocessing.get_context("spawn")
    with shared_memory() as folder, spawned.Pool(processes, _open, (planted, folder)) as pool:
        yield from pool.imap_unordered(_run, seeds, chunksize=4)


def _open(planted: str | None, folder: Path | None) -> None:
    """A laboratory for each process, in a folder that the first one removes."""
    global _laboratory
    _laboratory = _stack.enter_context(laboratory(folder))
    _stack.enter_context(plant(planted, _laboratory.template))


def _run(seed: int) -> Result:
    assert _laboratory is not None
    result = _laboratory.run(seed)
    return result if result.violation is not None else replace(result, trace=(), outcome=None)


def _progress(tally: Tally, of: int, seconds: float) -> str:
    rate = tally.experiments / seconds
    faults = sum(tally.struck.values())
    return f"{tally.experiments}/{of} experiments, {faults} faults, {rate:.1f} experiments/s"


def summary(tally: Tally, seconds: float) -> str:
    """The table of faults, and the verdict."""
    lines = [f"  {times:6d}  {fault}" for fault, times in sorted(tally.struck.items())]
    rate = f"{tally.experiments / seconds:.1f} experiments/s"
    total = f"{sum(tally.struck.values())} faults in {tally.experiments} experiments, {tally.checks} checks"
    return "\n".join([*lines, f"{total}, {rate}, {len(tally.violations)} violations"])


def describe(result: Result, planted: str | None) -> str:
    """A violation: the seed, the plan, the invariant, and the command that runs the same again."""
    plan = draw_plan(result.seed)
    rates = ", ".join(f"{fault.value} {rate:.3g}" for fault, rate in plan.rates.items())
    struck = [line for line in result.trace if line.startswith("!! ")]
    also = f" --planted {planted}" if planted else ""
    assert result.violation is not None
    return "\n".join(
        [
            f"VIOLATION with seed {result.seed}: {result.violation.invariant}",
            f"  {result.violation.detail}",
            f"  plan: at most {plan.left} of {rates}",
            f"  struck: {'; '.join(line.removeprefix('!! ') for line in struck)}",
            f"  trace {result.trace_hash[:16]}, again: "
            f"PYTHONPATH=tests python -m simulation --replay {result.seed}{also}",
        ]
    )
