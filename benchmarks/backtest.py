"""Cost and regret of every policy on one public family of curves, and how fast a policy is replayed.

`python -m benchmarks.backtest` reads the curves from `ASSAY_CURVES`, or from `shared/curves` beside the
repository, and writes bench-output/backtest.html: the whole curve of cost against regret.
"""

import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.bootstrap import configs_folder, load_policies
from orchestrator.cli.curve_table import read_curves
from orchestrator.domain.backtests import History
from orchestrator.domain.decisions import PromoteRule
from orchestrator.figures.backtest import PolicyPoint, cost_against_regret
from orchestrator.rules.history import Recorded, Replay, bare_curve, stages_of
from orchestrator.rules.policies import Policy, resolve_policy
from orchestrator.rules.resample import draw_sets
from orchestrator.rules.score import Score, Sets, score
from orchestrator.services.backtest import replayed
from orchestrator.services.history import on_replay, posted_history

ROOT = Path(__file__).parents[1]
CURVES = Path(os.environ.get("ASSAY_CURVES", ROOT.parent / "shared" / "curves" / "modded_nanogpt_track3.csv"))
OUT = ROOT / "bench-output"
EXCHANGE = 4.5e-5
"""Nats a step of the horizon, as the repository that the logs are from has it."""
ANY = PromoteRule(best=1000)
REPLAY = Replay(125, stages_of((500, 1500, 2900)), (ANY, ANY, ANY))
RUNGS = (0.04, 0.1, 0.2, 0.4)
SWEEP = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.015, 0.02, 0.025, 0.04, 0.06, 0.1, 0.2)
KNOWN = load_policies(configs_folder() / "policies")


def variation(name: str, **numbers: Any) -> Policy:
    """A shipped policy with other numbers in its one stop criterion."""
    document: Any = json.loads(json.dumps(KNOWN[name]))
    document["stop"].update(numbers)
    return resolve_policy(document, {})


def policies() -> dict[str, Policy]:
    """Every shipped policy, and the rungs that others are usually run with."""
    shipped = {name: resolve_policy(name, KNOWN) for name in sorted(KNOWN) if name != "race"}
    halving = {
        "successive-halving, stages": variation("successive-halving", at="stages"),
        "successive-halving, 4/10/20/40%, eta 2": variation("successive-halving", at=RUNGS, eta=2.0),
        "successive-halving, 4/10/20/40%, eta 3": variation("successive-halving", at=RUNGS),
        "asha, stages": variation("asha", at="stages"),
        "asha, 4/10/20/40%": variation("asha", at=RUNGS),
    }
    return shipped | halving


def races() -> dict[str, Policy]:
    """The knob of `race` over its range; and with one survivor instead of two, which is cheaper yet."""
    found = {f"race, f0 {f0:g}": variation("race", f0=f0) for f0 in SWEEP}
    lone = {f"race, f0 {f0:g}, at least 1": variation("race", f0=f0, at_least=1) for f0 in SWEEP[:3]}
    return found | lone


def family(count: int, seed: int = 0) -> Sets:
    """Sets drawn from the recorded family, on its grid."""
    history = History.model_validate({"curves": read_curves(CURVES), "horizon_exchange": EXCHANGE})
    recorded, notes = on_replay(posted_history(history.curves), REPLAY, EXCHANGE)
    for note in notes:
        print(note)
    return Sets(recorded, drawn(recorded, count, 8, 16, seed), REPLAY.horizon)


def drawn(recorded: Sequence[Recorded], count: int, smallest: int, largest: int, seed: int) -> Any:
    """Sets of these runs."""
    configs: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(recorded):
        configs[one.config].append(place)
    chance = random.Random(seed)  # noqa: S311 - a seeded draw, no secret
    return draw_sets(chance, configs, count=count, smallest=smallest, largest=largest)


def table(sets: Sets) -> dict[str, Score]:
    """The scores of every policy, printed cheapest first."""
    every = policies() | races()
    scores = {name: score(sets, replayed(policy, REPLAY, sets)) for name, policy in every.items()}
    print(
        f"{'policy':<42}{'cost':>7}{'regret':>9}{'95% interval':>19}{'p90':>8}"
        f"{'best':>6}{'none':>6}{'cover':>7}"
    )
    for name, found in sorted(scores.items(), key=lambda item: item[1].cost.value if item[1].cost else 9):
        print(f"{name:<42}{row(found)}", flush=True)
    return scores


def row(found: Score) -> str:
    """The figures of one policy in the columns of the table."""
    if not (found.cost and found.regret and found.regret_p90) or found.regret.low is None:
        return f"  not scored; coverage {found.coverage:.0%}"
    interval = f"[{found.regret.low:.4f}, {found.regret.high:.4f}]"
    return (
        f"{found.cost.value:>7.3f}{found.regret.value:>9.4f}{interval:>19}{found.regret_p90.value:>8.4f}"
        f"{found.best_kept or 0:>6.0%}{found.no_winner or 0:>6.0%}{found.coverage:>7.0%}"
    )


def beaten(scores: dict[str, Score]) -> Iterator[str]:
    """For each rule of halving the best race that costs no more, or that there is none."""
    known = {n: (s.cost.value, s.regret.value) for n, s in scores.items() if s.cost and s.regret}
    for name, (cost, regret) in known.items():
        if name.startswith(("asha", "successive")):
            cheaper = [(known[n][1], n) for n in known if n.startswith("race") and known[n][0] <= cost]
            if not cheaper:
                yield f"{name} ({cost:.3f} / {regret:.4f}): no race is as cheap"
                continue
            best, race = min(cheaper)
            word = "below" if best < regret else "NOT below"
            told = f"{race} ({known[race][0]:.3f} / {best:.4f})"
            yield f"{name} ({cost:.3f} / {regret:.4f}): {told} is {word} it"


def draw(scores: dict[str, Score]) -> Path:
    """The figure as a page, and as a picture where kaleido can run."""
    points = {n: point(n, s) for n, s in scores.items() if s.cost and s.regret}
    sweep = [points[name] for name in points if name.startswith("race") and "at least" not in name]
    figure = cost_against_regret([p for n, p in points.items() if p not in sweep], sweep)
    OUT.mkdir(exist_ok=True)
    page = OUT / "backtest.html"
    figure.write_html(page, include_plotlyjs=True)
    try:
        figure.write_image(OUT / "backtest.png", width=1100, height=640)
    except (ImportError, ValueError, RuntimeError) as error:
        print(f"no picture: {str(error).strip().splitlines()[0]}")
    return page


def point(name: str, found: Score) -> PolicyPoint:
    assert found.cost is not None
    assert found.regret is not None
    return PolicyPoint(name, found.cost.value, found.regret.value, found.regret.low, found.regret.high)


def speed(sets: int = 1000, size: int = 16, points: int = 100) -> dict[str, str]:
    """Seconds of one processor to replay and score so many sets of curves, for each shipped policy."""
    replay = Replay(500, stages_of((1000, 5000, 500 * points)), (ANY, ANY, ANY))
    chance = random.Random(0)  # noqa: S311 - a seeded draw, no secret
    recorded = [made(f"c{place % 64}", place, replay, chance) for place in range(256)]
    pool = Sets(recorded, drawn(recorded, sets, size, size, 0), replay.horizon)
    figures = {}
    for name in sorted(KNOWN):
        began = time.process_time()
        score(pool, replayed(resolve_policy(name, KNOWN), replay, pool))
        seconds = time.process_time() - began
        figures[f"{sets:,} sets of {size} x {points} points, {name}"] = f"{seconds:.1f} s (limit 10)"
    return figures


def made(config: str, place: int, replay: Replay, chance: random.Random) -> Recorded:
    """A falling curve with noise, and with train losses between, as a recorded run has them."""
    level, rate = 2.5 + chance.random() / 5, chance.uniform(0.2, 0.3)
    losses = [(step, level + 6 * step**-rate + chance.gauss(0, 0.002)) for step in replay.steps]
    curve = bare_curve(place + 1, config, losses, replay.horizon)
    train = tuple((step, level + 6 * step**-rate) for step in range(100, replay.horizon + 1, 100))
    return Recorded(config, str(place), replace(curve, train_loss=train))


def main() -> None:
    for name, figure in speed().items():
        print(f"{name:<52} {figure}", flush=True)
    if not CURVES.is_file():
        print("no recorded curves: set ASSAY_CURVES to the table of modded-nanogpt's track 3")
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    scores = table(family(count))
    print(*beaten(scores), sep="\n")
    print(f"drawn in {draw(scores).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
