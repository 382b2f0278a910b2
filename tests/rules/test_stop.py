"""Protocol 3: what each stop criterion means, at its boundaries."""

import math
from typing import Any

import pytest
from rule_builders import IDENTITY, case, curve, flat, identity, result, routing

from orchestrator.domain.evidence import Verdict

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
NO_IMPROVEMENT = {"criterion": "no_improvement"}
SLOPE = {"criterion": "near_flat_slope"}
ROUTING = {"criterion": "routing_not_improving"}
STEPS = (500, 1000, 1500, 2000, 2500)


def losses(*values: float) -> dict[int, float]:
    return {500 * i: value for i, value in enumerate(values, 1)}


class TestNoImprovement:
    @pytest.mark.parametrize(
        ("values", "verdict"),
        [
            pytest.param((), OPEN, id="no evaluation"),
            pytest.param((4.0, 4.0, 4.0), OPEN, id="fewer than 4 evaluations is inconclusive"),
            pytest.param((4.0, 3.98, 3.96, 3.94), PASS, id="equality: exactly 0.02 each is no improvement"),
            pytest.param((4.0, 3.9799, 3.96, 3.94), FAIL, id="one improvement above 0.02 is enough"),
            pytest.param((4.0, 3.97, 3.96, 3.95), FAIL, id="the first of the last 3 counts"),
            pytest.param((5.0, 4.0, 3.99, 3.98, 3.97), PASS, id="older improvements do not count"),
            pytest.param((4.0, 4.5, 4.0, 3.99), PASS, id="recovering to the best is no improvement"),
            pytest.param((4.0, math.nan, 3.99, 3.985), PASS, id="an evaluation that is NaN improves nothing"),
            pytest.param((math.nan, 4.0, 4.0, 4.0), OPEN, id="nothing finite to improve on"),
        ],
    )
    def test_clause(self, values: tuple[float, ...], verdict: Verdict) -> None:
        assert result(NO_IMPROVEMENT, case(curve("a", losses(*values)), step=2000)).verdict is verdict

    def test_an_evaluation_at_step_0_is_not_one_of_the_four(self) -> None:
        subject = curve("a", {0: 4.0, 500: 4.0, 1000: 4.0, 1500: 4.0})
        assert result(NO_IMPROVEMENT, case(subject)).verdict is OPEN

    def test_says_what_it_saw(self) -> None:
        found = result(NO_IMPROVEMENT, case(curve("a", losses(4.0, 3.99, 3.97, 3.97))))
        assert found.measured == pytest.approx(0.02)
        assert found.threshold == 0.02
        assert "0.020 at most in the last 3 evaluations" in found.text


class TestNearFlatSlope:
    def judge(self, train_loss: tuple[tuple[int, float], ...], step: int = 2000, **changes: Any) -> Any:
        return result(SLOPE | changes, case(curve("a", {step: 3.0}, train_loss=train_loss)))

    @pytest.mark.parametrize(
        ("slope", "verdict"),
        [
            pytest.param(0.0, PASS, id="flat"),
            pytest.param(-0.009, PASS, id="falling by less than 0.01 per 1k"),
            pytest.param(0.009, PASS, id="rising by less than 0.01 per 1k"),
            pytest.param(-0.01, FAIL, id="equality: exactly 0.01 is not below it"),
            pytest.param(-0.011, FAIL, id="falling faster"),
            pytest.param(0.011, FAIL, id="rising faster: the size of the slope counts"),
        ],
    )
    def test_slope(self, slope: float, verdict: Verdict) -> None:
        assert self.judge(flat(3.0, 2000, every=10, slope_per_1k=slope)).verdict is verdict

    def test_at_least_20_points(self) -> None:
        assert self.judge(flat(3.0, 2000, every=25)).verdict is PASS  # 20 in the last 500 steps
        assert self.judge(flat(3.0, 2000, every=26)).verdict is OPEN
        assert self.judge(()).verdict is OPEN

    def test_the_window_is_20_percent_of_a_longer_run(self) -> None:
        falling = tuple((step, 4.0 - step / 10_000) for step in range(10, 9001, 10))
        still = tuple((step, 3.1) for step in range(9010, 10_001, 10))
        found = self.judge(falling + still, step=10_000)
        assert "last 2,000" in found.text
        assert found.verdict is FAIL
        assert self.judge(falling + still, step=10_000, window_share=0.05).verdict is PASS

    def test_points_that_are_not_finite_are_left_out(self) -> None:
        spoiled = tuple((s, math.nan if s == 1800 else y) for s, y in flat(3.0, 2000, every=20))
        assert self.judge(spoiled).verdict is PASS

    def test_spikes_do_not_move_it(self) -> None:
        spiky = tuple((s, y + (5.0 if s % 250 == 0 else 0.0)) for s, y in flat(3.0, 2000, every=10))
        assert self.judge(spiky, smoothing=1).verdict is PASS

    def test_restarted_points_at_one_step_have_no_slope(self) -> None:
        assert self.judge(((2000, 3.0),) * 20).verdict is OPEN


class TestRoutingNotImproving:
    def judge(self, entropies: tuple[float, ...], imbalances: tuple[float, ...]) -> Any:
        pairs = zip(STEPS, entropies, imbalances, strict=False)
        changes = {step: {"routing": routing(entropy, imbalance)} for step, entropy, imbalance in pairs}
        return result(ROUTING, case(curve("a", dict.fromkeys(changes, 4.0), changes=changes)))

    @pytest.mark.parametrize(
        ("entropies", "imbalances", "verdict"),
        [
            pytest.param((0.9, 0.91, 0.9, 0.9), (0.5, 0.55, 0.5, 0.5), PASS, id="equality of both ranges"),
            pytest.param((0.9, 0.911, 0.9, 0.9), (0.5,) * 4, FAIL, id="entropy range above 0.01"),
            pytest.param((0.9,) * 4, (0.5, 0.551, 0.5, 0.5), FAIL, id="imbalance range above 0.05"),
            pytest.param((0.1, 0.9, 0.9, 0.9, 0.9), (2.0, 0.5, 0.5, 0.5, 0.5), PASS, id="last 4 only"),
            pytest.param((0.9,) * 3, (0.5,) * 3, OPEN, id="fewer than 4 evaluations"),
        ],
    )
    def test_ranges(
        self, entropies: tuple[float, ...], imbalances: tuple[float, ...], verdict: Verdict
    ) -> None:
        assert self.judge(entropies, imbalances).verdict is verdict

    def test_a_dense_model_is_vacuously_true(self) -> None:
        assert result(ROUTING, case(curve("a", {500: 4.0}))).verdict is PASS
        one_expert = curve("a", {500: 4.0}, every={"routing": routing(experts=1)})
        assert result(ROUTING, case(one_expert)).verdict is PASS

    @pytest.mark.parametrize(
        ("who", "every"),
        [
            pytest.param(identity(parameters_active=10), {}, id="idle parameters"),
            pytest.param(IDENTITY, {"aux_coef": 0.01}, id="a balance loss"),
            pytest.param(IDENTITY, {"aux_loss": 1.0}, id="a balance loss value"),
            pytest.param(IDENTITY, {"routing": routing(entropy=math.nan)}, id="metrics that are NaN"),
        ],
    )
    def test_an_moe_without_the_metrics_is_inconclusive(self, who: Any, every: dict[str, Any]) -> None:
        subject = curve("a", dict.fromkeys(STEPS, 4.0), who=who, every=every)
        assert result(ROUTING, case(subject)).verdict is OPEN

    def test_one_evaluation_without_the_metrics_is_inconclusive(self) -> None:
        changes = {step: {"routing": routing()} for step in STEPS if step != 1500}
        subject = curve("a", dict.fromkeys(STEPS, 4.0), changes=changes)
        assert result(ROUTING, case(subject)).verdict is OPEN
