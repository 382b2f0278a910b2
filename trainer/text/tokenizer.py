"""Text to ids: bytes, a BPE trained on the text, or GPT-2's vocabulary."""

import json
from collections.abc import Iterable
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainer.config import TokenizerConfig
from trainer.problems import DataProblem
from trainer.text.vocabulary import vocabulary_files, vocabulary_problem

GPT2_SIZE = 50_257
END_OF_TEXT = "<|endoftext|>"
"""GPT-2's only special token, its last id. Text that holds it literally gets that id, as in transformers;
documents end in a newline, as WikiText's do, and not in it."""


class Tokenizer(Protocol):
    """Turns documents into ids."""

    name: str
    """Kind, size and hash: two curves are comparable only when it agrees."""

    def encode(self, documents: list[str]) -> npt.NDArray[np.uint32]:
        """The ids of all documents, one after another. May be called by several threads at once."""
        ...

    def save(self, folder: Path) -> None: ...


class Bytes:
    """UTF-8 bytes."""

    name = "bytes-256"

    def encode(self, documents: list[str]) -> npt.NDArray[np.uint32]:
        return np.frombuffer("".join(documents).encode(), dtype=np.uint8).astype(np.uint32)

    def save(self, folder: Path) -> None:
        """Bytes have no vocabulary to keep."""


class Vocabulary:
    """A byte-level BPE of the tokenizers library."""

    def __init__(self, kind: str, definition: str) -> None:
        from tokenizers import Tokenizer as Backend

        self._definition = definition
        self._backend = Backend.from_str(definition)
        self.size: int = self._backend.get_vocab_size()
        self.name = f"{kind}-{self.size}-{sha256(definition.encode()).hexdigest()[:16]}"

    def encode(self, documents: list[str]) -> npt.NDArray[np.uint32]:
        encodings = self._backend.encode_batch_fast(documents, add_special_tokens=False)
        return np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.uint32)

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(self._definition)


def make_tokenizer(config: TokenizerConfig, training_text: Iterable[str]) -> Tokenizer:
    """The tokenizer that `config` names; a `bpe` is trained on `training_text`. Raises `DataProblem`."""
    if config.kind == "bytes":
        return Bytes()
    if config.kind == "bpe":
        return Vocabulary("bpe", _train_bpe(config.vocab_size or 0, training_text))
    return Vocabulary("gpt2", _gpt2(config))


def _train_bpe(size: int, text: Iterable[str]) -> str:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    backend.train_from_iterator(text, trainer)
    definition: str = backend.to_str()
    return definition


def _gpt2(config: TokenizerConfig) -> str:
    """The definition, the same text from whichever files the vocabulary is read."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary, merges = _gpt2_vocabulary(config)
    if vocabulary.get(END_OF_TEXT) != GPT2_SIZE - 1 or len(vocabulary) != GPT2_SIZE:
        raise DataProblem(
            f"data.tokenizer.path: a vocabulary of {len(vocabulary)} ids, with {END_OF_TEXT} at "
            f"{vocabulary.get(END_OF_TEXT)}, is not GPT-2's {GPT2_SIZE}: give GPT-2's files"
        )
    backend = Backend(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END_OF_TEXT])
    definition: str = backend.to_str()
    return definition


def _gpt2_vocabulary(config: TokenizerConfig) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids by token, and merges in order, of the files that `config` leads to."""
    files = vocabulary_files(config.path)
    if not files and config.path is not None:
        raise DataProblem(f"data.tokenizer.path: {vocabulary_problem(config)}")
    if not files:
        from trainer.text.hub import gpt2_files

        files = gpt2_files()
    try:
        return _read_json(files[0]) if len(files) == 1 else _read_pair(*files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        names = " and ".join(path.name for path in files)
        raise DataProblem(
            f"data.tokenizer.path: {names} hold no BPE vocabulary ({error}): give GPT-2's files"
        ) from error


def _read_pair(vocabulary: Path, merges: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    lines = merges.read_text("utf-8").split("\n")
    pairs = [line.split() for line in lines if line and not line.startswith("#version")]
    return dict(json.loads(vocabulary.read_text("utf-8"))), [(left, right) for left, right in pairs]


def _read_json(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model: dict[str, Any] = json.loads(path.read_text("utf-8"))["model"]
    # Older files write a merge as "a b", newer ones as ["a", "b"].
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return dict(model["vocab"]), [(left, right) for left, right in pairs]
