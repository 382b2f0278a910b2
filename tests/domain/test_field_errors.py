"""What is said of a value of the wrong shape: what to write, at a field of bounded length."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.domain.backtests import Backtest, parse
from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.references import parse_reference
from orchestrator.domain.spec import parse_spec
from orchestrator.domain.spec_errors import LONGEST_FIELD

POLICY = "write the name of a policy, or its document as an object"
EVALUATION = {"step": 1, "eval_loss": 3.0}
HISTORY = {"curves": [{"config": "a", "points": [[1, 3.0], [2, 2.5]]}]}


def of_spec(**fields: Any) -> list[FieldError]:
    stage = {"name": "s", "steps": 500, "variants": {"a": {}}}
    return errors_of(parse_spec, {"name": "x", "base": {}, "control": "a", "stages": [stage]} | fields)


def of_variant(value: Any, name: str = "b") -> list[FieldError]:
    return of_spec(stages=[{"name": "s", "steps": 500, "variants": {"a": {}, name: value}}])


def of_reference(**fields: Any) -> list[FieldError]:
    return errors_of(parse_reference, {"name": "x", "evaluations": [EVALUATION]} | fields)


def of_backtest(**fields: Any) -> list[FieldError]:
    document = {"policy": "race", "history": HISTORY} | fields
    return errors_of(lambda asked: parse(asked, Backtest), document)


def errors_of(read: Callable[[Any], object], document: Any) -> list[FieldError]:
    with pytest.raises(Invalid) as caught:
        read(document)
    return caught.value.errors


def nested(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = {"not": inner}
    return inner


@pytest.mark.parametrize(
    ("found", "field", "message"),
    [
        (
            of_variant({"from": "aux-0.0"}),
            "stages[0].variants.b.from",
            "write `{best_of: [names]}` (got 'aux-0.0')",
        ),
        (of_variant({"from": ["a"]}), "stages[0].variants.b.from", "write `{best_of: [names]}` (got ['a'])"),
        (
            of_variant({"from": {"best_of": "a"}}),
            "stages[0].variants.b.from.best_of",
            "write a list (got 'a')",
        ),
        (of_variant(3, "from"), "stages[0].variants.from", "write an object (got 3)"),
        (of_spec(budget=3), "budget", "write an object with `slot_hours` (got 3)"),
        (of_spec(policy=3), "policy", f"{POLICY} (got 3)"),
        (of_spec(shadow=[]), "shadow", f"{POLICY} (got [])"),
        (of_spec(policy={"sigma": math.nan}), "policy", "Input should be a finite number (got nan)"),
        (of_reference(evaluations=[]), "evaluations", "write at least 1 item, not 0 (got [])"),
        (of_reference(evaluations="a"), "evaluations", "write a list (got 'a')"),
        (of_reference(source=3), "source", "write an object with `format`, `files` (got 3)"),
        (of_reference(train_loss=[3]), "train_loss[0]", "write a pair, `[step, train_loss]` (got 3)"),
        (
            of_reference(train_loss=[[1, 2, 3]]),
            "train_loss[0]",
            "write at most 2 items, not 3 (got [1, 2, 3])",
        ),
        (of_backtest(size=3), "size", "write two numbers, `[smallest, largest]` (got 3)"),
        (
            of_backtest(promote=[3]),
            "promote[0]",
            "write an object with `best`, `eligible`, `if_none` (got 3)",
        ),
        (of_backtest(against=["race", 4]), "against[1]", f"{POLICY} (got 4)"),
        (of_backtest(against=[{"a": math.nan}]), "against[0]", "Input should be a finite number (got nan)"),
        (
            of_backtest(history={"curves": [{"config": "a", "points": [3]}]}),
            "history.curves[0].points[0]",
            "write a pair, `[step, eval_loss]` (got 3)",
        ),
    ],
)
def test_a_value_of_the_wrong_shape_is_told_once_and_what_to_write(
    found: list[FieldError], field: str, message: str
) -> None:
    assert found == [FieldError(field, message)]


def test_an_evaluation_that_is_no_object_is_told_once_with_its_keys() -> None:
    (error,) = of_reference(evaluations=[[20, 3.0]])
    assert error.field == "evaluations[0]"
    assert error.message.startswith("write an object with `step`, `eval_loss`, ")


@pytest.mark.parametrize(
    ("found", "start"),
    [
        (of_spec(base=nested(400, 1)), "base.not.not"),
        (of_spec(policy=nested(400, {"all": []})), "policy"),
        (of_backtest(against=[nested(400, {"all": []})]), "against[0]"),
    ],
)
def test_what_is_nested_without_end_has_a_field_of_bounded_length(
    found: list[FieldError], start: str
) -> None:
    (error,) = found
    assert error.field.startswith(start)
    assert len(error.field) <= LONGEST_FIELD
    assert "dict" not in error.field
    assert error.message.startswith("is nested too deep: write it flatter (got {'not'")
