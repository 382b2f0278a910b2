"""The small language of criteria: all, any, not, and a registered criterion with its numbers."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    JsonValue,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    WithJsonSchema,
)

from orchestrator.domain.errors import FieldError
from orchestrator.domain.evidence import CriterionResult, combine, negate
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.criteria import CRITERIA, Case, Params

MAX_DEPTH = 12


class Leaf(BaseModel):
    """One registered criterion with its numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: str
    params: SerializeAsAny[Params]


class Combined(BaseModel):
    """Several nodes joined by `all` or `any`, or one turned round by `not`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    how: Literal["all", "any", "not"]
    parts: tuple["Combined | Leaf", ...]


def ask(node: Combined | Leaf, case: Case) -> CriterionResult:
    """What the node says of the case, in three-valued logic, with every part shown."""
    if isinstance(node, Leaf):
        return CRITERIA[node.criterion].ask(node.params, case)
    parts = tuple(ask(part, case) for part in node.parts)
    if node.how == "not":
        return CriterionResult(
            "not", negate(parts[0].verdict), f"not: {parts[0].text}", parts=parts, how="not"
        )
    return combine(node.how, node.how, parts)


def leaves(node: Combined | Leaf) -> Iterator[Leaf]:
    """The criteria of a node, left to right."""
    if isinstance(node, Leaf):
        yield node
        return
    for part in node.parts:
        yield from leaves(part)


def evaluations_needed(node: Combined | Leaf, *, field: bool = True) -> int | None:
    """The fewest evaluations after which the node can pass; None when it never can (an empty `any`).

    Without `field`, where variants are never compared with each other: there those criteria say nothing.
    """
    if isinstance(node, Leaf):
        criterion = CRITERIA[node.criterion]
        return criterion.needs(node.params) if field or criterion.field is None else None
    needs = [evaluations_needed(part, field=field) for part in node.parts]
    known = [need for need in needs if need is not None]
    if node.how == "not":
        return known[0] if known else 1
    if node.how == "any":
        return min(known, default=None)
    return max(known, default=1) if len(known) == len(needs) else None


def node_document(node: Combined | Leaf) -> JsonObject:
    """The node as a person writes it, every number filled in."""
    if isinstance(node, Leaf):
        return {"criterion": node.criterion, **node.params.model_dump(mode="json")}
    if node.how == "not":
        return {"not": node_document(node.parts[0])}
    parts: list[JsonValue] = [node_document(part) for part in node.parts]
    return {node.how: parts}


def parse_node(
    document: object, path: str, problems: list[FieldError], depth: int = 0
) -> Combined | Leaf | None:
    """The node that a document describes; every mistake in it is added to `problems`, and None comes back."""
    if isinstance(document, Combined | Leaf):
        return document
    if not isinstance(document, dict):
        problems.append(FieldError(path, "write an object with `all`, `any`, `not` or `criterion`"))
        return None
    if depth > MAX_DEPTH:
        problems.append(FieldError(path, f"criteria are nested deeper than {MAX_DEPTH}; flatten them"))
        return None
    if "criterion" in document:
        return _parse_leaf(document, path, problems)
    if len(document) != 1 or next(iter(document)) not in ("all", "any", "not"):
        problems.append(FieldError(path, "write exactly one of `all`, `any`, `not` or `criterion`"))
        return None
    how, inside = next(iter(document.items()))
    if how == "not":
        part = parse_node(inside, f"{path}.not", problems, depth + 1)
        return Combined(how="not", parts=(part,)) if part else None
    if not isinstance(inside, Sequence) or isinstance(inside, str):
        problems.append(FieldError(f"{path}.{how}", "write a list of criteria"))
        return None
    parts = [parse_node(item, f"{path}.{how}[{i}]", problems, depth + 1) for i, item in enumerate(inside)]
    sound = tuple(part for part in parts if part is not None)
    return Combined(how=how, parts=sound) if len(sound) == len(parts) else None


def _parse_leaf(document: dict[str, Any], path: str, problems: list[FieldError]) -> Leaf | None:
    name = document["criterion"]
    if not isinstance(name, str) or name not in CRITERIA:
        hint = did_you_mean(str(name), list(CRITERIA))
        problems.append(FieldError(f"{path}.criterion", f"there is no criterion `{name}`; {hint}"))
        return None
    model = CRITERIA[name].params
    given = {key: value for key, value in document.items() if key != "criterion"}
    try:
        return Leaf(criterion=name, params=model.model_validate(given))
    except ValidationError as error:
        problems.extend(field_errors(error, path, list(model.model_fields)))
        return None


def field_errors(error: ValidationError, path: str, known: list[str]) -> list[FieldError]:
    """Each mistake under its dotted path, with what to write instead."""
    found = []
    for mistake in error.errors():
        field = ".".join([path, *(str(part) for part in mistake["loc"])])
        message = mistake["msg"]
        if mistake["type"] == "extra_forbidden":
            message = f"there is no such field; {did_you_mean(str(mistake['loc'][-1]), known)}"
        elif mistake["type"] == "finite_number":
            message = "must be a finite number; write one"
        found.append(FieldError(field, message))
    return found


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The nearest known word, or all of them."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"use one of {', '.join(sorted(known))}"


def _validate(document: object) -> Combined | Leaf:
    problems: list[FieldError] = []
    node = parse_node(document, "", problems)
    if node is None or problems:
        raise ValueError("; ".join(f"{p.field.lstrip('.')}: {p.message}" for p in problems))
    return node


Node = Annotated[
    Combined | Leaf,
    BeforeValidator(_validate),
    PlainSerializer(node_document),
    WithJsonSchema(
        {"type": "object", "description": "`all`, `any`, `not`, or a `criterion` with its numbers"}
    ),
]
