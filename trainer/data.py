"""Tokens by position: a memory-mapped cache, and batches that are a function of seed and step.

There is no loader and so no loader state: step 1,000 draws the same windows whether it is reached in one
go or after a restart, and the same for every variant at the same seed.
"""

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.config import DataConfig
from trainer.problems import DataProblem
from trainer.text.sources import META, Source, locate
from trainer.text.vocabulary import vocabulary_fingerprint

FORMAT = 2  # of the cache; another number is another key
Tokens = npt.NDArray[np.unsignedinteger]
Windows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenData:
    """One text under one tokenizer, split into a training and a held-out part."""

    train: Tokens
    held_out: Tokens
    """The evaluation slice alone: the first `evaluation_tokens + 1`."""
    tokenizer: str
    """Names the tokenizer and the hash of its vocabulary."""

    @property
    def evaluation_set(self) -> str:
        """Hash of the evaluation tokens."""
        return sha256(self.held_out.astype(np.uint32).tobytes()).hexdigest()

    def batch(self, seed: int, step: int, rows: int, length: int) -> Windows:
        """(rows, length + 1) random windows of the training part for step `step`, counted from 0."""
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))
        starts = generator.integers(0, len(self.train) - length, size=rows)
        # Every window as a row of an overlapping view, so that one gather copies whole rows.
        shape, stride = (len(self.train) - length, length + 1), self.train.itemsize
        windows = np.ndarray(shape, self.train.dtype, self.train.data, 0, (stride, stride))
        return windows[starts].astype(np.int64)

    def limited(self, evaluation_tokens: int | None) -> "TokenData":
        """The same text with at most so many evaluation tokens to predict; None: as it is."""
        if evaluation_tokens is None:
            return self
        return replace(self, held_out=self.held_out[: evaluation_tokens + 1])

    def evaluation_windows(self, length: int) -> list[Windows]:
        """Windows that predict every held-out token but the first exactly once, whatever `length` is.

        One array (n, length + 1) of full windows, then the shorter rest (1, r + 1) if there is one.
        """
        tokens = self.held_out.astype(np.int64)
        full, rest = divmod(len(tokens) - 1, length)
        at = np.arange(full)[:, None] * length + np.arange(length + 1)[None]
        windows = [tokens[at]] if full else []
        return windows + ([tokens[full * length :][None]] if rest else [])


def open_data(config: DataConfig, length: int, cache: Path) -> TokenData:
    """The tokens of `config`, prepared first if no worker has done so. Raises `DataProblem`."""
    try:
        source = locate(config)
        folder = cache / "tokens" / cache_key(config, source, cache)
    except FileNotFoundError as error:
        raise DataProblem(f"data.source: {error}") from None
    except PermissionError as error:
        raise DataProblem(f"data: '{error.filename}' may not be read: change its permissions") from error
    if not is_whole(folder):
        from trainer.text.prepare import prepare  # imports what reads and tokenises: seconds

        prepare(config, source, folder, is_whole)
    data = _open(folder, config.evaluation_tokens)
    if len(data.train) < length + 2:
        raise DataProblem(
            f"data.source: the training part has {len(data.train)} tokens, one sequence needs {length + 1}: "
            "give more text, or lower data.sequence_length"
        )
    if len(data.held_out) < 2:
        raise DataProblem("data.source: no held-out tokens: give more text, or raise data.held_out_share")
    return data


def cache_key(config: DataConfig, source: Source, cache: Path) -> str:
    """Hash of everything that the tokens depend on. Raises `OSError` when a file cannot be read."""
    parts = {
        "format": FORMAT,
        "source": source.name,
        "fingerprint": source.fingerprint(cache),
        "text_field": config.text_field,
        "tokenizer": [config.tokenizer.kind, config.tokenizer.vocab_size],
        "vocabulary": vocabulary_fingerprint(config.tokenizer),
        "held_out_share": None if source.held_out_split else config.held_out_share,
    }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def is_whole(folder: Path) -> bool:
    """Whether a cache is complete by its record and sizes."""
    try:
        meta = _read_meta(folder)
        return all((folder / name).stat().st_size == size for name, size in meta.sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True)
class _Meta:
    tokenizer: str
    dtype: np.dtype[np.unsignedinteger]
    sizes: dict[str, int]
    """Bytes of each file."""


def _read_meta(folder: Path) -> _Meta:
    meta = json.loads((folder / META).read_text())
    dtype: np.dtype[np.unsignedinteger] = np.dtype(str(meta["dtype"]))
    sizes = {f"{part}.bin": int(meta[f"{part}_tokens"]) * dtype.itemsize for part in ("train", "held_out")}
    return _Meta(str(meta["tokenizer"]), dtype, sizes)


def _open(folder: Path, evaluation_tokens: int) -> TokenData:
    meta = _read_meta(folder)
    return TokenData(
        train=_map(folder / "train.bin", meta),
        held_out=_map(folder / "held_out.bin", meta)[: evaluation_tokens + 1],
        tokenizer=meta.tokenizer,
    )


def _map(path: Path, meta: _Meta) -> Tokens:
    if meta.sizes[path.name] == 0:
        return np.empty(0, meta.dtype)
    # As a plain array: each slice of a memmap costs microseconds.
    return np.asarray(np.memmap(path, dtype=meta.dtype, mode="r"))
