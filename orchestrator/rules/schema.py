"""The JSON Schema of a policy document, made from the registry of criteria."""

from collections.abc import Mapping
from typing import Any, cast

from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.criteria import CRITERIA, Criterion
from orchestrator.rules.policies import Policy

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NODE = "#/$defs/node"


def policy_schema() -> JsonObject:
    """The schema of the whole document: every criterion that is registered now, with its typed numbers.

    A document that the service takes is valid under it. What no schema can say, how deep nodes may nest, the
    service still checks.
    """
    schema: dict[str, Any] = Policy.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for rule in ("stop", "promote"):
        schema["properties"][rule] = {"$ref": NODE}
    for name in sorted(CRITERIA):
        definitions[_definition(name)] = _criterion(CRITERIA[name], definitions)
    definitions["node"] = _node()
    return cast("JsonObject", {"$schema": DIALECT, **schema})


def _definition(name: str) -> str:
    return f"criterion:{name}"


def _criterion(criterion: Criterion, definitions: dict[str, Any]) -> Mapping[str, Any]:
    """The leaf: `criterion` with its name, beside its numbers. Models inside it become definitions too."""
    schema = criterion.params.model_json_schema()
    definitions.update(schema.pop("$defs", {}))
    named = {"criterion": {"const": criterion.name}}
    return schema | {
        "title": criterion.name,
        "type": "object",
        "properties": named | schema.get("properties", {}),
        "required": ["criterion", *schema.get("required", [])],
        "additionalProperties": False,
    }


def _node() -> Mapping[str, Any]:
    """`all` and `any` of a list, `not` of one, or one of the criteria."""
    several = {how: {"type": "array", "items": {"$ref": NODE}} for how in ("all", "any")}
    joined = [_only(how, inside) for how, inside in (several | {"not": {"$ref": NODE}}).items()]
    return {
        "title": "Node",
        "description": "`all`, `any`, `not`, or a `criterion` with its numbers",
        "oneOf": [*joined, *({"$ref": f"#/$defs/{_definition(name)}"} for name in sorted(CRITERIA))],
    }


def _only(key: str, inside: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "object", "properties": {key: inside}, "required": [key], "additionalProperties": False}
