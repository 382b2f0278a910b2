"""The page of the trainer's config against its schema: every setting has its row and its default."""

import re

from doc_pages import read, table_rows
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from trainer.config import Config
from trainer.facts import _group


def _defaults(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        group = _group(field.annotation)
        if group is not None:
            found |= _defaults(group, f"{prefix}{name}.")
        else:
            found[prefix + name] = _as_written(field.default)
    return found


def _as_written(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    return {"None": "none", "True": "true", "False": "false"}.get(str(default), str(default))


def test_every_setting_has_its_row_and_default() -> None:
    rows = {row[0].strip("`"): row[1] for row in table_rows(read("docs/trainer-config.md")) if "." in row[0]}
    assert rows == _defaults(Config)


def test_every_choice_is_named() -> None:
    text = read("docs/trainer-config.md")
    schema = Config.model_json_schema()["$defs"]
    choices = {
        choice
        for group in schema.values()
        for field in group["properties"].values()
        for part in (field, *field.get("anyOf", ()))
        for choice in part.get("enum", ())
    }
    missing = {choice for choice in choices if not re.search(rf"\b{choice}\b", text)}
    assert missing == set()
