"""What one entry of a table or a history measured, and how entries become sessions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.logs.sessions import Measured, Session, equal
from orchestrator.protocol.wire import JsonObject

AGAIN = 1e-4
"""Nats per token by which the same model may differ from itself when it is evaluated again."""


@dataclass(frozen=True)
class Row:
    """One entry, with what it knows."""

    place: str
    """The file and its line."""
    step: int
    eval_loss: float | None = None
    train_loss: float | None = None
    tokens: int | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    session: str = ""


def sessions_of(rows: Sequence[Row], *, may_go_back: bool) -> list[Session]:
    """The sessions in rows: told by their name, and where steps may go back, by that.

    Raises `Invalid` with the line where steps go back and may not, or where a step has a second eval loss.
    """
    groups = [(name, list(group)) for name, group in groupby(rows, key=lambda row: row.session)]
    seen: set[str] = set()
    for name, group in groups:
        if name in seen:
            text = f"session `{name}` comes back after another: put its rows together"
            raise Invalid([FieldError(group[0].place, text)])
        seen.add(name)
    stretches = [part for _, group in groups for part in _stretches(group, may_go_back=may_go_back)]
    return [session for session in map(_session, stretches) if session]


def _stretches(rows: list[Row], *, may_go_back: bool) -> list[list[Row]]:
    stretches: list[list[Row]] = [[]]
    for row in rows:
        before = stretches[-1][-1] if stretches[-1] else None
        if before is not None and row.step < before.step:
            if not may_go_back:
                raise Invalid([FieldError(row.place, _went_back(before, row))])
            stretches.append([])
        stretches[-1].append(row)
    return stretches


def _went_back(before: Row, row: Row) -> str:
    return (
        f"steps go backwards, from {before.step} to {row.step}: sort the rows; or name each session of a "
        "resumed run in a column `session`; or each run in a column `run`, and choose with --run"
    )


def _session(rows: list[Row]) -> Session:
    evaluations: dict[int, tuple[Measured, str]] = {}
    losses: dict[int, float] = {}
    rates: dict[int, JsonObject] = {}
    for row in rows:
        rates[row.step] = rates.get(row.step, {}) | _extras(row)
        if row.train_loss is not None:
            losses[row.step] = row.train_loss
        if row.eval_loss is None:
            continue
        known = evaluations.get(row.step)
        if known is not None and not _same(known[0].eval_loss, row.eval_loss):
            text = (
                f"another eval loss for step {row.step} than {known[1]} has: keep one, or name sessions apart"
            )
            raise Invalid([FieldError(row.place, text)])
        evaluations[row.step] = (Measured(row.step, row.eval_loss, {}), row.place)
    measured = [found._replace(values=rates[step]) for step, (found, _) in evaluations.items()]
    return Session(rows[0].place if rows else "", measured, list(losses.items()))


def _same(left: float, right: float) -> bool:
    """Whether two eval losses of one step are one model evaluated twice."""
    return equal(left, right) or abs(left - right) <= AGAIN


def _extras(row: Row) -> JsonObject:
    fields = {"tokens": row.tokens, "learning_rate": row.learning_rate, "grad_norm": row.grad_norm}
    return {name: value for name, value in fields.items() if value is not None}


def number(value: object) -> float | None:
    """A number, also one written as text; None for nothing. Raises `ValueError` with the message else."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"is {str(value)[:40]!r}, where a number is needed")
