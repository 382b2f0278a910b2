"""Which checkpoints may go: those that no gate, no retry and no linked run can ask for any more. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SPARE = 2
"""So many sound checkpoints stay whatever happens: the newest, and one to fall back to."""


@dataclass(frozen=True)
class Stored:
    """One checkpoint that is on disk."""

    id: int
    step: int
    attempt: int
    """The number of the attempt that wrote it; of two at one step the newer attempt's is gone on from."""
    sound: bool = True


@dataclass(frozen=True)
class Needs:
    """What may still be asked of a run's checkpoints."""

    waits: tuple[int, ...] = ()
    """Steps of gates and points that are not closed, and of the one at which the run stands."""
    decided_at: int | None = None
    """Of a run that ended: the step that its last decision names."""
    at_most: int | None = None
    """Past this step nothing of earlier attempts is gone on from."""
    good: int | None = None
    """Where a divergence would be gone back to: the newest at which the loss was near its best."""
    linked: tuple[int, ...] = ()
    """Runs that took this one over go on from its newest checkpoint up to one of these steps."""


def may_go(checkpoints: Sequence[Stored], needs: Needs) -> list[Stored]:
    """Those that may be removed, oldest first; none while there are fewer than `SPARE` sound ones."""
    newest = _newest_of_each_step(c for c in checkpoints if c.sound and _within(c.step, needs.at_most))
    if len(newest) < SPARE:
        return []
    floor = newest[SPARE - 1].step
    kept = {c.id for c in newest if _is_needed(c, newest, needs)}
    found = [c for c in checkpoints if c.step < floor and c.id not in kept]
    return sorted(found, key=lambda c: (c.step, c.attempt))


def _is_needed(checkpoint: Stored, newest: Sequence[Stored], needs: Needs) -> bool:
    if checkpoint.step in {*needs.waits, needs.decided_at, needs.good}:
        return True
    return any(checkpoint.step == _newest_up_to(limit, newest) for limit in needs.linked)


def _newest_up_to(limit: int, newest: Sequence[Stored]) -> int | None:
    return next((c.step for c in newest if c.step <= limit), None)


def _newest_of_each_step(checkpoints: Iterable[Stored]) -> list[Stored]:
    """The newest attempt's at each step, newest step first."""
    by_step = {c.step: c for c in sorted(checkpoints, key=lambda c: c.attempt)}
    return sorted(by_step.values(), key=lambda c: -c.step)


def _within(step: int, at_most: int | None) -> bool:
    return at_most is None or step <= at_most
