"""The simulation itself: it repeats exactly, it strikes, and the service comes through."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from simulation.faults import BASE_RATES, Fault, Violation
from simulation.harness import Laboratory, laboratory
from simulation.outcome import compare
from simulation.shapes import SHAPES, draw_shape

TESTS = Path(__file__).resolve().parents[1]
SEEDS = range(1, 6)
BUSY = 87
"""A seed with crashes, a hang, an engine that is away and a person who pauses."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    with laboratory() as lab:
        yield lab


def test_a_few_experiments_come_through_their_faults(lab: Laboratory) -> None:
    struck: Counter[str] = Counter()
    for seed in SEEDS:
        result = lab.run(seed)
        assert result.violation is None, f"seed {seed}: {result.violation}"
        struck.update(result.struck)
    assert len(struck) > len(Fault) / 4


def test_the_same_seed_gives_the_same_trace_in_another_process_too(lab: Laboratory) -> None:
    first, again = lab.run(BUSY), lab.run(BUSY)
    assert first.struck
    assert first.trace == again.trace
    found = subprocess.run(
        [sys.executable, "-m", "simulation", "--replay", str(BUSY)],
        env=os.environ | {"PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert found.stdout.splitlines()[:-1] == list(first.trace)
    assert first.trace_hash[:16] in found.stdout.splitlines()[-1]


def test_every_fault_has_a_rate_and_every_shape_is_unlike_the_others() -> None:
    assert set(BASE_RATES) == set(Fault)
    shapes = [draw_shape(number) for number in range(SHAPES)]
    assert {len(shape.spec["stages"]) for shape in shapes} == {2, 3}  # type: ignore[arg-type]
    assert {shape.slots for shape in shapes} == {1, 2, 3}
    assert len({str(shape.spec) for shape in shapes}) == SHAPES


def test_another_end_than_the_undisturbed_one_is_told(lab: Laboratory) -> None:
    calm = lab.undisturbed(draw_shape(0))
    compare(calm, calm)
    key = next(key for key in calm.decisions if key[-1])
    turned = replace(calm, decisions=calm.decisions | {key: ("decline",)})
    with pytest.raises(Violation, match="undisturbed"):
        compare(calm, turned)
    with pytest.raises(Violation, match="conclusion"):
        compare(calm, replace(calm, conclusion="another"))
