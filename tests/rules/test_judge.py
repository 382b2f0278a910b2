"""What is decided after each evaluation, and by which precedence."""

import math
from dataclasses import replace
from typing import Any

import pytest
from rule_builders import CONFIRM, LONG, SCREEN, SHORT_SCREEN, STAGE_GATE, curve, flat, identity, routing

from orchestrator.domain.curves import Curve, StageView
from orchestrator.domain.decisions import DecisionKind
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.judge import judge_evaluation

COLLAPSED = {"routing": routing(0.2, 8.0)}


def plateaued(steps: int = 2000, **changes: Any) -> Curve:
    losses = dict.fromkeys(range(500, steps + 1, 500), 3.5)
    return curve("a", losses, **({"train_loss": flat(3.5, steps)} | changes))


def decided(subject: Curve, stage: StageView = CONFIRM) -> tuple[str, str]:
    found = judge_evaluation(subject, stage=stage, policy=STAGE_GATE)
    return found.kind.value, found.reason


@pytest.mark.parametrize(
    ("subject", "stage", "expected"),
    [
        pytest.param(plateaued(), CONFIRM, ("stop", "plateau"), id="3: all stop criteria"),
        pytest.param(
            plateaued(1500), CONFIRM, ("continue", "inconclusive"), id="3: fewer than 4 evaluations"
        ),
        pytest.param(plateaued(train_loss=()), CONFIRM, ("continue", "inconclusive"), id="3: no slope known"),
        pytest.param(
            plateaued(train_loss=flat(3.5, 2000, slope_per_1k=-0.5)),
            CONFIRM,
            ("continue", "stop_criteria_not_met"),
            id="3: the train loss still falls",
        ),
        pytest.param(
            plateaued(control=True), CONFIRM, ("continue", "control"), id="6: no criterion stops the control"
        ),
        pytest.param(
            plateaued(every=COLLAPSED),
            CONFIRM,
            ("stop", "unhealthy_routing"),
            id="precedence: unhealthy, stop",
        ),
        pytest.param(
            plateaued(every=COLLAPSED, control=True),
            CONFIRM,
            ("continue", "control"),
            id="6: an unhealthy control goes on",
        ),
        pytest.param(
            plateaued(1000, every=COLLAPSED),
            SCREEN,
            ("stop", "unhealthy_routing"),
            id="precedence: unhealthy, gate",
        ),
        pytest.param(plateaued(5000), CONFIRM, ("hold", "at_gate"), id="the gate decides at its own step"),
        pytest.param(plateaued(5000, control=True), CONFIRM, ("hold", "at_gate"), id="the control holds too"),
        pytest.param(plateaued(1000), SCREEN, ("hold", "at_gate"), id="screen holds at 1000"),
        pytest.param(plateaued(50_000), LONG, ("continue", "finished"), id="the last step of the last stage"),
        pytest.param(curve("a", {500: math.nan}), SCREEN, ("fail", "diverged"), id="diverged: NaN"),
        pytest.param(
            curve("a", {500: 5.0, 1000: math.inf}),
            SCREEN,
            ("fail", "diverged"),
            id="precedence: diverged, gate",
        ),
        pytest.param(
            curve("a", {500: 4.0, 1000: 7.5, 1500: 7.5}, every=COLLAPSED),
            CONFIRM,
            ("fail", "diverged"),
            id="precedence: diverged, unhealthy",
        ),
        pytest.param(
            curve("a", {500: math.nan}, control=True),
            SCREEN,
            ("fail", "diverged"),
            id="a control can diverge",
        ),
        pytest.param(
            curve("a", {500: 5.0, 1000: 4.5, 1500: 4.2, 2000: 4.0}, train_loss=flat(4.0, 2000)),
            CONFIRM,
            ("continue", "improving"),
            id="improving",
        ),
    ],
)
def test_decision(subject: Curve, stage: StageView, expected: tuple[str, str]) -> None:
    assert decided(subject, stage) == expected


def test_an_moe_without_metrics_is_never_stopped_for_a_plateau() -> None:
    silent = plateaued(who=identity(parameters_active=10))
    assert decided(silent) == ("continue", "inconclusive")


def test_short_screen_stops_nothing_for_a_plateau() -> None:
    found = judge_evaluation(plateaued(), stage=CONFIRM, policy=SHORT_SCREEN)
    assert found.kind is DecisionKind.CONTINUE


def test_an_unhealthy_control_shows_it() -> None:
    found = judge_evaluation(plateaued(every=COLLAPSED, control=True), stage=CONFIRM, policy=STAGE_GATE)
    assert "unhealthy" in found.text
    assert [r.verdict for r in found.criteria if r.name == "healthy_routing"] == [Verdict.FAIL]


def test_the_evidence_is_frozen_as_json() -> None:
    found = judge_evaluation(
        curve("a", {500: 4.0, 1000: math.nan}, every=COLLAPSED), stage=CONFIRM, policy=STAGE_GATE
    )
    assert found.evidence["eval_loss"] == "nan"
    assert found.evidence["gate_value"] == 4.0
    assert found.evidence["best_eval_so_far"] == 4.0
    assert found.evidence["stage"] == "confirm"
    assert found.evidence["routing"] is not None


def test_best_and_moving_improvement_are_computed_at_every_evaluation() -> None:
    found = judge_evaluation(curve("a", {500: 4.0, 1000: 3.8, 1500: 3.9}), stage=CONFIRM, policy=STAGE_GATE)
    assert found.evidence["best_eval_so_far"] == 3.8
    assert found.evidence["moving_improvement"] == pytest.approx(0.2)


def test_no_evaluation_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="without an evaluation"):
        judge_evaluation(replace(plateaued(), evaluations=()), stage=SCREEN, policy=STAGE_GATE)
