"""A decision over a stage of 200 runs with 100 evaluations each, beside Optuna's and Syne Tune's.

Each library has its own environment: `ASSAY_BENCH_OPTUNA` and `ASSAY_BENCH_SYNE_TUNE` name a Python that
has it. Ours judges the whole stage at once, with evidence and a sentence for each run; theirs answer
one run at a time, so both the time of one and of all 200 are shown.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from orchestrator.bootstrap import configs_folder, load_policies
from orchestrator.domain.curves import Curve, StageView
from orchestrator.domain.decisions import Entrant, PromoteRule
from orchestrator.rules.criteria import Grid
from orchestrator.rules.gate import close_stage
from orchestrator.rules.history import bare_curve
from orchestrator.rules.point import judge_point
from orchestrator.rules.policies import Policy, resolve_policy

RUNS, EVALUATIONS, EVERY = 200, 100, 500
STEPS = EVERY * EVALUATIONS
STAGE = StageView("long", STEPS, is_last=False)
TURNS = 7
PEERS = {
    "Optuna's MedianPruner": ("ASSAY_BENCH_OPTUNA", "optuna_median.py"),
    "Syne Tune's ASHA": ("ASSAY_BENCH_SYNE_TUNE", "syne_asha.py"),
}
KNOWN = load_policies(configs_folder() / "policies")

Points = list[tuple[int, float]]


def points() -> list[Points]:
    """The losses of every run: falling curves with noise."""
    chance = random.Random(0)  # noqa: S311 - a seeded draw, no secret
    runs = [(2.5 + chance.random() / 5, chance.uniform(0.2, 0.3)) for _ in range(RUNS)]
    steps = range(EVERY, STEPS + 1, EVERY)
    return [[(s, level + 6 * s**-rate + chance.gauss(0, 0.002)) for s in steps] for level, rate in runs]


def entrants(losses: list[Points]) -> list[Entrant]:
    """Fresh curves, of which nothing has been worked out yet; the first is the control."""
    curves = [bare_curve(i + 1, f"v{i:03d}", found, 2 * STEPS) for i, found in enumerate(losses)]
    return [Entrant(_marked(curve, control=i == 0), out=False) for i, curve in enumerate(curves)]


def _marked(curve: Curve, *, control: bool) -> Curve:
    return Curve(
        curve.run_id, curve.variant, curve.seed, control, curve.identity, curve.evaluations, curve.train_loss
    )


def gate(policy: Policy, runs: list[Entrant]) -> None:
    """The stage closes: every run is judged, ranked, and told why."""
    close_stage(runs, stage=STAGE, promote=PromoteRule(2), policy=policy)


def point(policy: Policy, runs: list[Entrant]) -> None:
    """A point: every run is compared with every other."""
    order = [entrant.curve.variant for entrant in runs if not entrant.curve.is_control]
    grid = Grid(EVERY, (STEPS, 2 * STEPS), RUNS - 1)
    stage = StageView("all", 2 * STEPS, is_last=True)
    judge_point(runs, step=STEPS, stage=stage, grid=grid, order=order, policy=policy)


def ours() -> dict[str, str]:
    """Milliseconds of the fastest and the median turn, on curves that nothing has been worked out on."""
    losses = points()
    asked: list[tuple[str, Callable[[list[Entrant]], None]]] = [
        (f"gate, {name}", partial(gate, resolve_policy(name, KNOWN)))
        for name in ("stage-gate", "short-screen", "calibrated")
    ]
    asked += [
        (f"point, {name}", partial(point, resolve_policy(name, KNOWN)))
        for name in ("race", "asha", "median-stop")
    ]
    return {f"{name}, {RUNS} runs at once": _told(_timed(act, losses)) for name, act in asked}


def _timed(act: Callable[[list[Entrant]], None], losses: list[Points]) -> list[float]:
    """Processor time: what others on the machine take is left out."""
    seconds = []
    for _ in range(TURNS):
        runs = entrants(losses)
        began = time.process_time()
        act(runs)
        seconds.append(time.process_time() - began)
    return seconds


def _told(seconds: list[float]) -> str:
    return f"{1000 * min(seconds):.1f} ms (median {1000 * median(seconds):.1f}; limit 20)"


def theirs() -> dict[str, str]:
    """The same curves decided by the libraries, each in its own Python."""
    text = json.dumps(points())
    return {name: _peer(text, variable, file) for name, (variable, file) in PEERS.items()}


def _peer(text: str, variable: str, file: str) -> str:
    python = os.environ.get(variable, sys.executable)
    script = Path(__file__).parent / "peers" / file
    done = subprocess.run([python, str(script)], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        why = "it is not installed" if "ModuleNotFoundError" in done.stderr else done.stderr.strip()[-200:]
        return f"not measured: {why} (set {variable} to a Python that has it)"
    seconds = json.loads(done.stdout.splitlines()[-1])
    return f"{1000 * median(seconds):.2f} ms for one run, {1000 * sum(seconds):.0f} ms for all {len(seconds)}"


def main() -> None:
    for measure in (ours, theirs):
        for name, figure in measure().items():
            print(f"{name:<42} {figure}", flush=True)


if __name__ == "__main__":
    main()
