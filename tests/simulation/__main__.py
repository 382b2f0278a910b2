"""`python -m simulation`: whole experiments with seeded faults. See docs/simulation.md."""

import argparse
import sys

from simulation.campaign import campaign, describe
from simulation.harness import laboratory
from simulation.planted import BUGS, plant


def main() -> int:
    """0 when every promise was kept, 1 when one was broken."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="the first seed; the others follow it")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", type=int, metavar="SEED", help="one seed again, with its trace")
    parser.add_argument("--planted", choices=sorted(BUGS), help="with a bug in the service, to be found")
    asked = parser.parse_args()
    if asked.replay is not None:
        return _replay(asked.replay, asked.planted)
    return 1 if campaign(asked.seed, asked.experiments, asked.processes, asked.planted).violations else 0


def _replay(seed: int, planted: str | None) -> int:
    with laboratory() as lab, plant(planted, lab.template):
        result = lab.run(seed)
    print("\n".join(result.trace))
    if result.violation is None:
        print(f"no violation with seed {seed}; trace {result.trace_hash[:16]}")
        return 0
    print(describe(result, planted))
    return 1


if __name__ == "__main__":
    sys.exit(main())
