"""Clause by clause: the stop rule of `stage-gate`, from a run's own curve."""

from typing import Any

import pytest
from rule_builders import (
    CONFIRM,
    SHORT_SCREEN,
    STAGE_GATE,
    Case,
    case,
    curve,
    flat,
    identity,
    routing,
)

from orchestrator.domain.curves import Curve, moving_improvement
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.nodes import ask
from orchestrator.rules.policies import Policy, unable_to_fire

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

    @pytest.mark.parametrize(
        ("step", "oldest", "verdict"),
        [(2000, 1501, PASS), (2000, 1500, OPEN), (10_000, 8001, PASS), (10_000, 8000, OPEN)],
    )
    def test_clause_near_flat_slope_window_ends_there(self, step: int, oldest: int, verdict: Verdict) -> None:
        twenty = ((oldest, 3.0), *flat(3.0, step, every=10)[-19:])
        assert self.judge(step, twenty) is verdict

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
