"""The token cache, made once: text read, split, tokenised, and renamed into place under a lock."""

import fcntl
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.config import DataConfig
from trainer.text.corpus import Corpus, write_corpus
from trainer.text.documents import open_texts
from trainer.text.progress import progress
from trainer.text.sources import META, Source
from trainer.text.tokenizer import Tokenizer, make_tokenizer

log = logging.getLogger(__name__)

UINT16_IDS = 65_536
# The tokenizers library encodes a chunk on its own threads (RAYON_NUM_THREADS, which a slot sets): on two
# cores 1.7 times one thread, as two processes give. A second chunk in flight hides the twentieth in Python.
IN_FLIGHT = 2
Ids = npt.NDArray[np.uint32]


def prepare(config: DataConfig, source: Source, folder: Path, whole: Callable[[Path], bool]) -> None:
    """Makes `folder` complete, or finds it `whole` because another worker has. Raises `DataProblem`.

    What is there and not whole is made again. A build that fails leaves nothing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(folder.name + ".lock")):
        if whole(folder):
            return
        _remove_leftovers(folder)
        log.info("preparing the text '%s' (once)", config.source)
        building = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        building.mkdir()
        try:
            _build(config, source, building)
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Of builds that were killed, and of a damaged cache. The lock is held: nobody is at work on them."""
    for left in folder.parent.glob(f"{folder.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        log.warning("the token cache %s is damaged and is made again", folder)
        shutil.rmtree(folder)


def _build(config: DataConfig, source: Source, folder: Path) -> None:
    scratch = folder / "scratch"
    scratch.mkdir()
    texts = open_texts(source, config.text_field, scratch)
    with progress("reading") as advance:
        corpus = write_corpus(texts, config.held_out_share, scratch / "text", advance)
    tokenizer = make_tokenizer(config.tokenizer, corpus.documents(held_out=False))
    small = (config.tokenizer.vocab_size or 0) <= UINT16_IDS
    dtype: np.dtype[np.unsignedinteger] = np.dtype(np.uint16) if small else np.dtype(np.uint32)
    meta = {
        "source": config.source,
        "revision": texts.revision,
        "tokenizer": tokenizer.name,
        "dtype": dtype.name,
        "train_tokens": _write(folder / "train.bin", tokenizer, corpus, dtype, held_out=False),
        "held_out_tokens": _write(folder / "held_out.bin", tokenizer, corpus, dtype, held_out=True),
    }
    tokenizer.save(folder)
    shutil.rmtree(scratch)
    (folder / META).write_text(json.dumps(meta, indent=2) + "\n")


def _write(
    path: Path,
    tokenizer: Tokenizer,
    corpus: Corpus,
    dtype: np.dtype[np.unsignedinteger],
    *,
    held_out: bool,
) -> int:
    """Writes one part's ids to `path`; their number."""
    count = 0
    with (
        path.open("wb") as stream,
        progress("tokenising", corpus.bytes_of(held_out=held_out)) as advance,
    ):
        for ids, size in _encoded(tokenizer, corpus.chunks(held_out=held_out)):
            stream.write(ids.astype(dtype).tobytes())
            count += len(ids)
            advance(size)
        stream.flush()
        os.fsync(stream.fileno())
    return count


def _encoded(tokenizer: Tokenizer, chunks: Iterable[list[str]]) -> Iterator[tuple[Ids, int]]:
    """(ids, bytes of text) of each chunk, in order, `IN_FLIGHT` of them encoded at a time."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        waiting: deque[Future[tuple[Ids, int]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_encode, tokenizer, chunk))
            if len(waiting) > IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _encode(tokenizer: Tokenizer, chunk: list[str]) -> tuple[Ids, int]:
    ids = tokenizer.encode(chunk)
    return ids, sum(len(document.encode()) for document in chunk)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; freed by the system when its holder dies."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another worker is preparing this text: waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
