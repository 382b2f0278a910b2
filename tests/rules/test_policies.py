"""Policy documents: defaults, mistakes named with their fix, hashes, warnings for the plan preview."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_builders import DOCUMENTS, POLICIES, SHORT_SCREEN, STAGE_GATE, case, control, curve, result

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.criteria import CRITERIA, Grid
from orchestrator.rules.nodes import leaves
from orchestrator.rules.point import points
from orchestrator.rules.policies import Policy, policy_hash, resolve_policy, unable_to_fire

STAGES = [("screen", 1000), ("confirm", 5000), ("long", 50_000)]


def mistakes(source: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        resolve_policy(source, DOCUMENTS)
    return {error.field: error.message for error in caught.value.errors}


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(DOCUMENTS["stage-gate"]) | changes


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_number_of_a_shipped_document_is_written_out(name: str) -> None:
    assert resolve_policy(name, DOCUMENTS).model_dump(mode="json") == DOCUMENTS[name]


def bare(document: Any) -> Any:
    """The document with no number given: criteria by name alone."""
    if "criterion" in document:
        return {"criterion": document["criterion"]}
    return {key: [bare(part) for part in parts] for key, parts in document.items()}


@pytest.mark.parametrize("name", sorted(set(DOCUMENTS) - {"calibrated"}))  # which is its own numbers
def test_the_defaults_are_the_protocol(name: str) -> None:
    document = DOCUMENTS[name]
    short = {key: document[key] for key in ("name", "version", "description")}
    short |= {key: bare(document[key]) for key in ("stop", "promote")}
    assert resolve_policy(short, {}) == resolve_policy(name, DOCUMENTS)


def test_every_registered_criterion_is_used_by_a_shipped_policy() -> None:
    used = {leaf.criterion for p in POLICIES.values() for n in (p.stop, p.promote) for leaf in leaves(n)}
    assert used == set(CRITERIA) - {"not_diverged"}  # a guard of every policy


@pytest.mark.parametrize(
    ("source", "field", "message"),
    [
        ("stage-gat", "policy", "there is no policy `stage-gat`; did you mean `stage-gate`?"),
        ("xyz", "policy", f"there is no policy `xyz`; use one of {', '.join(DOCUMENTS)}"),
        (
            changed(stop={"criterion": "no_improvment"}),
            "policy.stop.criterion",
            "there is no criterion `no_improvment`; did you mean `no_improvement`?",
        ),
        (
            changed(promote={"any": [{"criterion": "beats_control", "margn": 0.1}]}),
            "policy.promote.any[0].margn",
            "there is no such field; did you mean `margin`?",
        ),
        (
            changed(promote={"not": {"criterion": "beats_control", "margin": float("nan")}}),
            "policy.promote.not.margin",
            "must be a finite number; write one",
        ),
        (changed(tolerance=float("inf")), "policy.tolerance", "must be a finite number; write one"),
        (changed(sgma=0.1), "policy.sgma", "there is no such field; did you mean `sigma`?"),
        (changed(stop={"all": {}}), "policy.stop.all", "write a list of criteria"),
        (changed(stop={"all": [], "any": []}), "policy.stop", "write exactly one of"),
        (changed(stop={"some": []}), "policy.stop", "write exactly one of"),
        (changed(stop={}), "policy.stop", "write exactly one of"),
        (changed(stop=[]), "policy.stop", "write an object"),
        (changed(stop=None), "policy.stop", "write an object"),
        (changed(stop={"criterion": 3}), "policy.stop.criterion", "there is no criterion `3`"),
        (changed(diverged={"above_best": -1}), "policy.diverged.above_best", "greater than 0"),
        ({"name": "x", "version": 1}, "policy.stop", "required"),
        (changed(version="one"), "policy.version", "integer"),
    ],
)
def test_a_mistake_names_the_field_and_the_fix(source: Any, field: str, message: str) -> None:
    assert message in mistakes(source)[field]


def test_all_mistakes_are_named_at_once() -> None:
    found = mistakes(changed(stop={"criterion": "x"}, promote={"criterion": "y"}, sigma=-1))
    assert set(found) == {"policy.stop.criterion", "policy.promote.criterion", "policy.sigma"}


def test_a_document_nested_beyond_reason_is_refused() -> None:
    deep: Any = {"criterion": "stable"}
    for _ in range(50):
        deep = {"not": deep}
    assert any("nested deeper" in message for message in mistakes(changed(stop=deep)).values())


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["all", "any", "not", "criterion", "margin", "z"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(json_values)
def test_any_document_is_accepted_or_refused_with_fields(document: Any) -> None:
    refused: list[FieldError] = []
    try:
        resolve_policy(changed(promote=document), {})
    except Invalid as error:
        refused = error.errors
    assert all(error.field.startswith("policy.promote") for error in refused)


def test_the_hash_is_of_the_meaning_not_the_spelling() -> None:
    shuffled = dict(reversed(DOCUMENTS["stage-gate"].items()))
    del shuffled["tolerance"]
    assert policy_hash(resolve_policy(shuffled, {})) == policy_hash(STAGE_GATE)
    assert policy_hash(resolve_policy(changed(sigma=0.001), {})) != policy_hash(STAGE_GATE)
    assert len(policy_hash(STAGE_GATE)) == 64


def test_a_document_that_was_stored_before_a_field_came_is_still_a_policy() -> None:
    """Experiments keep their document; what came later has its default there."""
    old = {key: value for key, value in STAGE_GATE.model_dump(mode="json").items() if key != "noise"}
    assert Policy.model_validate(old) == STAGE_GATE


def test_a_policy_is_frozen_and_survives_json() -> None:
    assert Policy.model_validate_json(STAGE_GATE.model_dump_json()) == STAGE_GATE
    with pytest.raises(ValueError, match="frozen"):
        STAGE_GATE.tolerance = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("node", "verdict"),
    [
        ({"any": [{"criterion": "beats_control"}, {"criterion": "stable"}]}, Verdict.PASS),
        ({"all": [{"criterion": "beats_control"}, {"criterion": "stable"}]}, Verdict.FAIL),
        ({"not": {"criterion": "beats_control"}}, Verdict.PASS),
        ({"all": []}, Verdict.PASS),
        ({"any": []}, Verdict.FAIL),
        ({"all": [{"criterion": "stable"}, {"criterion": "non_widening"}]}, Verdict.INCONCLUSIVE),
        ({"not": {"criterion": "non_widening"}}, Verdict.INCONCLUSIVE),
    ],
)
def test_the_language(node: dict[str, Any], verdict: Verdict) -> None:
    found = result(node, case(curve("a", {500: 4.0}), control({500: 4.0})))
    assert found.verdict is verdict
    assert found.text


class TestUnableToFire:
    def test_the_stop_rule_cannot_fire_in_a_screen_of_two_evaluations(self) -> None:
        assert unable_to_fire(STAGE_GATE, STAGES, 500) == [
            "the stop rule of policy stage-gate needs 4 evaluations; with one every 500 steps a run has 2 "
            "at the end of screen (step 1,000), so it cannot fire in screen"
        ]

    def test_with_more_evaluations_it_can(self) -> None:
        assert unable_to_fire(STAGE_GATE, STAGES, 250) == []

    def test_a_promote_rule_may_need_two(self) -> None:
        (warning,) = unable_to_fire(SHORT_SCREEN, [("screen", 500), ("confirm", 2000)], 500)
        assert "the promote rule of policy short-screen needs 2 evaluations" in warning

    def test_a_race_without_a_point_stops_nobody(self) -> None:
        """Two variants are as many as a race keeps, up to half of the budget."""
        race, stages = POLICIES["race"], STAGES[:1]
        few = Grid(every=500, stages=(1000,), entered=2)
        (warning,) = unable_to_fire(race, stages, 500, points(race, replace(few, entered=1)))
        assert warning == (
            "the stop rule of policy race compares variants (outside_race), and this plan has "
            "no point before step 1,000 at which that could drop one: nobody is stopped by it"
        )
        assert unable_to_fire(race, stages, 500, points(race, few)) == []
        assert unable_to_fire(race, STAGES, 500, points(race, Grid(500, (1000, 5000, 50_000), 8))) == []

    def test_a_comparison_that_takes_too_many_evaluations_is_said_once(self) -> None:
        calibrated = POLICIES["calibrated"]
        grid = Grid(every=500, stages=(1000,), entered=8)
        (warning,) = unable_to_fire(calibrated, STAGES[:1], 500, points(calibrated, grid))
        assert "compares variants (behind_leader, not_among_best)" in warning

    def test_a_rule_that_can_pass_without_comparing_says_nothing_of_points(self) -> None:
        either = changed(stop={"any": [{"criterion": "plateau"}, {"criterion": "outside_race"}]})
        assert unable_to_fire(resolve_policy(either, {}), [("screen", 5000)], 500, ()) == []

    def test_a_policy_that_compares_nobody_needs_no_point(self) -> None:
        assert unable_to_fire(POLICIES["run-all"], STAGES, 500, ()) == []

    def test_an_empty_promote_rule_never_passes(self) -> None:
        never = resolve_policy(changed(promote={"any": []}), {})
        assert "never passes" in unable_to_fire(never, STAGES[:1], 100)[0]
