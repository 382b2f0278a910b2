"""From a spec to variants and runs."""

import copy
from typing import Any

import pytest

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.expand import PlannedRun, Variant, expand_runs, expand_variants, override
from orchestrator.domain.spec import parse_spec
from orchestrator.domain.spec_models import ExperimentSpec
from orchestrator.protocol.kind import ConfigFacts, ConfigProblem
from orchestrator.protocol.wire import JsonObject

BASE: dict[str, Any] = {"model": {"width": 4, "moe": {"experts": 8}}, "rates": [1, 2]}


def spec(*stages: dict[str, JsonObject], base: JsonObject | None = None, **changes: Any) -> ExperimentSpec:
    """Stages of 100, 200, ... steps with these variants; `control` is in the first."""
    document: dict[str, Any] = {
        "name": "axes",
        "base": BASE if base is None else base,
        "control": "control",
        "eval_every": 100,
        "stages": [
            {"name": f"stage-{index}", "steps": 100 * (index + 1), "variants": variants}
            for index, variants in enumerate(stages)
        ],
    }
    return parse_spec(document | changes)


def check(config: JsonObject) -> ConfigFacts:
    """Knows `model.width` (4 unless told), `model.moe.experts` and `rates`; a width of 13 is refused."""
    problems = [(key, "unknown key") for key in config if key not in {"model", "rates"}]
    model = config.get("model", {})
    assert isinstance(model, dict)
    problems += [(f"model.{key}", "unknown key") for key in model if key not in {"width", "moe"}]
    if model.get("width") == 13:
        problems.append(("model.width", "13 is not divisible by 2: use 12"))
    if problems:
        raise ConfigProblem(problems)
    return ConfigFacts(
        config=config | {"model": {"width": 4} | model},
        parameters_total=1,
        parameters_active=1,
        flops_per_token=1.0,
        tokens_per_step=1,
        schedule_family="cosine",
    )


def expand(*stages: dict[str, JsonObject], **changes: Any) -> list[Variant]:
    return expand_variants(spec(*stages, **changes), check).variants


def refused(*stages: dict[str, JsonObject], **changes: Any) -> list[FieldError]:
    with pytest.raises(Invalid) as caught:
        expand(*stages, **changes)
    return caught.value.errors


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, BASE),
        ({"model.width": 8}, {"model": {"width": 8, "moe": {"experts": 8}}, "rates": [1, 2]}),
        ({"model.moe.experts": 16}, {"model": {"width": 4, "moe": {"experts": 16}}, "rates": [1, 2]}),
        ({"model.moe": None}, {"model": {"width": 4, "moe": None}, "rates": [1, 2]}),
        ({"rates": []}, {"model": BASE["model"], "rates": []}),
        ({"data.text": "x"}, BASE | {"data": {"text": "x"}}),
        (
            {"model": {"width": 2}, "model.moe.experts": 4},
            BASE | {"model": {"width": 2, "moe": {"experts": 4}}},
        ),
    ],
)
def test_a_dotted_path_replaces_what_is_there(overrides: JsonObject, expected: JsonObject) -> None:
    before = copy.deepcopy(BASE)
    assert override(BASE, overrides) == expected
    assert before == BASE


def test_a_value_is_copied_not_shared() -> None:
    value: dict[str, Any] = {"experts": 2}
    config = override(BASE, {"model.moe": value})
    value["experts"] = 99
    assert config["model"] == {"width": 4, "moe": {"experts": 2}}


@pytest.mark.parametrize("path", ["rates.first", "model.width.x", "model.moe.experts.y.z"])
def test_a_path_through_a_value_is_refused_with_its_place(path: str) -> None:
    (error,) = refused({"control": {}, "bad": {path: 1}})
    assert error.field == f"stages[0].variants.bad.{path}"
    assert "goes through a value that is not an object" in error.message


def test_a_key_error_of_a_trainer_is_not_taken_for_a_bad_path() -> None:
    def broken(config: JsonObject) -> ConfigFacts:
        raise KeyError("hidden_size")

    with pytest.raises(KeyError, match="hidden_size"):
        expand_variants(spec({"control": {}}), broken)


def test_variants_come_in_the_order_of_the_spec_with_complete_configs() -> None:
    found = expand({"wide": {"model.width": 8}, "control": {}}, {"late": {"model.width": 6}}, base={})
    assert [(v.name, v.stage, v.is_control) for v in found] == [
        ("wide", 0, False),
        ("control", 0, True),
        ("late", 1, False),
    ]
    assert found[1].facts.config == {"model": {"width": 4}}
    assert found[0].overrides == {"model.width": 8}


def test_two_variants_with_the_same_config_are_refused() -> None:
    (error,) = refused({"control": {}, "twin": {"model.moe.experts": 8}})
    assert error.field == "stages[0].variants.twin"
    assert error.message.startswith("has the same config as `control`: change an override or remove")


def test_the_same_config_after_defaults_is_the_same_config() -> None:
    (error,) = refused({"control": {}}, {"spelled": {"model.width": 4}}, base={})
    assert error.field == "stages[1].variants.spelled"


def test_a_problem_is_told_where_it_was_set() -> None:
    found = refused({"control": {}, "odd": {"model.width": 13}, "typo": {"model.widht": 2}})
    assert {(error.field, error.message) for error in found} == {
        ("stages[0].variants.odd.model.width", "13 is not divisible by 2: use 12"),
        ("stages[0].variants.typo.model.widht", "unknown key"),
    }


def test_a_problem_under_an_override_that_is_an_object_is_told_there() -> None:
    (error,) = refused({"control": {}, "odd": {"model": {"width": 13}}})
    assert error.field == "stages[0].variants.odd.model.width"


def test_a_problem_of_the_base_is_told_once() -> None:
    found = refused({"control": {}, "other": {"rates": []}}, base=BASE | {"modle": 1})
    assert found == [FieldError("base.modle", "unknown key")]


def test_each_variant_runs_at_each_seed_with_the_control_first() -> None:
    asked = spec({"a": {"rates": []}, "control": {}}, {"b": {"rates": [3]}}, seeds=[7, 3])
    assert expand_runs(asked, expand_variants(asked, check).variants) == [
        PlannedRun("control", 7, 0),
        PlannedRun("control", 3, 0),
        PlannedRun("a", 7, 0),
        PlannedRun("a", 3, 0),
        PlannedRun("b", 7, 1),
        PlannedRun("b", 3, 1),
    ]


def test_equal_configs_have_equal_hashes_whatever_their_order() -> None:
    one = expand({"control": {"model.width": 2, "rates": [1]}})[0]
    other = expand({"control": {"rates": [1], "model.width": 2}})[0]
    assert one.config_hash == other.config_hash
    assert len(one.config_hash) == 64
