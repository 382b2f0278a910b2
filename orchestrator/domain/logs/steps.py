"""From epochs to steps, and how exact that is."""

import math
from dataclasses import dataclass

from orchestrator.domain.errors import FieldError, Invalid

PRINTED_DIGITS = 4
"""Significant digits of the numbers that newer versions of transformers print in quotes."""


@dataclass(frozen=True)
class Choices:
    """What the person who imports says about the files."""

    steps_per_epoch: float | None = None
    eval_every: int | None = None
    """The grid on which evaluations lie, for steps that were made from rounded epochs."""
    run: str | None = None
    """Of several runs in one table, the one that is meant."""

    def check(self) -> None:
        """Raises `Invalid` for a number of steps that is not finite and above 0."""
        wrong = [
            FieldError(name, f"is {value}: give a number above 0")
            for name, value in (
                ("--steps-per-epoch", self.steps_per_epoch),
                ("--eval-every", self.eval_every),
            )
            if value is not None and not (math.isfinite(value) and value > 0)
        ]
        if wrong:
            raise Invalid(wrong)


def steps_missing(place: str) -> Invalid:
    text = f"{place} says an epoch and no step: give the steps of one epoch with --steps-per-epoch"
    return Invalid([FieldError("--steps-per-epoch", text)])


def half_unit(written: str, *, quoted: bool) -> float:
    """Half of the last place of a printed number: how far from the exact one it may be.

    A number in quotes has four significant digits, trailing zeros not shown.
    """
    decimals = len(written.partition(".")[2])
    if "e" in written.lower():
        return 0.0
    if not quoted:
        return 0.5 * 10.0**-decimals
    value = abs(float(written))
    return 0.5 * 10.0 ** (math.floor(math.log10(value)) + 1 - PRINTED_DIGITS) if value > 0 else 0.0


def on_grid(step: float, every: int | None, within: float) -> int:
    """The whole step: the multiple of `every` if it lies as near as the rounding may have moved it."""
    if every is not None:
        near = round(step / every) * every
        if near > 0 and abs(near - step) <= within + 0.5:
            return near
    return round(step)
