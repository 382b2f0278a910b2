"""The JSON Schema of a policy document: what the service takes is valid under it, what it refuses is not."""

import copy
from typing import Any

import jsonschema
import pytest
from rule_builders import DOCUMENTS, STAGE_GATE

from orchestrator.domain.errors import Invalid
from orchestrator.rules.criteria import CRITERIA
from orchestrator.rules.policies import Policy, resolve_policy
from orchestrator.rules.schema import policy_schema

SCHEMA: Any = policy_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(DOCUMENTS["stage-gate"]) | changes


def deep(node: Any, levels: int) -> Any:
    return {"not": deep(node, levels - 1)} if levels else node


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_criterion_is_in_it_with_all_its_numbers() -> None:
    for name, criterion in CRITERIA.items():
        leaf = SCHEMA["$defs"][f"criterion:{name}"]
        assert set(leaf["properties"]) == {"criterion", *criterion.params.model_fields}
    assert set(SCHEMA["properties"]) == set(Policy.model_fields)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_shipped_policy_is_valid(name: str) -> None:
    VALIDATOR.validate(DOCUMENTS[name])


@pytest.mark.parametrize(
    "document",
    [
        changed(stop={"any": []}),
        changed(stop={"criterion": "stable"}),
        changed(promote={"not": {"all": [{"criterion": "beats_control", "margin": 0.1}]}}),
        changed(stop={"criterion": "outside_rung", "at": "stages"}),
        {"name": "x", "version": 1, "stop": {"any": []}, "promote": {"all": []}},
        changed(noise=[{"sigma": 0.1}]),
    ],
)
def test_what_the_service_takes_is_valid(document: Any) -> None:
    resolve_policy(document, {})
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        changed(stop={"criterion": "no_improvment"}),
        changed(stop={"criterion": "no_improvement", "threshhold": 0.1}),
        changed(stop={"criterion": "no_improvement", "threshold": "much"}),
        changed(stop={"criterion": "no_improvement", "evaluations": 0}),
        changed(promote={"any": [{"all": [{"criterion": "beats_control", "margn": 0.1}]}]}),
        changed(stop={"all": [], "any": []}),
        changed(stop={"some": []}),
        changed(stop={"all": {}}),
        changed(stop={"not": []}),
        changed(stop={}),
        changed(stop=None),
        changed(stop={"criterion": "outside_rung", "at": [1.5]}),
        changed(stop={"criterion": "outside_rung", "at": "gates"}),
        changed(stop={"criterion": "outside_race", "f0": 0}),
        changed(version=0),
        changed(name="no name"),
        changed(sgma=0.1),
        changed(noise=[{"up_to_step": 3}]),
        changed(diverged={"above_best": -1}),
        {"name": "x", "version": 1},
    ],
)
def test_what_the_service_refuses_is_not_valid(document: Any) -> None:
    with pytest.raises(Invalid):
        resolve_policy(document, {})
    assert not VALIDATOR.is_valid(document)


def test_nesting_has_no_bottom_in_the_schema() -> None:
    VALIDATOR.validate(changed(stop=deep({"criterion": "stable"}, 10)))
    assert not VALIDATOR.is_valid(changed(stop=deep({"criterion": "x"}, 10)))


def test_what_the_service_stores_of_a_policy_is_valid() -> None:
    VALIDATOR.validate(STAGE_GATE.model_dump(mode="json"))
