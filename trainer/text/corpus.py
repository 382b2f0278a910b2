"""One text on disk while it is prepared: UTF-8 in a file, where each document ends, which are held out.

On disk, because a text is read several times (to train a tokenizer, to encode it) and may not fit in memory.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.problems import DataProblem
from trainer.text.columns import Texts

BLOCKS = 2000  # a text is split in about so many blocks of neighbouring documents
CHUNK = 1 << 20  # bytes of text handled at once, one document at least
Ends = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Corpus:
    """Documents by number, each ending in a newline."""

    text: npt.NDArray[np.uint8]
    ends: Ends
    """(documents,) the first byte after each."""
    held_out: Mask
    """(documents,)"""

    def bytes_of(self, *, held_out: bool) -> int:
        """Of one part."""
        return int(np.diff(self.ends, prepend=0)[self.held_out == held_out].sum())

    def chunks(self, *, held_out: bool) -> Iterator[list[str]]:
        """The documents of one part in order, about `CHUNK` bytes at a time."""
        chunk: list[str] = []
        size = 0
        for first, last in _runs(self.held_out, held_out):
            for start, ends in self._pieces(first, last):
                chunk += self._texts(start, ends)
                size += int(ends[-1]) - start
                if size >= CHUNK:
                    yield chunk
                    chunk, size = [], 0
        if chunk:
            yield chunk

    def documents(self, *, held_out: bool) -> Iterator[str]:
        """The documents of one part in order."""
        for chunk in self.chunks(held_out=held_out):
            yield from chunk

    def _pieces(self, first: int, last: int) -> Iterator[tuple[int, Ends]]:
        """Documents `first` to `last - 1` as (start, ends), `CHUNK` bytes or one document at a time."""
        while first < last:
            start = int(self.ends[first - 1]) if first else 0
            stop = int(np.searchsorted(self.ends[first:last], start + CHUNK, side="right")) + first
            stop = max(stop, first + 1)
            yield start, self.ends[first:stop]
            first = stop

    def _texts(self, start: int, ends: Ends) -> list[str]:
        data = self.text[start : int(ends[-1])].tobytes()
        return [data[a:b].decode() for a, b in pairwise([0, *(ends - start).tolist()])]


def write_corpus(
    texts: Texts, share: float, path: Path, advance: Callable[[int], None] = lambda _: None
) -> Corpus:
    """Reads `texts` once into the file `path`; documents without text are left out.

    `share` of them is held out, unless the text has its own held-out split. `advance` is told of bytes
    written. Raises `DataProblem` when a part has no text.
    """
    ends = array("q")
    with path.open("wb") as stream:
        position = _write(stream.write, texts.train, 0, ends, advance)
        trained = len(ends)
        if texts.held_out is not None:
            _write(stream.write, texts.held_out, position, ends, advance)
    if not ends or not trained:
        raise DataProblem("data.source: the text is empty: give one with text")
    if texts.held_out is not None and trained == len(ends):
        raise DataProblem("data.held_out_split: it has no text: name another, or remove it")
    text = np.memmap(path, dtype=np.uint8, mode="r")
    all_ends = np.array(ends, dtype=np.int64)
    if texts.held_out is not None:
        return Corpus(text, all_ends, np.arange(len(ends)) >= trained)
    return Corpus(text, *partition(text, all_ends, share))


def partition(text: npt.NDArray[np.uint8], ends: Ends, share: float) -> tuple[Ends, Mask]:
    """(ends, held out): blocks of neighbouring documents, spread over the text. Draws no random number.

    Of a text of few documents the last bytes are held out, and the document they begin in is cut in two.
    """
    period = max(2, round(1 / share))
    if len(ends) >= 2 * period:
        block = max(1, len(ends) // BLOCKS)
        return ends, np.arange(len(ends)) // block % period == period - 1
    cut = _character_start(text, int(ends[-1]) - round(int(ends[-1]) * share))
    ends = np.unique(np.append(ends, cut)) if 0 < cut < ends[-1] else ends
    return ends, ends > cut


def _character_start(text: npt.NDArray[np.uint8], position: int) -> int:
    while 0 < position < len(text) and text[position] & 0b1100_0000 == 0b1000_0000:
        position -= 1
    return position


def _write(
    write: Callable[[bytes], int],
    documents: Iterable[str],
    position: int,
    ends: "array[int]",
    advance: Callable[[int], None],
) -> int:
    """Appends `documents`; the position after them."""
    for document in documents:
        if not document:
            continue
        data = _encoded(document if document.endswith("\n") else document + "\n")
        write(data)
        position += len(data)
        ends.append(position)
        advance(len(data))
    return position


def _encoded(document: str) -> bytes:
    try:
        return document.encode()
    except UnicodeEncodeError as error:
        around = ascii(document[max(0, error.start - 20) : error.end + 20])
        raise DataProblem(f"data.source: half a surrogate pair in {around}: mend the text") from None


def _runs(mask: Mask, wanted: bool) -> Iterator[tuple[int, int]]:
    """[first, last) of each run of neighbours whose mask is `wanted`."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask == wanted, [False]))))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
