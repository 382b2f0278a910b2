"""What Pydantic says of a spec, as field and fix."""

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import BaseModel

from orchestrator.domain.errors import FieldError
from orchestrator.domain.suggest import did_you_mean

Location = tuple[int | str, ...]
Models = Mapping[str, type[BaseModel]]
"""The model that stands below each key; the whole document's under the empty key."""

NAME_FIX = "use letters, digits, `.`, `_` and `-`, starting with a letter or digit, at most 63 characters"
JSON_OBJECTS = ("axes", "around_winner")
"""Keys of a stage whose values are free JSON below a path."""


def field_error(item: Mapping[str, object], models: Models) -> FieldError:
    """One of Pydantic's errors with its dotted field and how to mend it."""
    location = without_marks(cast("Location", item["loc"]))
    field = dotted(location) or "spec"
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), _known_keys(location, models))
        return FieldError(field, f"unknown key{hint}")
    if item["type"] == "missing":
        return FieldError(field, "is required and missing")
    if item["type"] == "string_pattern_mismatch":
        return FieldError(field, f"{item['input']!r} is not a name: {NAME_FIX}")
    return FieldError(field, f"{item['msg']} (got {_short(item['input'])})")


def without_marks(location: Location) -> Location:
    """The place without Pydantic's marks, told by where they stand, since a variant may have a mark's name.

    Below a JSON object a mark of the value's type follows each key; the two kinds of a policy are marks too,
    and so are those of a variant, which stand after its name.
    """
    if location[:1] in (("policy",), ("shadow",)):
        return location[:1]
    if location[:1] == ("base",):
        return location[:1] + location[1::2]
    if location[2:3] == ("variants",):
        return _in_variant(location)
    if location[2:3] and location[2] in JSON_OBJECTS:
        return location[:5]
    return location


def _in_variant(location: Location) -> Location:
    head, mark, rest = location[:4], location[4:5], location[5:]
    if mark == ("overrides",):
        return head + rest[::2]
    if mark == ("dependent",):
        return head + (rest[:1] + rest[1::2] if rest[:1] == ("set",) else rest)
    return head + mark + rest


def _known_keys(location: Location, models: Models) -> Sequence[str]:
    parents = [part for part in location[:-1] if isinstance(part, str)]
    if len(location) == 5 and location[2:3] == ("variants",):
        return ["from", "set"]
    return list(models.get(parents[-1] if parents else "", models[""]).model_fields)


def dotted(location: Location) -> str:
    """`("stages", 0, "steps")` as `stages[0].steps`; Pydantic's mark for a mapping's key is left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
