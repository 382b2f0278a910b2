"""The fast replay decides exactly what the live functions decide, step by step."""

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from replay_builders import Driver, random_recorded, recorded
from rule_builders import ROOT

from orchestrator.domain.decisions import PromoteRule
from orchestrator.rules.history import Replay, stages_of
from orchestrator.rules.policies import Policy, resolve_policy
from orchestrator.rules.simulate import Exit, Outcome, Simulator, Unscorable

KNOWN: dict[str, Any] = {
    path.stem: json.loads(path.read_text()) for path in (ROOT / "configs" / "policies").glob("*.json")
}
EVERY, STAGES = 50, (200, 400, 1000)
ANY = PromoteRule(1000)
REPLAY = Replay(EVERY, stages_of(STAGES), (ANY, ANY, ANY))


def made(base: str, **changes: Any) -> Policy:
    return resolve_policy(KNOWN[base] | changes, KNOWN)


MIXED: dict[str, Policy] = {
    "race or plateau": made(
        "race",
        stop={
            "any": [
                {"criterion": "outside_race", "f0": 0.03},
                {"criterion": "no_improvement", "threshold": 0.01, "evaluations": 2},
            ]
        },
        promote={"criterion": "first_gap", "at_most": 0.2},
    ),
    "not in the race and behind the control": made(
        "race",
        stop={
            "all": [
                {"not": {"not": {"criterion": "outside_rung", "at": [0.1, 0.3], "eta": 2.0}}},
                {"not": {"criterion": "beats_control", "margin": 0.0}},
            ]
        },
    ),
    "a field rule at the gate": made(
        "stage-gate", promote={"not": {"criterion": "outside_asha", "at": "stages", "eta": 2.0}}
    ),
    "rungs at the stages": made("successive-halving", stop={"criterion": "outside_rung", "at": "stages"}),
    "a plateau anywhere": made("run-all", stop={"criterion": "no_improvement", "threshold": 0.05}),
    "wide ties": made("run-all", ties={"floor": 0.1}),
}
POLICIES = {name: resolve_policy(name, KNOWN) for name in sorted(KNOWN)} | MIXED
RULES = (
    (ANY, ANY, ANY),
    (PromoteRule(3, eligible="all"), PromoteRule(1), ANY),
    (PromoteRule(2, if_none="probation"), PromoteRule(2, if_none="probation"), ANY),
)


@pytest.mark.parametrize("name", list(POLICIES))
def test_the_fast_path_decides_what_the_live_functions_decide(name: str) -> None:
    policy = POLICIES[name]
    draws = random.Random(name)  # noqa: S311 - no secret
    scored = 0
    for round_ in range(12):
        replay = replace(REPLAY, promote=RULES[round_ % 3])
        runs = [random_recorded(draws, f"v{i:02d}", replay) for i in range(10)]
        simulator = Simulator(policy, replay, runs)
        for _ in range(5):
            members = draws.sample(range(len(runs)), draws.randint(3, 8))
            fast = simulator.run(members, members[0])
            slow = Driver(policy, replay, runs, members, members[0]).run()
            assert (None if isinstance(fast, Unscorable) else fast) == slow
            scored += slow is not None
    assert scored > 5


def straight(name: str, level: float, end: int = 1000, **changes: Any) -> Any:
    """A run at `level` at every evaluation up to `end`."""
    return recorded(name, {step: level for step in REPLAY.steps if step <= end}, **changes)


def test_costs_picks_and_promotions_by_hand() -> None:
    runs = [straight("control", 3.0), straight("good", 2.9), straight("bad", 3.1), straight("even", 3.0)]
    outcome = Simulator(POLICIES["stage-gate"], REPLAY, runs).run([0, 1, 2, 3], 0)
    assert isinstance(outcome, Outcome)
    assert outcome.exits[1] == Exit(1000, "finished")
    assert outcome.exits[2] == outcome.exits[3] == Exit(200, "not_promoted")
    assert outcome.promoted == ((1,), (1,))
    assert (outcome.pick, outcome.steps) == (1, 1000 + 200 + 200 + 1000)


def test_without_a_winner_the_control_is_kept_and_trains_no_further() -> None:
    runs = [straight("control", 3.0), straight("a", 2.99), straight("b", 3.2)]
    outcome = Simulator(POLICIES["stage-gate"], REPLAY, runs).run([0, 1, 2], 0)
    assert isinstance(outcome, Outcome)
    assert not outcome.has_winner
    assert (outcome.pick, outcome.steps) == (0, 600)


def test_the_control_may_be_the_pick_among_those_at_the_end() -> None:
    runs = [straight("control", 3.0), straight("a", 3.1)]
    outcome = Simulator(POLICIES["run-all"], REPLAY, runs).run([0, 1], 0)
    assert isinstance(outcome, Outcome)
    assert outcome.pick == 0
    assert outcome.has_winner


def test_what_is_asked_past_a_recorded_end_is_not_scored() -> None:
    runs = [straight("control", 3.0), straight("a", 2.9), straight("b", 3.2, end=200)]
    kept = Simulator(POLICIES["run-all"], REPLAY, runs).run([0, 1, 2], 0)
    assert kept == Unscorable(2, 400, "not recorded so far")
    stopped = Simulator(POLICIES["stage-gate"], REPLAY, runs).run([0, 1, 2], 0)
    assert isinstance(stopped, Outcome)


def test_a_control_that_diverged_cannot_be_judged_against() -> None:
    broken = recorded("control", {50: 3.0, 100: float("nan")})
    found = Simulator(POLICIES["run-all"], REPLAY, [broken, straight("a", 3.0)]).run([0, 1], 0)
    assert found == Unscorable(0, 100, "the control diverged")
