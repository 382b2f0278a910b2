"""Clause by clause: what a run's own curve says, by `stage-gate`, and of a screen by `short-screen`."""

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
    flat,
    identity,
    routing,
)

from orchestrator.domain.curves import Curve, moving_improvement
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.domain.lifecycle import Reason, RunStatus
from orchestrator.rules.gate import close_stage
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.nodes import ask
from orchestrator.rules.policies import Policy, unable_to_fire
from orchestrator.rules.retry import Again, Ended, GiveUp, after

PASS, FAIL, OPEN, INVALID = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID


def part(found: CriterionResult, name: str) -> CriterionResult:
    return next(p for p in found.parts if p.name == name)


def stop(name: str, judged: Case) -> Verdict:
    """One criterion of the stop rule."""
    return part(ask(STAGE_GATE.stop, judged), name).verdict


def screened(name: str, judged: Case) -> Verdict:
    """One criterion of the short screen."""
    return part(ask(SHORT_SCREEN.promote, judged), name).verdict


def every_500(*values: float, **changes: Any) -> Curve:
    return curve("a", {500 * i: value for i, value in enumerate(values, 1)}, **changes)


def decided(subject: Curve, policy: Policy = STAGE_GATE) -> tuple[str, str]:
    found = judge_evaluation(subject, stage=CONFIRM, policy=policy)
    return found.kind.value, found.reason


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        pytest.param((4.0, 3.98, 3.96, 3.94), PASS, id="0.02 at each of the last 3"),
        pytest.param((4.0, 3.98, 3.96, 3.93999), FAIL, id="above 0.02 at the third"),
        pytest.param((4.0, 3.97999, 3.96, 3.95), FAIL, id="above 0.02 at the first of them"),
        pytest.param((9.0, 4.0, 3.98, 3.96, 3.94), PASS, id="the fourth from the end does not count"),
        pytest.param((4.0, 4.2, 4.01, 4.0), PASS, id="back to the best is no improvement"),
        pytest.param((4.0, 4.0, 4.0), OPEN, id="3 evaluations"),
        pytest.param((), OPEN, id="none"),
    ],
)
def test_clause_no_improvement_at_each_of_the_last_three(losses: tuple[float, ...], verdict: Verdict) -> None:
    assert stop("no_improvement", case(every_500(*losses), step=500 * len(losses))) is verdict


def test_clause_no_improvement_cannot_fire_in_a_screen_of_two_evaluations() -> None:
    still = every_500(4.0, 4.0, 4.0, train_loss=flat(4.0, 1500))
    assert decided(still) == ("continue", "inconclusive")
    stages = [("screen", 1000), ("confirm", 5000), ("long", 50_000)]
    (warning,) = unable_to_fire(STAGE_GATE, stages, 500)
    assert "needs 4 evaluations" in warning
    assert "cannot fire in screen" in warning
    assert unable_to_fire(STAGE_GATE, [("screen", 2000), *stages[1:]], 500) == []


@pytest.mark.parametrize(
    ("losses", "gained"),
    [
        pytest.param({500: 4.0, 1000: 3.8}, None, id="undefined before the third"),
        pytest.param({0: 9.0, 500: 4.0, 1000: 3.8}, None, id="step 0 is no evaluation"),
        pytest.param({500: 4.0, 1000: 3.8, 1500: 3.5}, 0.5, id="0.5 nats in 1,000 steps"),
        pytest.param({500: 4.0, 1000: 3.8, 2500: 3.5}, 0.25, id="the same in 2,000 steps"),
        pytest.param({500: 4.0, 1000: 4.1, 1500: 4.2}, 0.0, id="of the best, so never negative"),
        pytest.param({500: 9.0, 1000: 4.0, 1500: 3.9, 2000: 3.8}, 0.2, id="over the last 2 alone"),
    ],
)
def test_clause_moving_improvement_is_per_thousand_steps_of_the_best(
    losses: dict[int, float], gained: float | None
) -> None:
    subject = curve("a", losses)
    assert moving_improvement(subject) == (gained if gained is None else pytest.approx(gained))
    shown = judge_evaluation(subject, stage=CONFIRM, policy=STAGE_GATE).evidence["moving_improvement"]
    assert shown == (gained if gained is None else pytest.approx(gained))


class TestNearFlatSlope:
    def judge(self, step: int, train_loss: tuple[tuple[int, float], ...]) -> Verdict:
        return stop("near_flat_slope", case(curve("a", {step: 3.0}, train_loss=train_loss)))

    @pytest.mark.parametrize(
        ("slope", "verdict"),
        [(0.0, PASS), (-0.0099, PASS), (0.0099, PASS), (-0.01, FAIL), (0.01, FAIL), (-0.0101, FAIL)],
    )
    def test_clause_near_flat_slope_is_below_a_hundredth_per_thousand_steps(
        self, slope: float, verdict: Verdict
    ) -> None:
        assert self.judge(2000, flat(3.0, 2000, every=10, slope_per_1k=slope)) is verdict

    @pytest.mark.parametrize(
        ("step", "still_from", "verdict"),
        [
            pytest.param(2000, 1400, PASS, id="500 steps of a short run"),
            pytest.param(2000, 1990, FAIL, id="and of all of them"),
            pytest.param(10_000, 7900, PASS, id="20% of a longer one"),
            pytest.param(10_000, 9400, FAIL, id="500 steps are not enough there"),
        ],
    )
    def test_clause_near_flat_slope_looks_at_500_steps_or_a_fifth(
        self, step: int, still_from: int, verdict: Verdict
    ) -> None:
        falling = tuple((s, 3.0 + (still_from - s) / 1000) for s in range(10, still_from, 10))
        still = tuple((s, 3.0) for s in range(still_from, step + 1, 10))
        assert self.judge(step, falling + still) is verdict

    def test_clause_near_flat_slope_takes_20_points(self) -> None:
        assert self.judge(2000, flat(3.0, 2000, every=10)[-20:]) is PASS
        assert self.judge(2000, flat(3.0, 2000, every=10)[-19:]) is OPEN

    def test_clause_near_flat_slope_is_a_median_that_spikes_do_not_move(self) -> None:
        spiky = tuple((s, y + 1.0 * (s == 1700)) for s, y in flat(3.0, 2000, every=10))
        assert self.judge(2000, spiky) is PASS


class TestRoutingNotImproving:
    def judge(self, *seen: tuple[float, float] | None) -> Verdict:
        changes = {500 * i: {"routing": routing(*s) if s else None} for i, s in enumerate(seen, 1)}
        mixture = identity(parameters_active=10)
        subject = curve("a", dict.fromkeys(changes, 4.0), changes=changes, who=mixture)
        return stop("routing_not_improving", case(subject))

    @pytest.mark.parametrize(
        ("entropy", "imbalance", "verdict"),
        [
            (0.91, 0.55, PASS),
            (0.9101, 0.5, FAIL),
            (0.9, 0.5501, FAIL),
            (0.89, 0.45, PASS),
            (0.8899, 0.5, FAIL),
        ],
    )
    def test_clause_routing_not_improving_within_both_ranges(
        self, entropy: float, imbalance: float, verdict: Verdict
    ) -> None:
        assert self.judge((0.9, 0.5), (entropy, imbalance), (0.9, 0.5), (0.9, 0.5)) is verdict

    def test_clause_routing_not_improving_looks_at_four_evaluations(self) -> None:
        assert self.judge((0.1, 9.0), *[(0.9, 0.5)] * 4) is PASS
        assert self.judge(*[(0.9, 0.5)] * 3) is OPEN

    def test_clause_routing_not_improving_of_a_dense_model_and_without_metrics(self) -> None:
        assert stop("routing_not_improving", case(every_500(4.0))) is PASS
        assert self.judge((0.9, 0.5), None, (0.9, 0.5), (0.9, 0.5)) is OPEN
        silent = every_500(*[4.0] * 6, who=identity(parameters_active=10), train_loss=flat(4.0, 3000))
        assert decided(silent) == ("continue", "inconclusive")


class TestHealthyRouting:
    @pytest.mark.parametrize(
        ("metrics", "good"),
        [
            (routing(worst=0.5), True),
            (routing(worst=0.4999), False),
            (routing(experts=40, dead_experts=9), True),
            (routing(experts=40, dead_experts=10), False),
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
        once = [Ended(Reason.DIVERGED, 1500)]
        assert retries == 1
        assert isinstance(after(once, diverged_retries=retries), Again)
        again = after([*once, Ended(Reason.DIVERGED, 2500)], diverged_retries=retries)
        assert isinstance(again, GiveUp)
        assert "last good checkpoint" in again.text
        assert Reason.DIVERGED.status is RunStatus.FAILED
