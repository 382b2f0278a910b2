"""Clause by clause: a sound run, by the guards of `stage-gate` and the screen of `short-screen`."""

import math
from typing import Any

import pytest
from rule_builders import (
    CONFIRM,
    SCREEN,
    SHORT_SCREEN,
    STAGE_GATE,
    Case,
    case,
    control,
    curve,
    entrants,
    routing,
)

from orchestrator.domain.curves import Curve
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.domain.lifecycle import Reason, RunStatus
from orchestrator.rules.gate import close_stage
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.nodes import ask
from orchestrator.rules.policies import Policy
from orchestrator.rules.retry import Again, Ended, GiveUp, after

PASS, FAIL, OPEN, INVALID = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID


def part(found: CriterionResult, name: str) -> CriterionResult:
    return next(p for p in found.parts if p.name == name)


def screened(name: str, judged: Case) -> Verdict:
    """One criterion of the short screen."""
    return part(ask(SHORT_SCREEN.promote, judged), name).verdict


def every_500(*values: float, **changes: Any) -> Curve:
    return curve("a", {500 * i: value for i, value in enumerate(values, 1)}, **changes)


def decided(subject: Curve, policy: Policy = STAGE_GATE) -> tuple[str, str]:
    found = judge_evaluation(subject, stage=CONFIRM, policy=policy)
    return found.kind.value, found.reason


class TestHealthyRouting:
    @pytest.mark.parametrize(
        ("metrics", "good"),
        [
            (routing(worst=0.5), True),
            (routing(worst=0.4999), False),
            (routing(experts=1000, dead_experts=249), True),
            (routing(experts=1000, dead_experts=250), False),
        ],
    )
    def test_clause_healthy_routing_by_entropy_and_dead_experts(self, metrics: Any, good: bool) -> None:
        twice = every_500(4.0, 3.9, every={"routing": metrics})
        assert decided(twice) == (("continue", "inconclusive") if good else ("stop", "unhealthy_routing"))
        assert screened("healthy_routing", case(twice)) is (PASS if good else FAIL)

    @pytest.mark.parametrize(
        ("seen", "unhealthy"), [("b", False), ("gb", False), ("bgb", False), ("gbb", True), ("bbg", False)]
    )
    def test_clause_healthy_routing_fails_at_two_consecutive_evaluations(
        self, seen: str, unhealthy: bool
    ) -> None:
        health = {"g": routing(), "b": routing(worst=0.2)}
        changes = {500 * i: {"routing": health[letter]} for i, letter in enumerate(seen, 1)}
        subject = every_500(*[4.0 - i / 10 for i in range(len(seen))], changes=changes)
        assert (decided(subject)[1] == "unhealthy_routing") is unhealthy


@pytest.mark.parametrize(
    ("first", "last", "sigma", "verdict"),
    [
        (0.08, 0.09, 0.0, PASS),
        (0.08, 0.09001, 0.0, FAIL),
        (0.08, 0.08 + 2 * math.sqrt(2) * 0.01, 0.01, PASS),
        (0.08, 0.08 + 2 * math.sqrt(2) * 0.01 + 1e-5, 0.01, FAIL),
        (-0.30, -0.01, 0.0, PASS),  # a lead that shrinks
        (-0.30, 0.01, 0.0, PASS),  # from no gap to 0.01
        (-0.30, 0.01001, 0.0, FAIL),
        (0.08, None, 0.0, OPEN),
    ],
)
def test_clause_non_widening_is_of_positive_gaps(
    first: float, last: float | None, sigma: float, verdict: Verdict
) -> None:
    losses = [5.0 + first] if last is None else [5.0 + first, 4.0 + last]
    judged = case(every_500(*losses), control({500: 5.0, 1000: 4.0}), sigma=sigma)
    assert screened("non_widening", judged) is verdict


@pytest.mark.parametrize(
    ("restarts", "nan_events", "verdict"),
    [
        pytest.param((), (0, 0), PASS, id="none"),
        pytest.param((100, 600), (0, 0), PASS, id="2 in 1k steps"),
        pytest.param((100, 600, 1099), (0, 0), FAIL, id="3 in 1k steps"),
        pytest.param((100, 600, 1100), (0, 0), PASS, id="the third 1k steps after the first"),
        pytest.param((600, 600), (0, 0), FAIL, id="no progress between"),
        pytest.param((600, 601), (0, 0), PASS, id="a step of progress"),
        pytest.param((), (3, 3), PASS, id="NaN events that are over"),
        pytest.param((), (3, 4), FAIL, id="one since"),
    ],
)
def test_clause_stable_by_restarts_and_nan_events(
    restarts: tuple[int, ...], nan_events: tuple[int, int], verdict: Verdict
) -> None:
    changes = {500: {"nan_events": nan_events[0]}, 1000: {"nan_events": nan_events[1]}}
    subject = every_500(4.0, 3.9, changes=changes, restarts=restarts)
    assert screened("stable", case(subject, control({500: 4.0, 1000: 3.9}))) is verdict


class TestDiverged:
    @pytest.mark.parametrize(
        ("losses", "diverged"),
        [
            ((4.0, math.nan), True),
            ((4.0, math.inf), True),
            ((4.0, 7.0, 7.0), False),
            ((4.0, 7.001), False),
            ((4.0, 7.001, 7.001), True),
            ((4.0, 7.001, 4.0, 7.001), True),
            ((4.0, 7.001, 7.001, 5.0), False),
        ],
    )
    def test_clause_diverged_is_not_finite_or_3_nats_up_twice(
        self, losses: tuple[float, ...], diverged: bool
    ) -> None:
        assert (decided(every_500(*losses)) == ("fail", "diverged")) is diverged

    @pytest.mark.parametrize("last", [(2.0, math.nan), (2.0, 5.1, 5.1)])
    def test_clause_diverged_is_in_no_rank(self, last: tuple[float, ...]) -> None:
        steps = (400, 600, 1000)[-len(last) :]
        gone = curve("gone", dict(zip(steps, last, strict=True)))
        runs = entrants(control({1000: 6.0}), gone, curve("a", {1000: 5.9}))
        outcome = close_stage(runs, stage=SCREEN, promote=PromoteRule(2, "all"), policy=STAGE_GATE)
        assert outcome.winners == ("a",)
        assert outcome.judgements[gone.run_id].reason == "diverged"

    def test_clause_diverged_is_retried_once_and_then_failed(self) -> None:
        retries = STAGE_GATE.diverged.retries
        once = [Ended(Reason.DIVERGED, 1500, 0)]
        assert retries == 1
        assert isinstance(after(once, diverged_retries=retries), Again)
        again = after([*once, Ended(Reason.DIVERGED, 2500, 1000)], diverged_retries=retries)
        assert isinstance(again, GiveUp)
        assert "last good checkpoint" in again.text
        assert Reason.DIVERGED.status is RunStatus.FAILED
