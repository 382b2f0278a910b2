"""Ids as the outside spells them: `run_7` is row 7 of the runs."""

import re
from typing import Literal

from orchestrator.domain.errors import Missing

Kind = Literal["exp", "run", "att", "dec", "ref"]

_NAMES: dict[Kind, str] = {
    "exp": "experiment",
    "run": "run",
    "att": "attempt",
    "dec": "decision",
    "ref": "reference",
}


def spell(kind: Kind, number: int) -> str:
    return f"{kind}_{number}"


def number_of(kind: Kind, text: str) -> int:
    """The row that `text` names. Raises `Missing` when it names none of this kind."""
    match = re.fullmatch(rf"{kind}_([1-9][0-9]{{0,17}})", text)
    if match is None:
        example = spell(kind, 1)
        raise Missing(f"there is no {_NAMES[kind]} `{text[:40]}`: an id looks like `{example}`")
    return int(match[1])


def missing(kind: Kind, number: int) -> Missing:
    return Missing(f"there is no {_NAMES[kind]} `{spell(kind, number)}`")
