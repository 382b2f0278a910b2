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
from trainer.sources import META, Source, locate

FORMAT = 1  # of the cache; another number is another key
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
        return np.stack([self.train[s : s + length + 1] for s in starts]).astype(np.int64)

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
    except FileNotFoundError as error:
        raise DataProblem(f"data.source: {error}") from None
    folder = cache / "tokens" / cache_key(config, source)
    if not (folder / META).is_file():
        from trainer.prepare import prepare  # imports datasets and tokenizers: seconds

        prepare(config, source, folder)
    data = _open(folder, config.evaluation_tokens)
    if len(data.train) < length + 2:
        raise DataProblem(
            f"data.source: the training part has {len(data.train)} tokens, one sequence needs {length + 1}: "
            "give more text, or lower data.sequence_length"
        )
    if len(data.held_out) < 2:
        raise DataProblem("data.source: no held-out tokens: give more text, or raise data.held_out_share")
    return data


def cache_key(config: DataConfig, source: Source) -> str:
    """Hash of everything that the tokens depend on."""
    parts = {
        "format": FORMAT,
        "source": source.name,
        "fingerprint": source.fingerprint(),
        "text_field": config.text_field,
        "tokenizer": config.tokenizer.model_dump(mode="json"),
        "held_out_share": config.held_out_share,
    }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _open(folder: Path, evaluation_tokens: int) -> TokenData:
    meta = json.loads((folder / META).read_text())
    return TokenData(
        train=_map(folder / "train.bin", meta, "train_tokens"),
        held_out=_map(folder / "held_out.bin", meta, "held_out_tokens")[: evaluation_tokens + 1],
        tokenizer=meta["tokenizer"],
    )


def _map(path: Path, meta: dict[str, object], count: str) -> Tokens:
    dtype = np.dtype(str(meta["dtype"]))
    expected = int(str(meta[count])) * dtype.itemsize
    if not path.is_file() or path.stat().st_size != expected:
        raise DataProblem(f"the token cache is damaged: delete the folder {path.parent} and start again")
    if expected == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")
