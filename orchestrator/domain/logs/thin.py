"""Fewer points of a long series."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def thin(points: Sequence[T], most: int) -> list[T]:
    """At most `most` points, evenly spaced over the series; the first and the last are always among them."""
    if len(points) <= most:
        return list(points)
    if most == 1:
        return [points[-1]]
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
