"""`python -m chaos --database sqlite --faults 100 --seed 7`: real processes, random faults, a history."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from chaos.faults import WEIGHTS
from chaos.rig import Workplace, new_folder
from chaos.storm import ChaosRun, Verdict, Weather


def main() -> int:
    """0 when nothing was lost and nothing doubled."""
    options = _options()
    replicas = options.replicas or (2 if options.database == "postgresql" else 1)
    print(f"chaos on {options.database}: {options.faults} faults, {replicas} services, seed {options.seed}")  # noqa: T201
    weather = Weather(options.seed, options.faults, replicas, kinds=tuple(options.kinds))
    verdict, folder = run(options.database, weather)
    print(summary(verdict))  # noqa: T201
    if verdict.violations:
        print(f"seed {options.seed}; everything it left is in {folder}")  # noqa: T201
    return 1 if verdict.violations else 0


def run(database: str, weather: Weather) -> tuple[Verdict, Path]:
    """The verdict of one run, and its folder, which is kept when something is wrong."""
    folder = new_folder()
    workplace = Workplace(folder, database, trainer=Path(__file__).with_name("launcher.py"))
    chaos = ChaosRun(workplace, weather, say=lambda text: print(text, flush=True))  # noqa: T201
    verdict = None
    try:
        with tempfile.TemporaryDirectory() as calm:
            verdict = chaos.run(Path(calm))
    finally:
        for replica in chaos.replicas:
            replica.kill()
        workplace.close(keep=verdict is None or bool(verdict.violations))
    return verdict, folder


def summary(verdict: Verdict) -> str:
    """A table for a person."""
    lines = [f"  {kind.replace('_', ' '):36} {count:5}" for kind, count in verdict.faults.items()]
    lines += [f"  {'all faults':36} {sum(verdict.faults.values()):5}"]
    lines += [f"  skipped: {reason}" for reason in verdict.skipped]
    for name in ("experiments", "attempts", "reports", "decisions", "zombies"):
        lines.append(f"  {name:36} {getattr(verdict, name):5}")
    lines.append(f"  {'seconds':36} {verdict.seconds:5.0f}")
    lines.append(f"  {'violations':36} {len(verdict.violations):5}")
    return "\n".join(lines + [f"  ! {violation}" for violation in verdict.violations])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument(
        "--replicas", type=int, default=0, help="services; 0: two on PostgreSQL, one on SQLite"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--kinds", nargs="*", default=[], choices=list(WEIGHTS), help="faults to give; all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
