"""The decisions on record, which the rules must reproduce."""

import pytest
from rule_builders import CONFIRM, SHORT_SCREEN, STAGE_GATE, case, control, curve, flat, identity, routing

from orchestrator.domain.curves import StageView
from orchestrator.domain.decisions import DecisionKind
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.nodes import ask

DENSE = {500: 5.576, 1500: 4.279, 2000: 3.961, 2500: 3.786}
MOE = {500: 5.611, 1000: 4.767, 1500: 4.357, 2000: 4.105, 2500: 3.915}
MIXTURE = identity(parameters_total=3000, parameters_active=1200, flops_per_token=2400.0)
ROUTED = {"routing": routing(), "aux_coef": 0.01}


@pytest.mark.parametrize(("step", "gap"), [(1500, 0.078), (2000, 0.144), (2500, 0.129)])
def test_the_moe_is_behind_the_dense_reference_and_not_promoted(step: int, gap: float) -> None:
    moe = curve("moe", MOE, who=MIXTURE, every=ROUTED)
    found = ask(STAGE_GATE.promote, case(moe, control(DENSE), step))
    assert found.verdict is Verdict.FAIL
    beats = found.parts[0]
    assert beats.name == "beats_control"
    assert -beats.measured == pytest.approx(gap)
    assert f"{gap:.3f} above the control's" in beats.text


@pytest.mark.parametrize("last", [500, 1000, 1500, 2000, 2500])
def test_the_moe_is_not_stopped_since_it_still_improves(last: int) -> None:
    losses = {step: loss for step, loss in MOE.items() if step <= last}
    moe = curve("moe", losses, who=MIXTURE, every=ROUTED, train_loss=flat(4.0, last))
    found = judge_evaluation(moe, stage=CONFIRM, policy=STAGE_GATE)
    assert found.kind is DecisionKind.CONTINUE
    assert found.reason == ("improving" if last >= 2000 else "inconclusive")


def screen(first: float) -> tuple[Verdict, dict[str, Verdict]]:
    half = curve("half", {500: first}, who=identity(parameters_total=1500), every=ROUTED)
    found = ask(SHORT_SCREEN.promote, case(half, control({500: 5.576})))
    return found.verdict, {part.name: part.verdict for part in found.parts}


def test_half_the_parameters_with_a_first_gap_of_0320_fails_the_screen() -> None:
    verdict, parts = screen(5.896)
    assert verdict is Verdict.FAIL
    assert parts["first_gap"] is Verdict.FAIL


def test_half_the_parameters_with_a_first_gap_of_0080_waits_for_the_next_evaluation() -> None:
    verdict, parts = screen(5.656)
    assert verdict is Verdict.INCONCLUSIVE
    assert parts["first_gap"] is Verdict.PASS
    assert parts["non_widening"] is Verdict.INCONCLUSIVE


def test_one_evaluation_in_a_short_screen_is_judged_and_goes_on() -> None:
    half = curve("half", {500: 5.656}, every=ROUTED)
    found = judge_evaluation(half, stage=StageView("screen", 2000, is_last=False), policy=SHORT_SCREEN)
    assert found.kind is DecisionKind.CONTINUE
