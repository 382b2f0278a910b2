"""Divergence, routing health and stability, at their boundaries."""

import math
from typing import Any

import pytest
from rule_builders import case, curve, identity, result, routing

from orchestrator.domain.evidence import Verdict
from orchestrator.rules.criteria_health import NotDiverged, not_diverged

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
HEALTHY = {"criterion": "healthy_routing"}
STABLE = {"criterion": "stable"}


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        pytest.param([], OPEN, id="no evaluation"),
        pytest.param([4.0], PASS, id="finite"),
        pytest.param([math.nan], FAIL, id="NaN"),
        pytest.param([4.0, math.inf], FAIL, id="infinite"),
        pytest.param([4.0, -math.inf], FAIL, id="minus infinity"),
        pytest.param([4.0, 7.1], PASS, id="3 nats above once"),
        pytest.param([4.0, 7.1, 7.2], FAIL, id="3 nats above at 2 evaluations"),
        pytest.param([4.0, 7.0, 7.0], PASS, id="equality: exactly 3 is not more than 3"),
        pytest.param([4.0, 7.1, 4.0, 7.1], FAIL, id="2 evaluations need not be neighbours"),
        pytest.param([4.0, 7.1, 7.2, 4.0], PASS, id="a run that came back is not diverged"),
        pytest.param([9.0, 7.1, 4.0], PASS, id="its own best is the best until then"),
    ],
)
def test_diverged(losses: list[float], verdict: Verdict) -> None:
    subject = curve("a", {500 * i: loss for i, loss in enumerate(losses, 1)})
    assert not_diverged(NotDiverged(), case(subject, step=500)).verdict is verdict


class TestHealthyRouting:
    def judge(self, *seen: Any) -> Verdict:
        changes = {500 * i: {"routing": metrics} for i, metrics in enumerate(seen, 1)}
        subject = curve("a", dict.fromkeys(changes, 4.0), changes=changes, who=identity(parameters_active=10))
        found: Verdict = result(HEALTHY, case(subject)).verdict
        return found

    @pytest.mark.parametrize(
        ("metrics", "good"),
        [
            pytest.param(routing(worst=0.5), True, id="equality: worst layer at 0.5"),
            pytest.param(routing(0.9, worst=0.499), False, id="worst layer below 0.5"),
            pytest.param(routing(dead_experts=9), True, id="9 of 40 dead"),
            pytest.param(routing(dead_experts=10), False, id="equality: 25% dead is not fewer"),
            pytest.param(routing(experts=60, dead_experts=15), False, id="15 of 60 dead"),
        ],
    )
    def test_one_evaluation(self, metrics: Any, good: bool) -> None:
        assert self.judge(metrics) is (PASS if good else OPEN)
        assert self.judge(metrics, metrics) is (PASS if good else FAIL)

    @pytest.mark.parametrize(
        ("health", "verdict"),
        [
            pytest.param("bg", PASS, id="recovered"),
            pytest.param("gb", OPEN, id="bad once is not unhealthy yet"),
            pytest.param("bgb", OPEN, id="not consecutive"),
            pytest.param("gbb", FAIL, id="2 consecutive"),
            pytest.param("bb?", OPEN, id="no metrics now"),
            pytest.param("b?b", OPEN, id="no metrics between"),
        ],
    )
    def test_two_consecutive(self, health: str, verdict: Verdict) -> None:
        metrics = {"g": routing(), "b": routing(worst=0.1), "?": None}
        assert self.judge(*(metrics[letter] for letter in health)) is verdict

    def test_a_dense_model_is_healthy(self) -> None:
        assert result(HEALTHY, case(curve("a", {500: 4.0}))).verdict is PASS

    def test_an_moe_without_the_metrics_is_inconclusive(self) -> None:
        assert self.judge(None) is OPEN


class TestStable:
    def judge(self, restarts: tuple[int, ...] = (), nan_events: tuple[int, ...] = (0, 0)) -> Verdict:
        changes = {500 * i: {"nan_events": count} for i, count in enumerate(nan_events, 1)}
        subject = curve("a", dict.fromkeys(changes, 4.0), changes=changes, restarts=restarts)
        found: Verdict = result(STABLE, case(subject, step=500)).verdict
        return found

    @pytest.mark.parametrize(
        ("restarts", "verdict"),
        [
            pytest.param((), PASS, id="none"),
            pytest.param((500, 900), PASS, id="2 within 1k steps"),
            pytest.param((100, 500, 900), FAIL, id="3 within 1k steps"),
            pytest.param((0, 500, 1000), PASS, id="equality: a window of 1k steps ends before its end"),
            pytest.param((0, 500, 999), FAIL, id="3 within 999 steps"),
            pytest.param((0, 900, 1900, 2800), PASS, id="many, far apart"),
            pytest.param((500, 500), FAIL, id="two without progress between"),
            pytest.param((500, 400), FAIL, id="back behind the one before"),
        ],
    )
    def test_restarts(self, restarts: tuple[int, ...], verdict: Verdict) -> None:
        assert self.judge(restarts) is verdict

    @pytest.mark.parametrize(
        ("nan_events", "verdict"),
        [
            pytest.param((0,), PASS, id="none"),
            pytest.param((1,), FAIL, id="one before the first evaluation"),
            pytest.param((1, 1), PASS, id="none since the evaluation before"),
            pytest.param((1, 2), FAIL, id="one since the evaluation before"),
            pytest.param((), OPEN, id="no evaluation"),
        ],
    )
    def test_nan_events(self, nan_events: tuple[int, ...], verdict: Verdict) -> None:
        assert self.judge((), nan_events) is verdict
