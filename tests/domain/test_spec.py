"""The submitted document: what is accepted, and what is said of each field that is wrong."""

import copy
import math
from typing import Any

import pytest

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.hashing import canonical_json
from orchestrator.domain.spec import parse_spec, spec_hash
from orchestrator.domain.spec_errors import dotted

DOCUMENT: dict[str, Any] = {
    "name": "balance",
    "base": {"model": {"width": 8}},
    "control": "aux-0.01",
    "eval_every": 500,
    "stages": [
        {"name": "screen", "steps": 1000, "variants": {"aux-0.01": {}, "aux-0": {"moe.aux_coef": 0.0}}},
        {"name": "confirm", "steps": 5000, "promote": {"best": 2}},
        {"name": "long", "steps": 50_000, "variants": {"late": {}}, "promote": {"best": 1}},
    ],
}


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The document with one place set."""
    document = copy.deepcopy(DOCUMENT)
    place: Any = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return document


def errors_of(document: dict[str, Any]) -> list[FieldError]:
    with pytest.raises(Invalid) as caught:
        parse_spec(document)
    return caught.value.errors


def variants(**overrides: object) -> dict[str, Any]:
    return changed(("stages", 0, "variants"), {"aux-0.01": {}} | overrides)


def test_defaults_are_filled_in() -> None:
    spec = parse_spec(DOCUMENT)
    assert (spec.seeds, spec.policy, spec.trainer, spec.resources.slots) == ([0], "stage-gate", "builtin", 1)
    assert spec.horizon == 50_000
    assert spec.stages[1].promote is not None
    assert (spec.stages[1].promote.eligible, spec.stages[1].promote.if_none) == ("policy", "no_winner")


NAME_FIX = "use letters, digits, `.`, `_` and `-`, starting with a letter or digit, at most 63 characters"


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        (("polcy",), "race", "polcy", "unknown key: did you mean `policy`?"),
        (("zzz",), 1, "zzz", "unknown key: known are `base`, `budget`, `control`"),
        (("stages", 1, "step"), 1, "stages[1].step", "unknown key: did you mean `steps`?"),
        (
            ("stages", 1, "promote", "bst"),
            1,
            "stages[1].promote.bst",
            "unknown key: did you mean `best`?",
        ),
        (("resources",), {"slot": 1}, "resources.slot", "unknown key: did you mean `slots`?"),
        (("name",), "", "name", NAME_FIX),
        (("name",), "a" * 64, "name", NAME_FIX),
        (("name",), "line\n", "name", NAME_FIX),
        (("name",), "../up", "name", NAME_FIX),
        (("question",), "x" * 2001, "question", "at most 2000 characters"),
        (("seeds",), [], "seeds", "at least 1 item"),
        (("seeds",), [0, -1], "seeds[1]", "greater than or equal to 0 (got -1)"),
        (("seeds",), [2**53], "seeds[0]", "less than or equal to 9007199254740991"),
        (("seeds",), [True], "seeds[0]", "valid integer (got True)"),
        (("seeds",), [1, 2, 1], "seeds", "named twice: each replicate needs its own seed"),
        (("eval_every",), "500", "eval_every", "valid integer (got '500')"),
        (("eval_every",), 0, "eval_every", "greater than or equal to 1 (got 0)"),
        (("stages",), [], "stages", "at least 1 item"),
        (("stages",), "screen", "stages", "write a list (got 'screen')"),
        (("stages", 0, "steps"), 1000.0, "stages[0].steps", "valid integer (got 1000.0)"),
        (("stages", 1, "steps"), 1000, "stages[1].steps", "1000 must be above the stage before (1000)"),
        (("stages", 1, "steps"), 4900, "stages[1].steps", "not a multiple of eval_every (500): use 5000"),
        (("stages", 0, "steps"), 1, "stages[0].steps", "not a multiple of eval_every (500): use 500"),
        (("stages", 1, "name"), "screen", "stages[1].name", "`screen` is already a stage: give it another"),
        (("stages", 0, "promote"), {"best": 1}, "stages[0].promote", "move it to a later stage"),
        (("stages", 1, "promote", "best"), 0, "stages[1].promote.best", "greater than or equal to 1 (got 0)"),
        (
            ("stages", 1, "promote", "eligible"),
            "al",
            "stages[1].promote.eligible",
            "'policy' or 'all' (got 'al')",
        ),
        (
            ("stages", 2, "variants"),
            {"aux-0": {}},
            "stages[2].variants.aux-0",
            "already a variant of stage `screen`: give it another name",
        ),
        (("stages", 0, "variants"), {}, "stages[0].variants", "needs variants, the control among them"),
        (("control",), "aux-0.1", "control", "not a variant of the first stage: did you mean `aux-0.01`?"),
        (("control",), "late", "control", "not a variant of the first stage"),
        (("policy",), 3, "policy", "write the name of a policy, or its document as an object (got 3)"),
        (("policy",), {"margin": math.nan}, "policy", "finite number (got nan)"),
        (("base",), [], "base", "write an object (got [])"),
        (("resources",), {"slots": 65}, "resources.slots", "less than or equal to 64 (got 65)"),
    ],
)
def test_each_message_names_the_field_and_the_fix(
    path: tuple[str | int, ...], value: object, field: str, message: str
) -> None:
    found = errors_of(changed(path, value))
    assert field in {error.field for error in found}
    assert any(message in error.message for error in found if error.field == field), found


def test_every_wrong_field_is_told_at_once() -> None:
    document = changed(("seeds",), [1, 1]) | {"control": "nobody"}
    document["stages"][1]["steps"] = 900
    told = {error.field for error in errors_of(document)}
    assert told == {"seeds", "control", "stages[1].steps"}


@pytest.mark.parametrize("missing", ["name", "base", "control", "stages"])
def test_what_is_missing_is_named(missing: str) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != missing}
    assert errors_of(document) == [FieldError(missing, "is required and missing")]


@pytest.mark.parametrize(
    "name", ["str", "dict", "list", "int", "float", "constrained-str", "variants", "base"]
)
def test_a_variant_keeps_its_name_in_the_field_whatever_it_is(name: str) -> None:
    (error,) = errors_of(variants(**{name: 3}))
    assert error.field == f"stages[0].variants.{name}"
    (deep,) = errors_of(variants(**{name: {"a.b": math.nan}}))
    assert deep.field == f"stages[0].variants.{name}.a.b"


@pytest.mark.parametrize("name", ["dict[x]", "[key]", "two words", ".hidden", "a/b", ""])
def test_a_bad_variant_name_stands_in_the_field_and_the_message(name: str) -> None:
    (error,) = errors_of(variants(**{name: {}}))
    assert error.field.startswith("stages[0].variants")
    assert error.message == f"{name!r} is not a name: {NAME_FIX}"


@pytest.mark.parametrize(
    ("base", "field"),
    [
        ({"rate": math.nan}, "base.rate"),
        ({"model": {"moe": {"aux": math.inf}}}, "base.model.moe.aux"),
        ({"float": {"float": math.nan}}, "base.float.float"),
        ({"milestones": [1, {"at": [0, -math.inf]}]}, "base.milestones[1].at[1]"),
    ],
)
def test_a_value_deep_in_the_base_is_named_by_its_own_path(base: dict[str, Any], field: str) -> None:
    (error,) = errors_of(DOCUMENT | {"base": base})
    assert error.field == field
    assert "finite number" in error.message


def test_a_document_that_is_no_object_is_refused() -> None:
    (error,) = errors_of([1])  # type: ignore[arg-type]
    assert error.field == "spec"


def test_documents_that_mean_the_same_have_one_hash() -> None:
    spelled = dict(reversed(DOCUMENT.items())) | {"seeds": [0], "policy": "stage-gate", "question": ""}
    assert spec_hash(parse_spec(spelled)) == spec_hash(parse_spec(DOCUMENT))
    assert spec_hash(parse_spec(DOCUMENT | {"seeds": [1]})) != spec_hash(parse_spec(DOCUMENT))


def test_canonical_json_has_one_spelling_and_no_nan() -> None:
    assert canonical_json({"b": 1, "a": [True, None]}) == '{"a":[true,null],"b":1}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(math.nan)


def test_a_place_is_spelled_with_dots_and_brackets() -> None:
    assert dotted(("stages", 0, "variants", "a", "[key]")) == "stages[0].variants.a"
    assert dotted(("seeds", 3)) == "seeds[3]"


def with_stage(index: int, **fields: object) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    document["stages"][index] |= fields
    return document


def dependent(*sources: str, **overrides: object) -> dict[str, Any]:
    return {"from": {"best_of": list(sources)}, "set": overrides}


def test_a_variant_may_wait_for_the_best_of_others() -> None:
    spec = parse_spec(variants(top1=dependent("aux-0.01", **{"moe.top_k": 1})))
    assert list(spec.stages[0].static) == ["aux-0.01"]
    assert spec.stages[0].dependents["top1"].source.best_of == ["aux-0.01"]
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_axes_are_variants_written_short() -> None:
    stage = parse_spec(with_stage(0, axes={"moe.coef": [0.0, 0.5], "lr": [1e-3]})).stages[0]
    assert list(stage.static) == ["aux-0.01", "aux-0", "coef-0.0", "coef-0.5", "lr-0.001"]
    assert stage.static["coef-0.5"] == {"moe.coef": 0.5}
    full = parse_spec(with_stage(0, axes={"moe.coef": [0.0, 0.5], "lr": [1, 2]}, grid="full")).stages[0]
    assert list(full.static)[2:] == ["coef-0.0_lr-1", "coef-0.0_lr-2", "coef-0.5_lr-1", "coef-0.5_lr-2"]


def test_a_stage_keeps_the_seeds_of_the_stage_before() -> None:
    spec = parse_spec(with_stage(1, seeds=[0, 1, 2]))
    assert [spec.seeds_of(position) for position in range(3)] == [[0], [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        (
            variants(a=dependent("b"), b=dependent("a")),
            "stages[0].variants.a.from.best_of",
            "waits for itself (a -> b -> a): break the circle",
        ),
        (variants(a=dependent("a")), "stages[0].variants.a.from.best_of", "waits for itself (a -> a)"),
        (variants(a=dependent("aux-0.1")), "stages[0].variants.a.from.best_of", "did you mean `aux-0.01`"),
        (variants(a=dependent("late")), "stages[0].variants.a.from.best_of", "starts in a later stage"),
        (variants(a=dependent("aux-0.01", "aux-0.01")), "stages[0].variants.a.from.best_of", "named twice"),
        (variants(a={"from": {"best": []}}), "stages[0].variants.a.from.best", "unknown key"),
        (variants(a={"from": {"best_of": []}}), "stages[0].variants.a.from.best_of", "at least 1 item"),
        (variants(a={"from": {}}), "stages[0].variants.a.from.best_of", "is required and missing"),
        (variants(a={"from": {"best_of": ["x"]}, "sett": 1}), "stages[0].variants.a.sett", "mean `set`"),
        (changed(("control",), "top") | {"stages": variants(top=dependent("aux-0.01"))["stages"]},
            "control", "the control cannot wait for a result"),
        (with_stage(0, around_winner={"lr": [1]}), "stages[0].around_winner", "no winner to stand around"),
        (with_stage(1, around_winner={"lr": []}), "stages[1].around_winner.lr", "at least 1 item"),
        (with_stage(1, around_winner={"lr": [1, 1]}), "stages[1].around_winner.lr", "twice: remove one"),
        (with_stage(1, around_winner={"a..b": [1]}), "stages[1].around_winner", "no dotted path"),
        (with_stage(1, around_winner={"lr": [math.nan]}), "stages[1].around_winner.lr[0]", "finite"),
        (with_stage(0, axes={"a.lr": [1], "b.lr": [1]}), "stages[0].axes", "two levels are called `lr-1`"),
        (with_stage(0, axes={"aux": [0]}), "stages[0].axes", "`aux-0` is already a variant"),
        (with_stage(0, axes={"x" * 70: [0]}), "stages[0].axes", "longer than 63 signs"),
        (with_stage(0, grid="half"), "stages[0].grid", "'one_at_a_time' or 'full'"),
        (with_stage(1, seeds=[1, 1]), "stages[1].seeds", "a seed is named twice"),
        (with_stage(1, seeds=[]), "stages[1].seeds", "at least 1 item"),
        (changed(("budget",), {"slot_hours": 0}), "budget.slot_hours", "greater than 0"),
        (changed(("budget",), {"slot_hours": math.nan}), "budget.slot_hours", "finite number"),
        (changed(("budget",), {"hours": 1}), "budget.hours", "unknown key: did you mean `slot_hours`?"),
        (changed(("priority",), 1000), "priority", "less than or equal to 100"),
        (changed(("same_config",), "skip"), "same_config", "'refuse' or 'link'"),
    ],
)  # fmt: skip
def test_what_depends_on_results_is_checked_too(document: dict[str, Any], field: str, message: str) -> None:
    found = errors_of(document)
    assert any(error.field == field and message in error.message for error in found), found
