"""Which slots a run gets, and when a waiting worker gives its own away."""

from collections.abc import Sequence


def free_slots(all_slots: Sequence[str], held: Sequence[str]) -> tuple[str, ...]:
    """The slots that nobody holds, in the engine's order."""
    busy = set(held)
    return tuple(slot for slot in all_slots if slot not in busy)


def take_slots(free: Sequence[str], count: int) -> tuple[str, ...] | None:
    """The first `count` of the free slots, or None if there are fewer."""
    return tuple(free[:count]) if len(free) >= count else None


def must_yield(*, wanted: int, free: int) -> bool:
    """Whether a worker that waits at a gate gives its slot away: others want more than is free."""
    return wanted > free
