"""Clause by clause: the eight points of the protocol."""

from dataclasses import replace
from typing import Any

import pytest
from plan_builders import AT_GATE, STOPPED, experiment, planned, run
from point_builders import judge, runs_at, stopped
from rule_builders import (
    CONFIRM,
    POLICIES,
    ROOT,
    SHORT_SCREEN,
    STAGE_GATE,
    case,
    control,
    curve,
    entrants,
    flat,
    identity,
    routing,
)

from orchestrator.cli.files import read_spec
from orchestrator.domain.curves import Curve, StageView
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.evidence import Verdict
from orchestrator.domain.spec import parse_spec
from orchestrator.domain.spec_models import Dependent
from orchestrator.rules.bands import Band, band_view
from orchestrator.rules.gate import close_stage
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.nodes import ask
from orchestrator.rules.plan import EndExperiment

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
MATRIX = parse_spec(read_spec(ROOT / "configs" / "experiments" / "lean-matrix.yaml"))


def still(name: str, level: float, steps: int = 2000, **changes: Any) -> Curve:
    losses = dict.fromkeys(range(500, steps + 1, 500), level)
    return curve(name, losses, **({"train_loss": flat(level, steps)} | changes))


def test_protocol_1_stages_and_evaluations_are_data_of_the_spec() -> None:
    assert [(stage.name, stage.steps) for stage in MATRIX.stages[:2]] == [("screen", 1000), ("confirm", 5000)]
    assert MATRIX.stages[2].name == "long"
    assert (MATRIX.eval_every, MATRIX.policy) == (500, "stage-gate")
    assert MATRIX.horizon == MATRIX.stages[2].steps  # of every run's schedule


def test_protocol_2_every_evaluation_is_judged_with_its_best_and_its_improvement() -> None:
    for last in (1500, 2000, 2500):
        losses = {step: 4.0 - step / 10_000 for step in range(500, last + 1, 500)}
        found = judge_evaluation(curve("a", losses), stage=CONFIRM, policy=STAGE_GATE)
        assert found.evidence["best_eval_so_far"] == losses[last]
        assert found.evidence["moving_improvement"] == pytest.approx(0.1)
        assert [part.name for part in found.criteria] == ["not_diverged", "healthy_routing", "stop"]


@pytest.mark.parametrize(
    ("subject", "stops"),
    [
        pytest.param(still("a", 3.5), True, id="all three"),
        pytest.param(curve("a", {500: 4.0, 1000: 3.9, 1500: 3.8, 2000: 3.7}), False, id="it improves"),
        pytest.param(still("a", 3.5, train_loss=flat(3.5, 2000, slope_per_1k=-1.0)), False, id="a slope"),
        pytest.param(
            still(
                "a", 3.5, changes={s: {"routing": routing(0.5 + s / 1e4)} for s in (500, 1000, 1500, 2000)}
            ),
            False,
            id="the routing improves",
        ),
    ],
)
def test_protocol_3_stops_when_all_of_three_are_true(subject: Curve, stops: bool) -> None:
    found = judge_evaluation(subject, stage=CONFIRM, policy=STAGE_GATE)
    assert ((found.kind.value, found.reason) == ("stop", "plateau")) is stops


@pytest.mark.parametrize(
    ("loss", "flops", "promotes"),
    [
        pytest.param(3.20, 2000.0, True, id="a: better by 0.05"),
        pytest.param(3.25, 1000.0, True, id="b: the same at half the cost"),
        pytest.param(3.25, 2000.0, False, id="neither"),
        pytest.param(3.30, 1000.0, False, id="cheaper, and not the same loss"),
    ],
)
def test_protocol_4_promotes_when_one_of_two_is_true(loss: float, flops: float, promotes: bool) -> None:
    subject = curve("a", {1000: loss}, who=identity(flops_per_token=flops))
    assert (ask(STAGE_GATE.promote, case(subject, control({1000: 3.25}))).verdict is PASS) is promotes


def test_protocol_5_the_lean_matrix() -> None:
    screen, confirm, last = MATRIX.stages
    assert set(screen.static) == {"aux-0.0", "aux-0.005", "aux-0.01", "aux-0.02"}
    assert MATRIX.control == "aux-0.01"
    top1 = screen.variants["top1"]
    assert isinstance(top1, Dependent)
    assert set(top1.source.best_of) == set(screen.static)
    assert top1.set == {"moe.top_k": 1}
    assert confirm.promote is not None
    assert last.promote is not None
    assert (confirm.promote.best, last.promote.best) == (2, 2)
    assert list(confirm.around.values()) == [{"moe.num_experts": 20}, {"moe.num_experts": 60}]


class TestProtocol6:
    @pytest.mark.parametrize("name", sorted(POLICIES))
    def test_protocol_6_no_criterion_stops_the_control(self, name: str) -> None:
        sick = still("control", 9.0, 5000, control=True, every={"routing": routing(worst=0.1)})
        found = judge_evaluation(sick, stage=replace(CONFIRM, steps=6000), policy=POLICIES[name])
        assert (found.kind.value, found.reason) == ("continue", "control")
        runs = [sick, *runs_at(5000, {f"v{i}": 3.0 + i / 10 for i in range(8)})[1:]]
        assert "control" not in stopped(judge(runs, POLICIES[name], step=5000))

    def test_protocol_6_the_control_counts_against_no_cap(self) -> None:
        runs = [control({1000: 1.0}), curve("a", {1000: 3.0}), curve("b", {1000: 3.1})]
        rule = PromoteRule(2, "all")
        assert close_stage(entrants(*runs), stage=CONFIRM, promote=rule, policy=STAGE_GATE).winners == (
            "a",
            "b",
        )

    def test_protocol_6_the_control_runs_as_far_as_the_furthest_variant(self) -> None:
        anchor = run(1, control=True, stage=1)
        (ended,) = planned(experiment(anchor, run(2, STOPPED, stage=1), closed=1))
        assert isinstance(ended, EndExperiment)
        others = planned(experiment(anchor, run(2, AT_GATE, stage=1), closed=1), free=1)
        assert not any(isinstance(action, EndExperiment) for action in others)


@pytest.mark.parametrize(
    ("losses", "changes", "verdict"),
    [
        pytest.param((5.10, 4.10), {}, PASS, id="0.10 at the first"),
        pytest.param((5.101, 4.0), {}, FAIL, id="above 0.10 at the first"),
        pytest.param((5.05, 4.06), {}, PASS, id="widened by 0.01"),
        pytest.param((5.05, 4.061), {}, FAIL, id="widened by more"),
        pytest.param((5.05, 4.05), {"restarts": (600, 600)}, FAIL, id="a restart loop"),
        pytest.param((5.05, 4.05), {"every": {"routing": routing(worst=0.1)}}, FAIL, id="a collapse"),
        pytest.param((5.05,), {}, OPEN, id="one evaluation shows no trend"),
    ],
)
def test_protocol_7_the_short_screen(losses: Any, changes: dict[str, Any], verdict: Verdict) -> None:
    subject = curve("a", dict(zip((500, 1000), losses, strict=False)), **changes)
    assert ask(SHORT_SCREEN.promote, case(subject, control({500: 5.0, 1000: 4.0}))).verdict is verdict
    stage = StageView("screen", 2000, is_last=False)
    plateau = judge_evaluation(still("b", 4.0, 1500), stage=stage, policy=SHORT_SCREEN)
    assert plateau.kind.value == "continue"  # it stops nothing for a plateau


@pytest.mark.parametrize(
    ("drop", "band"), [(2.9, Band.EXCELLENT), (3.1, Band.GOOD), (6.9, Band.GOOD), (10.1, Band.WEAK)]
)
def test_protocol_8_the_parameter_matched_verdict(drop: float, band: Band) -> None:
    loss = 3.0 * (1 + drop / 100)
    view = band_view(loss, 3.0, parameters=50, control_parameters=100, bands=STAGE_GATE.bands)
    assert view.band is band
    assert view.fewer_parameters == pytest.approx(50)
