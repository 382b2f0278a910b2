"""YAML and JSON files read strictly: what would be lost or misread in silence is an error with its place."""

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from orchestrator.cli.errors import BadUsage

Document = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads `1e-4` as the number it looks like."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Document:
    loader.flatten_mapping(node)
    found: Document = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(
                problem=f'the key `{key_node.value}` is not text: put it in "quotes"',
                problem_mark=key_node.start_mark,
            )
        if key in found:
            raise yaml.MarkedYAMLError(
                problem=f"the key `{key}` is there twice", problem_mark=key_node.start_mark
            )
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_document(path: Path) -> Document:
    """The mapping in a YAML or JSON file. Raises `BadUsage` that says what is wrong and where."""
    text = _read(path)
    document = _parse_json(path, text) if path.suffix == ".json" else _parse_yaml(path, text)
    if not isinstance(document, dict):
        raise BadUsage(f"{path}: holds {_called(document)}, where a mapping of keys to values is needed")
    _check_values(path, document, "")
    return document


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadUsage(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise BadUsage(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise BadUsage(f"{path}: cannot be read: {error.strerror}") from None


def _parse_yaml(path: Path, text: str) -> object:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader with two more checks
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadUsage(f"{path}{place}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadUsage(f"{path}: is not YAML: {error}") from None


def _parse_json(path: Path, text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BadUsage(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadUsage(f"{path}: is not JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> Document:
    found: Document = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key `{key}` is there twice")
        found[key] = value
    return found


def _check_values(path: Path, value: object, where: str) -> None:
    """Everything inside must be JSON: dates, bytes and NaN are not."""
    if isinstance(value, dict):
        for key, inside in value.items():
            _check_values(path, inside, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            _check_values(path, inside, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadUsage(f"{path}: {where}: {value} is not a finite number")
    elif value is not None and not isinstance(value, str | int | float):
        raise BadUsage(f"{path}: {where}: {value} is a {type(value).__name__}: put it in quotes to mean text")


def _called(value: object) -> str:
    if value is None:
        return "nothing"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"
