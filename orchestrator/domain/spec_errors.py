"""What Pydantic says of a spec, as field and fix."""

from collections.abc import Mapping, Sequence, Sized
from typing import cast

from pydantic import BaseModel, ValidationError

from orchestrator.domain.errors import FieldError
from orchestrator.domain.suggest import did_you_mean

Location = tuple[int | str, ...]
Models = Mapping[str, type[BaseModel]]
"""The model that stands below each key; the whole document's under the empty key."""

NAME_FIX = "use letters, digits, `.`, `_` and `-`, starting with a letter or digit, at most 63 characters"
JSON_OBJECTS = ("axes", "around_winner")
"""Keys of a stage whose values are free JSON below a path."""


LONGEST_FIELD = 200
"""Signs of a field's path; one that is nested without end is cut."""

POLICY = "write the name of a policy, or its document as an object"
SHAPES = {
    ("from", 0): "write `{best_of: [names]}`",
    ("policy", 0): POLICY,
    ("shadow", 0): POLICY,
    ("against", 1): POLICY,
    ("size", 0): "write two numbers, `[smallest, largest]`",
    ("points", 1): "write a pair, `[step, eval_loss]`",
    ("train_loss", 1): "write a pair, `[step, train_loss]`",
}
"""What to write at a key, below so many places in lists, where another shape stands there."""

OBJECTS = ("model_type", "model_attributes_type", "dict_type", "mapping_type")
LISTS = ("list_type", "tuple_type")


def mistakes(error: ValidationError) -> list[dict[str, object]]:
    """Pydantic's errors without those that follow from another.

    A tuple whose items are refused is called too short as well, and what is neither a policy's name nor
    its document is refused once as each.
    """
    return [item for item in map(dict, error.errors(include_url=False)) if not _follows(item)]


def _follows(item: Mapping[str, object]) -> bool:
    location, value = cast("Location", item["loc"]), item["input"]
    if item["type"] == "too_short":
        least = cast("dict[str, int]", item["ctx"])["min_length"]
        return isinstance(value, Sized) and len(value) >= least
    marks = location[len(without_marks(location)) :]
    if not _shape(without_marks(location)).startswith(POLICY) or len(marks) != 1:
        return False
    return isinstance(value, dict) if item["type"] == "string_type" else item["type"] == "dict_type"


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
        return FieldError(field, f"{_short(item['input'])} is not a name: {NAME_FIX}")
    return FieldError(field, f"{_fix(item, location, models)} (got {_short(item['input'])})")


def _fix(item: Mapping[str, object], location: Location, models: Models) -> str:
    """What to write, where Pydantic would speak of Python's types; else its own sentence."""
    kind = str(item["type"])
    context = cast("Mapping[str, int]", item.get("ctx") or {})
    if kind == "too_short":
        return f"write at least {_items(context['min_length'])}, not {context['actual_length']}"
    if kind == "too_long":
        return f"write at most {_items(context['max_length'])}, not {context['actual_length']}"
    if str(item["msg"]).startswith("Recursion error"):
        return "is nested too deep: write it flatter"
    if kind in (*OBJECTS, *LISTS, "string_type") and (shape := _shape(location)):
        return shape
    if kind in OBJECTS:
        return "write an object" + _with_keys(location, models)
    return "write a list" if kind in LISTS else str(item["msg"])


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"


def _shape(location: Location) -> str:
    """What `SHAPES` says of a place; nothing where it says nothing."""
    keys = [place for place, part in enumerate(location) if isinstance(part, str)]
    if not keys or location[-2:-1] == ("variants",):
        return ""  # a variant may be called `from`
    return SHAPES.get((str(location[keys[-1]]), len(location) - 1 - keys[-1]), "")


def _with_keys(location: Location, models: Models) -> str:
    """The keys of the object that belongs at a place, where a model says them."""
    key = next((part for part in reversed(location) if isinstance(part, str)), "")
    if key not in models or location[-2:-1] == ("variants",):
        return ""
    names = [field.alias or name for name, field in models[key].model_fields.items()]
    return f" with {', '.join(f'`{name}`' for name in names)}"


def without_marks(location: Location) -> Location:
    """The place without Pydantic's marks, told by where they stand, since a variant may have a mark's name.

    Below a JSON object a mark of the value's type follows each key; the two kinds of a policy are marks too
    (those of a replay's other policies stand in a list),
    and so are those of a variant, which stand after its name.
    """
    if location[:1] in (("policy",), ("shadow",)):
        return location[:1]
    if location[:1] == ("against",):
        return location[:2]
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
    """`("stages", 0, "steps")` as `stages[0].steps`; Pydantic's mark for a mapping's key is left out.

    At most `LONGEST_FIELD` signs.
    """
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text if len(text) <= LONGEST_FIELD else f"{text[: LONGEST_FIELD - 3]}..."


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
