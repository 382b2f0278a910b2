"""Axes as variants: how many they may make, what those are called, and that each is worked out once."""

import copy
import re
import time
from typing import Any

import pytest

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.levels import MOST_VARIANTS, expand_levels
from orchestrator.domain.spec import parse_spec, spec_hash
from orchestrator.domain.spec_models import StageSpec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def document(*stages: dict[str, Any]) -> dict[str, Any]:
    """A spec of these stages after the first fields of each."""
    named = [{"name": f"s{i}", "steps": 500 * i} | stage for i, stage in enumerate(stages, 1)]
    named[0]["variants"] = {"control": {}}
    return {"name": "grid", "base": {}, "control": "control", "stages": named}


def errors_of(*stages: dict[str, Any]) -> list[FieldError]:
    with pytest.raises(Invalid) as caught:
        parse_spec(document(*stages))
    return caught.value.errors


def grid(axes: int, levels: int) -> dict[str, Any]:
    return {"grid": "full", "axes": {f"a{i}": list(range(levels)) for i in range(axes)}}


@pytest.mark.parametrize(
    ("axes", "levels", "count"), [(3, 11, "1,331"), (6, 12, "2,985,984"), (600, 12, "more than 10^15")]
)
def test_a_grid_of_too_many_variants_is_refused_before_it_is_made(axes: int, levels: int, count: str) -> None:
    fix = "at most 1,000: use fewer levels, or `grid: one_at_a_time`"
    expected = FieldError("stages[0].axes", f"makes {count} variants; {fix}")
    assert expected in errors_of(grid(axes, levels))


def test_a_grid_of_as_many_as_are_allowed_is_taken() -> None:
    spec = parse_spec(document(grid(3, 10)))
    assert len(spec.stages[0].static) == MOST_VARIANTS + 1
    assert spec.entered == MOST_VARIANTS


def test_all_stages_together_are_bounded_too() -> None:
    stages = [grid(2, 20), {"axes": {f"b{i}": list(range(300)) for i in range(2)}}]
    assert errors_of(*stages, {"around_winner": {"c": [1]}}) == [
        FieldError(
            "stages",
            "1,001 variants beside the control; at most 1,000: remove some, or ask in two experiments",
        )
    ]
    assert parse_spec(document(*stages)).entered == 1000


def test_a_spec_of_the_most_variants_is_read_in_a_moment() -> None:
    start = time.perf_counter()
    parse_spec(document(grid(3, 10)))
    assert time.perf_counter() - start < 2  # about 0.05 s; 19 s when every access made them again


def test_what_a_stage_worked_out_is_no_part_of_it() -> None:
    first, second = (StageSpec.model_validate({"name": "s", "steps": 1} | grid(2, 2)) for _ in range(2))
    assert first.names == ["a0-0_a1-0", "a0-0_a1-1", "a0-1_a1-0", "a0-1_a1-1"]
    assert first.static is first.static
    assert first == second
    assert first.model_dump_json() == second.model_dump_json()
    assert copy.copy(first) == copy.deepcopy(first) == first


def test_a_copy_with_other_axes_has_other_variants() -> None:
    stage = StageSpec.model_validate({"name": "s", "steps": 1, "axes": {"a": [1, 2]}})
    assert stage.names == ["a-1", "a-2"]
    assert stage.model_copy(update={"axes": {"a": [3]}}).names == ["a-3"]


def test_reading_the_variants_changes_no_hash() -> None:
    read, fresh = parse_spec(document(grid(2, 3))), parse_spec(document(grid(2, 3)))
    assert read.stages[0].names
    assert spec_hash(read) == spec_hash(fresh)
    assert parse_spec(read.model_dump(mode="json")) == read


@pytest.mark.parametrize(
    ("path", "level", "name"),
    [
        ("a/b", 1, "a-b-1"),
        ("moe._rate", 1, "rate-1"),
        (".-x", "y", "x-y"),
        ("é", "ü", "axis-level"),
        ("rate", [1, 2], "rate-1-2"),
        ("rate", -0.0, "rate-0.0"),
        ("moe.coef", 0.005, "coef-0.005"),
    ],
)
def test_each_is_called_as_a_variant_may_be(path: str, level: Any, name: str) -> None:
    (found,) = expand_levels({path: [level]})
    assert found == name
    assert NAME.fullmatch(found)


@pytest.mark.parametrize("levels", [[1, True], [0, -0.0], [0, False], [1, 1.0], [{"a": 1}, {"a": True}]])
def test_levels_that_json_tells_apart_are_two(levels: list[Any]) -> None:
    assert len(parse_spec(document({"axes": {"rate": levels}})).stages[0].of_axes) == 2


def test_levels_of_one_json_text_are_one() -> None:
    twice = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert errors_of({"axes": {"rate": twice}})[0].message == "a level stands there twice: remove one"


def test_a_long_level_is_cut_in_its_message() -> None:
    (error,) = errors_of({"axes": {"rate": [10**400]}})
    shown = f"rate-1{'0' * 51}..."
    assert error.message == f"the name `{shown}` is longer than 63 signs: write this variant out"
