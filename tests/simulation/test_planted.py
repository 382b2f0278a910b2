"""Each bug that is put into the service is found, says how, and is found again by its seed."""

import pytest

from simulation.campaign import describe
from simulation.harness import Laboratory, Result, laboratory
from simulation.planted import BUGS, plant

ENOUGH = 200
"""Experiments within which each must be found."""
FIRST = {"fence": 12, "key": 27, "duplicates": 1}
"""Where the search begins: at a seed that finds it, so that the test is quick."""
SAYS = {
    "fence": "an attempt that has ended takes in nothing",
    "key": "a decision is made once",
    "duplicates": "the service never fails by itself",
}


def find(lab: Laboratory, first: int) -> Result:
    for seed in range(first, first + ENOUGH):
        result = lab.run(seed)
        if result.violation is not None:
            return result
    raise AssertionError(f"not found in {ENOUGH} experiments")


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found_and_its_seed_finds_it_again(bug: str) -> None:
    with laboratory() as lab:
        with plant(bug, lab.template):
            found = find(lab, FIRST[bug])
            again = lab.run(found.seed)
        sound = lab.run(found.seed)
    assert found.violation is not None
    assert found.violation.invariant == SAYS[bug]
    assert str(again.violation) == str(found.violation)
    assert again.trace_hash == found.trace_hash
    assert f"--replay {found.seed} --planted {bug}" in describe(found, bug)
    assert sound.violation is None
