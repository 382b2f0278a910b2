"""The sessions of one run, put together: the later wins from its first step on, and what falls is told."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.protocol.wire import JsonObject

Loss = tuple[int, float]
"""(step, training loss in nats per token)."""


class Measured(NamedTuple):
    """One evaluation as a log has it: `values` are the other fields of an evaluation that the log knows."""

    step: int
    eval_loss: float
    values: JsonObject


@dataclass
class Session:
    """One stretch of a log in which steps never go back. Both lists ascend, one entry for each step."""

    place: str
    """Where it begins: a file, with the line where that is known."""
    evaluations: list[Measured] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The lowest step of its entries."""
        return min(part[0][0] for part in (self.evaluations, self.losses) if part)

    @property
    def last(self) -> int:
        """The highest step of its entries."""
        return max(part[-1][0] for part in (self.evaluations, self.losses) if part)

    def __bool__(self) -> bool:
        return bool(self.evaluations or self.losses)


def in_order(files: Sequence[list[Session]]) -> list[Session]:
    """The sessions of several files of one run: files by last step, then first step, then as they were given.

    The last step goes first: an attempt may go back further than the one before it, and the one that came
    furthest must not be cut short by one that did not. Within a file its own order stands.
    """
    filled = [sessions for sessions in files if sessions]
    filled.sort(key=lambda sessions: (max(s.last for s in sessions), min(s.first for s in sessions)))
    return [session for sessions in filled for session in sessions]


def merge(sessions: Sequence[Session]) -> tuple[Session, list[str]]:
    """One curve, and a sentence for each later session that says what it dropped.

    A session wins at and after its first step over all sessions before it.
    """
    merged = Session(sessions[0].place) if sessions else Session("")
    notes: list[str] = []
    for number, session in enumerate(sessions, 1):
        if number > 1:
            evaluations = _cut(merged.evaluations, session.evaluations, session.first)
            losses = _cut(merged.losses, session.losses, session.first)
            notes.append(_dropped(number, session, evaluations, losses))
        merged.evaluations += session.evaluations
        merged.losses += session.losses
    return merged, notes


class _Cut(NamedTuple):
    dropped: int
    same: int
    """Entries that stand in the later session as they stood before."""


def _cut(kept: list, coming: Sequence, first: int) -> _Cut:  # type: ignore[type-arg]  # of evaluations, or of losses
    """Takes from `kept` what stands at or after `first`, and counts it."""
    at = bisect_left(kept, first, key=lambda entry: entry[0])
    if at == len(kept):
        return _Cut(0, 0)
    until = bisect_left(coming, kept[-1][0] + 1, key=lambda entry: entry[0])
    known = {entry[0]: entry[1] for entry in coming[:until]}
    same = sum(equal(known[entry[0]], entry[1]) for entry in kept[at:] if entry[0] in known)
    dropped = len(kept) - at - same
    del kept[at:]
    return _Cut(dropped, same)


def equal(left: float, right: float) -> bool:
    """Whether two losses are the same; NaN is the same as NaN."""
    return left == right or (math.isnan(left) and math.isnan(right))


def _dropped(number: int, session: Session, evaluations: _Cut, losses: _Cut) -> str:
    before = "session 1" if number == 2 else "the sessions before it"
    head = f"session {number} ({session.place}) begins at step {session.first}"
    same = evaluations.same + losses.same
    also = f"; {same:,} that it repeats are unchanged" if same else ""
    if not evaluations.dropped and not losses.dropped:
        return f"{head}: nothing of {before} was dropped{also}"
    what = f"{counted(evaluations.dropped, 'evaluation')} and {counted(losses.dropped, 'loss', 'losses')}"
    return f"{head}: {what} of {before} at and after it were dropped{also}"


def counted(number: int, one: str, more: str = "") -> str:
    """`1 evaluation`, `1,203 evaluations`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
