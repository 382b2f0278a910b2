"""Protocol 4b: meaningfully better routing balance or efficiency, and nothing else worse."""

import math
from typing import Any

import pytest
from rule_builders import case, control, curve, identity, result, routing

from orchestrator.domain.evidence import Verdict

PASS, FAIL, OPEN, INVALID = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID
BETTER = {"criterion": "meaningfully_better"}
GPU = {"device": "cuda: NVIDIA H100"}


def verdict(
    mine: dict[str, Any] | None = None,
    theirs: dict[str, Any] | None = None,
    who: dict[str, Any] | None = None,
    whose: dict[str, Any] | None = None,
    **params: Any,
) -> Verdict:
    subject = curve("a", {1000: 3.25}, every=mine or {}, who=identity(**(who or {})))
    anchor = control({1000: 3.25}, every=theirs or {}, who=identity(**(whose or {})))
    found: Verdict = result(BETTER | params, case(subject, anchor)).verdict
    return found


def balance(imbalance: float) -> dict[str, Any]:
    return {"routing": routing(imbalance=imbalance)}


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        pytest.param(0.80, 1.00, PASS, id="equality: 20% lower"),
        pytest.param(0.81, 1.00, FAIL, id="19% lower"),
        pytest.param(0.10, 0.15, PASS, id="equality: 0.05 lower"),
        pytest.param(0.11, 0.15, FAIL, id="27% lower, yet only 0.04"),
        pytest.param(1.00, 1.00, FAIL, id="the same"),
    ],
)
def test_imbalance_lower_by_20_percent_and_005(mine: float, theirs: float, expected: Verdict) -> None:
    assert verdict(balance(mine), balance(theirs)) is expected


@pytest.mark.parametrize(
    ("flops", "expected"),
    [
        pytest.param(1800.0, PASS, id="equality: -10%"),
        pytest.param(1801.0, FAIL, id="not quite -10%"),
        pytest.param(2000.0, FAIL, id="the same"),
    ],
)
def test_flops_per_token(flops: float, expected: Verdict) -> None:
    assert verdict(who={"flops_per_token": flops}) is expected


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        pytest.param(1100.0, PASS, id="equality: +10%"),
        pytest.param(1099.0, FAIL, id="not quite +10%"),
    ],
)
def test_throughput_on_the_same_accelerator(speed: float, expected: Verdict) -> None:
    assert verdict({"tokens_per_second": speed}, who=GPU, whose=GPU) is expected


@pytest.mark.parametrize(
    ("who", "whose", "devices", "expected"),
    [
        pytest.param(GPU, {"device": "cuda: NVIDIA A100"}, "accelerator", FAIL, id="other hardware"),
        pytest.param({}, {}, "accelerator", FAIL, id="CPU slots share cores"),
        pytest.param({}, {}, "any", PASS, id="a policy may take any device"),
        pytest.param({"threads": 2}, {"threads": 4}, "any", FAIL, id="other number of threads"),
        pytest.param(GPU, GPU, "none", FAIL, id="a policy may leave it out"),
    ],
)
def test_where_throughput_is_compared(
    who: dict[str, Any], whose: dict[str, Any], devices: str, expected: Verdict
) -> None:
    faster = {"tokens_per_second": 2000.0}
    assert verdict(faster, who=who, whose=whose, hardware_devices=devices) is expected


def test_throughput_on_a_cpu_can_neither_help_nor_harm() -> None:
    slower = {"tokens_per_second": 100.0}
    assert verdict(slower, who={"flops_per_token": 1000.0}) is PASS


CHEAPER = {"flops_per_token": 1000.0, **GPU}


@pytest.mark.parametrize(
    ("mine", "theirs", "who", "expected"),
    [
        pytest.param({"tokens_per_second": 950.0}, {}, CHEAPER, PASS, id="equality: tokens/s -5%"),
        pytest.param({"tokens_per_second": 949.0}, {}, CHEAPER, FAIL, id="tokens/s worse by more"),
        pytest.param({"peak_memory_bytes": 105}, {"peak_memory_bytes": 100}, CHEAPER, PASS, id="memory +5%"),
        pytest.param({"peak_memory_bytes": 106}, {"peak_memory_bytes": 100}, CHEAPER, FAIL, id="memory +6%"),
        pytest.param({"peak_memory_bytes": 999}, {}, CHEAPER, PASS, id="memory known on one side only"),
        pytest.param(balance(2.1), balance(2.0), CHEAPER, PASS, id="equality: imbalance +5%"),
        pytest.param(balance(2.11), balance(2.0), CHEAPER, FAIL, id="imbalance worse by more"),
        pytest.param(balance(0.15), balance(0.1), CHEAPER, PASS, id="imbalance within the floor of 0.05"),
        pytest.param(balance(0.16), balance(0.1), CHEAPER, FAIL, id="imbalance beyond the floor"),
        pytest.param(
            {"tokens_per_second": 1200.0}, {}, {"flops_per_token": 2100.0, **GPU}, PASS, id="FLOPs +5%"
        ),
        pytest.param(
            {"tokens_per_second": 1200.0}, {}, {"flops_per_token": 2101.0, **GPU}, FAIL, id="FLOPs more"
        ),
    ],
)
def test_nothing_else_worse_by_more_than_5_percent(
    mine: dict[str, Any], theirs: dict[str, Any], who: dict[str, Any], expected: Verdict
) -> None:
    assert verdict(mine, theirs, who, GPU) is expected


def test_balance_against_a_dense_model_is_not_compared() -> None:
    assert verdict(balance(5.0), {}, {"flops_per_token": 1000.0}) is PASS
    assert verdict(balance(0.0), {}) is FAIL


def test_an_moe_without_the_metrics_is_inconclusive() -> None:
    assert verdict({"aux_coef": 0.01}, balance(0.5)) is OPEN
    assert verdict({"aux_coef": 0.01}, balance(0.5), {"flops_per_token": 1000.0}) is OPEN


@pytest.mark.parametrize("speed", [0.0, math.nan, math.inf])
def test_a_control_without_a_speed_is_inconclusive(speed: float) -> None:
    assert verdict({}, {"tokens_per_second": speed}, CHEAPER, GPU) is OPEN


def test_without_flops_of_the_control_it_is_inconclusive() -> None:
    assert verdict(whose={"flops_per_token": 0.0}) is OPEN


def test_not_comparable_is_invalid() -> None:
    assert verdict(who={"flops_per_token": 1.0, "tokenizer": "other"}) is INVALID


def test_without_a_control_it_is_inconclusive() -> None:
    assert result(BETTER, case(curve("a", {1000: 3.0}))).verdict is OPEN


def test_peak_memory_on_a_cpu_can_neither_help_nor_harm() -> None:
    cheaper = {"flops_per_token": 1000.0}
    assert verdict({"peak_memory_bytes": 900}, {"peak_memory_bytes": 100}, cheaper) is PASS
