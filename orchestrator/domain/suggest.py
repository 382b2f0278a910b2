"""The nearest name, for messages about a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`: did you mean ...?`, or what is known when nothing is near; starts with `:` or is empty."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f": did you mean `{near[0]}`?"
    return f": known are {', '.join(f'`{n}`' for n in names)}" if names else ""
