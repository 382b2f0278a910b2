"""What a reader of documents hands on, and what it says of a column that holds no text."""

from collections.abc import Iterable
from dataclasses import dataclass

from trainer.problems import DataProblem


@dataclass(frozen=True)
class Texts:
    """A text to be read once: its documents, and those of its own held-out split if it has one."""

    train: Iterable[str]
    held_out: Iterable[str] | None = None
    revision: str | None = None
    """Of hub data."""


def text_of(value: object, field: str, where: str) -> str:
    """`value` as text; a null is no text. Raises `DataProblem` when it is something else."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise DataProblem(
        f"data.text_field: '{field}' of {where} holds {type(value).__name__}, not text: "
        "set it to the name of the text's column"
    )


def no_column(field: str, where: str, columns: Iterable[str]) -> DataProblem:
    known = ", ".join(sorted(columns)) or "none"
    return DataProblem(f"data.text_field: {where} has no '{field}': set it to one of its columns: {known}")
