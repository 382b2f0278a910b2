"""Whether what should be one run is two: steps that jump about, or losses that no resume explains."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.logs.sessions import Session

EVALUATIONS_APART = 0.1
"""Nats per token by which eval losses at equal steps may differ: a resume moves them by some 0.01."""
LOSSES_APART = 0.3
"""The same for training losses of single steps, as a median: those carry the noise of a batch."""
LOSSES_SHARED = 10
"""Shared steps from which a median of training losses says something."""
JUMP = 10
"""Usual distances between entries; above so many, a session that passes an earlier one's end has jumped."""
TINY = 3
"""Entries of a session that is none: where most are so short and each begins higher, two wrote in turns."""

FIX = "import one run: cut the others out of the file, or give the files of one run alone"


def refuse_mixture(sessions: Sequence[Session]) -> None:
    """Raises `Invalid` where the sessions of one file cannot be those of one run."""
    _refuse_turns(sessions)
    _refuse_jumps(sessions)
    refuse_disagreement(sessions)


def _refuse_turns(sessions: Sequence[Session]) -> None:
    """A crash that comes back at once begins at the same step each time; two writers both go on."""
    if len(sessions) < 4:
        return
    sizes = [len(session.evaluations) + len(session.losses) for session in sessions[:-1]]
    rising = [later.first > before.first for before, later in pairwise(sessions)]
    if median(sizes) <= TINY and sum(rising) > len(rising) / 2:
        places = ", ".join(session.place for session in sessions[1:4])
        raise mixed(sessions[1].place, f"steps go back {len(sessions) - 1} times, first at {places}")


def _refuse_jumps(sessions: Sequence[Session]) -> None:
    """A session that goes on below the end of the one before, and then leaps past it: the other run again."""
    if len(sessions) < 3:
        return
    spacing = _spacing(sessions)
    leaps = [
        (later, leap)
        for before, later in pairwise(sessions)
        if (leap := _leap(later, before.last)) is not None
    ]
    if len(leaps) < 2:
        return
    spacing = _spacing(sessions)
    far = [(later, (a, b)) for later, (a, b) in leaps if b - a > JUMP * spacing]
    if len(far) >= 2:
        text = "; ".join(f"from {a} to {b} in the session at {later.place}" for later, (a, b) in far[:3])
        raise mixed(far[0][0].place, f"steps jump back and forth ({text})")


def _spacing(sessions: Iterable[Session]) -> float:
    parts = [part for session in sessions for part in (session.evaluations, session.losses)]
    steps = sorted({entry[0] for part in parts for entry in part})
    return median(b - a for a, b in pairwise(steps)) if len(steps) > 1 else math.inf


def _leap(session: Session, end: int) -> tuple[int, int] | None:
    """The neighbouring steps of a session between which it passes `end`; None where it does not."""
    below, above = [], []
    for part in (session.evaluations, session.losses):
        at = bisect_left(part, end, key=lambda entry: entry[0])
        if at < len(part) and part[at][0] == end:
            return None
        below += [part[at - 1][0]] if at else []
        above += [part[at][0]] if at < len(part) else []
    return (max(below), min(above)) if below and above else None


def refuse_disagreement(sessions: Sequence[Session]) -> None:
    """Raises `Invalid` where a session disagrees with those before it by more than a resume explains."""
    if len(sessions) < 2:
        return
    evaluations: dict[int, float] = {}
    losses: dict[int, float] = {}
    for number, session in enumerate(sessions, 1):
        measured = {entry.step: entry.eval_loss for entry in session.evaluations}
        apart = _apart(evaluations, measured, losses, session.losses)
        if apart is not None:
            text = f"session {number} ({session.place}) repeats steps of those before it with other losses"
            raise mixed(session.place, f"{text}: {apart}")
        evaluations |= measured
        losses.update(session.losses)


def _apart(
    evaluations: dict[int, float],
    measured: dict[int, float],
    losses: dict[int, float],
    trained: Iterable[tuple[int, float]],
) -> str | None:
    """How far a session is from those before it, if that is too far."""
    found = _differences(evaluations, measured.items())
    if found and abs(middle := median(found)) > EVALUATIONS_APART:
        return f"eval losses at {len(found)} equal steps differ by {abs(middle):.3f} nats"
    found = _differences(losses, trained)
    if len(found) >= LOSSES_SHARED and abs(middle := median(found)) > LOSSES_APART:
        return f"training losses at {len(found)} equal steps differ by {abs(middle):.3f} nats"
    return None


def _differences(before: dict[int, float], later: Iterable[tuple[int, float]]) -> list[float]:
    pairs = [(before[step], loss) for step, loss in later if step in before]
    return [b - a for a, b in pairs if math.isfinite(a) and math.isfinite(b)]


def mixed(place: str, why: str) -> Invalid:
    """The error for a file that holds more than one run."""
    return Invalid([FieldError(place, f"holds more than one run: {why}. {FIX}")])
