"""Documents of a source, one at a time: a line of a text file, a row of any other.

Nothing is held but a .json file that is one list. A problem names the line or row, the field and the fix.
"""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.problems import DataProblem
from trainer.text.columns import Texts, no_column, text_of
from trainer.text.sources import Source, pydoc_documents

ROWS = 1000  # of a Parquet file, read at once


def open_texts(source: Source, field: str, scratch: Path) -> Texts:
    """The documents of `source`; `scratch` may be filled with files. Raises `DataProblem`."""
    if source.name == "pydoc":
        return Texts(pydoc_documents())
    if source.dataset is not None:
        from trainer.text.hub import open_dataset  # imports datasets: seconds

        return open_dataset(source, field, scratch)
    assert source.path is not None, "a source is named, a dataset or a file"  # noqa: S101 - narrows the type
    return Texts(_READERS[source.path.suffix](source.path, field))


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines from 1 without their ends."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            try:
                yield number, line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                raise DataProblem(
                    f"data.source: line {number} of '{path.name}' is not UTF-8: convert the file"
                ) from None


def _text_lines(path: Path, _field: str) -> Iterator[str]:
    for _, line in _numbered_lines(path):
        yield line


def _json_lines(path: Path, field: str) -> Iterator[str]:
    for number, line in _numbered_lines(path):
        if not line.strip():
            continue
        where = f"line {number} of '{path.name}'"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataProblem(f"data.source: {where} is not JSON ({error}): mend it") from None
        yield _field_of(row, field, where)


def _json(path: Path, field: str) -> Iterator[str]:
    """A list of objects, or else one object per line."""
    with path.open("rb") as stream:
        start = stream.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start.startswith(b"["):
        yield from _json_lines(path, field)
        return
    try:
        rows = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise DataProblem(f"data.source: '{path.name}' is not JSON ({error}): mend it") from None
    for number, row in enumerate(rows, 1):
        yield _field_of(row, field, f"item {number} of '{path.name}'")


def _field_of(row: object, field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise DataProblem(f'data.source: {where} is no object: give rows like {{"{field}": ...}}')
    if field not in row:
        raise no_column(field, where, row)
    return text_of(row[field], field, where)


def _parquet_rows(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise no_column(field, f"'{path.name}'", file.schema_arrow.names)
            for batch in file.iter_batches(ROWS, columns=[field]):
                for value in batch.column(0).to_pylist():
                    yield text_of(value, field, f"'{path.name}'")
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataProblem(
            f"data.source: '{path.name}' cannot be read as Parquet ({reason}): write it again"
        ) from error


_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _text_lines,
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet_rows,
}
