"""The token cache, made once: text through `datasets`, split, tokenised, renamed into place under a lock."""

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.config import DataConfig
from trainer.problems import DataProblem
from trainer.sources import META, Source, pydoc_documents
from trainer.tokenizer import Tokenizer, make_tokenizer

log = logging.getLogger(__name__)

BLOCKS = 2000  # a text is split in about so many blocks of neighbouring documents
UINT16_IDS = 65_536


@dataclass(frozen=True)
class Documents:
    """A text in two parts. A part is a sequence of documents, each ending in a newline."""

    train: Sequence[str]
    held_out: Sequence[str]


def prepare(config: DataConfig, source: Source, folder: Path) -> None:
    """Makes `folder` complete, or finds that another worker has. Raises `DataProblem`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(folder.name + ".lock")):
        if (folder / META).is_file():
            return
        log.info("preparing the text '%s' (once)", config.source)
        building = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            _build(config, source, building)
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def split(documents: Sequence[str], held_out_share: float) -> Documents:
    """Whole blocks of neighbouring documents, spread over the text, are held out. Draws no random number."""
    period = max(2, round(1 / held_out_share))
    if len(documents) < 2 * period:
        return _split_tail(documents, held_out_share)
    block = max(1, len(documents) // BLOCKS)
    parts: tuple[list[str], list[str]] = ([], [])
    for i, document in enumerate(documents):
        parts[(i // block) % period == period - 1].append(document)
    return Documents(*parts)


def _split_tail(documents: Sequence[str], held_out_share: float) -> Documents:
    """For a text of few documents: its last characters are held out."""
    text = "".join(documents)
    cut = len(text) - round(len(text) * held_out_share)
    return Documents([text[:cut]], [text[cut:]])


def _build(config: DataConfig, source: Source, folder: Path) -> None:
    documents = _documents(config, source)
    if not any(documents.train):
        raise DataProblem("data.source: the text is empty: give a file with text")
    tokenizer = make_tokenizer(config.tokenizer, documents.train)
    small = (config.tokenizer.vocab_size or 0) <= UINT16_IDS
    dtype: np.dtype[np.unsignedinteger] = np.dtype(np.uint16) if small else np.dtype(np.uint32)
    meta = {
        "source": source.name,
        "tokenizer": tokenizer.name,
        "dtype": dtype.name,
        "train_tokens": _write(folder / "train.bin", tokenizer, documents.train, dtype),
        "held_out_tokens": _write(folder / "held_out.bin", tokenizer, documents.held_out, dtype),
    }
    tokenizer.save(folder)
    (folder / META).write_text(json.dumps(meta, indent=2) + "\n")


def _write(
    path: Path, tokenizer: Tokenizer, documents: Iterable[str], dtype: np.dtype[np.unsignedinteger]
) -> int:
    count = 0
    with path.open("wb") as stream:
        for ids in tokenizer.encode(documents):
            stream.write(ids.astype(dtype).tobytes())
            count += len(ids)
        stream.flush()
        os.fsync(stream.fileno())
    return count


def _documents(config: DataConfig, source: Source) -> Documents:
    if source.name == "pydoc":
        return split([_line(d) for d in pydoc_documents()], config.held_out_share)
    if source.name == "wikitext-103":
        return _wikitext()
    assert source.file is not None, "a source is named or a file"  # noqa: S101 - narrows the type
    return split(_read_file(source.file, config.text_field), config.held_out_share)


def _read_file(path: Path, field: str) -> list[str]:
    import datasets

    kind, column = ("text", "text") if path.suffix == ".txt" else ("json", field)
    try:
        # Rows are read once; what is kept is the token cache, so the library's own copy is not.
        rows = datasets.load_dataset(kind, data_files=str(path), split="train", streaming=True)
        return [_line(row[column]) for row in rows if row.get(column)]
    except Exception as error:
        raise _data_problem(
            error, f"cannot read '{path.name}'", "check its format and data.text_field"
        ) from error


def _wikitext() -> Documents:
    try:
        import datasets

        text = datasets.load_dataset("Salesforce/wikitext", "wikitext-103-raw-v1")
        return Documents(_lines(text["train"]["text"]), _lines(text["validation"]["text"]))
    except Exception as error:
        raise _data_problem(
            error,
            "cannot get wikitext-103",
            "run once with network (HF_HOME keeps it), point HF_HOME at a cache that has it, "
            "or set data.source to a local text file",
        ) from error


def _data_problem(error: Exception, what: str, fix: str) -> Exception:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return error
    return DataProblem(f"data.source: {what} ({type(error).__name__}): {fix}")


def _lines(texts: Iterable[str]) -> list[str]:
    return [_line(text) for text in texts if text]


def _line(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; freed by the system when its holder dies."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
