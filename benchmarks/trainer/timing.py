"""Contestants in turn, again and again, in one run: what the machine does to one it does to all."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

Clock = Callable[[], float]
Contestants = dict[str, Callable[[], object]]


def in_turn(
    contestants: Contestants, turns: int, warm_up: int = 1, clock: Clock = perf_counter
) -> dict[str, list[float]]:
    """Seconds of each contestant, one per turn.

    `time.process_time` for `clock` leaves out what others on the machine take: for one thread.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + warm_up):
        for name, contestant in contestants.items():
            began = clock()
            contestant()
            if turn >= warm_up:
                seconds[name].append(clock() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], of: str, to: str) -> str:
    """Fastest to fastest, and the median over turns of the ratio within a turn."""
    fastest = min(seconds[of]) / min(seconds[to])
    middle = median(a / b for a, b in zip(seconds[of], seconds[to], strict=True))
    return f"{fastest:.3f} (median of turns {middle:.3f}, {len(seconds[of])} turns)"


def milliseconds(seconds: list[float]) -> str:
    return f"{1000 * min(seconds):.2f} ms"
