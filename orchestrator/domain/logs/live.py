"""A live log: `{'loss': ...}`, `{'eval_loss': ...}` and `[MOE]` lines among whatever else was printed.

One regular expression walks over the bytes once; a million lines take a few seconds.
"""

import math
import re
from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.logs.steps import Choices, half_unit, steps_missing
from orchestrator.protocol.wire import MAX_INTEGER

_NUMBER = rb"'?([-+.\w]+)'?"
_ENTRY = re.compile(
    # the usual line first, being nearly all of a long log; any other dict; [MOE]; a dict without its end
    rb"\{'loss': " + _NUMBER + rb", (?:'grad_norm': [^,}]+, )?(?:'learning_rate': [^,}]+, )?"
    rb"'epoch': " + _NUMBER + rb"\}|(\{['\"][^{}\r\n]*\})|\[MOE\]([^\r\n]*)|(\{['\"](?:eval_)?loss['\"]:)"
)  # fmt: skip
_USUAL, _MOE, _TORN = 2, 4, 5
"""The last group of each kind of entry."""
_PAIR = re.compile(rb"['\"]([\w./-]+)['\"]: *(?:[\w.]+\()?(['\"]?)([-+.\w]+)")
_STEP = (b"step", b"global_step")
_OTHER_EVALUATION = re.compile(rb"eval_\w+_loss")
_NEWLINE = b"\n"

Pairs = dict[bytes, tuple[bytes, bytes]]
"""Of one dict: key to (its quote, its value)."""


@dataclass
class Columns:
    """A log's entries: one place in each list for every loss and every evaluation, in the log's order."""

    file: str
    data: bytes
    choices: Choices
    steps: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    """Where in the bytes."""
    evaluations: dict[int, Pairs] = field(default_factory=dict)
    """The dicts of evaluations, by their place in the lists."""
    moe: list[tuple[int, str]] = field(default_factory=list)
    """[MOE] lines: how many places come before, and what the line says."""
    torn: int = 0
    """Entries without their end: a process was killed while it wrote."""
    strange: set[str] = field(default_factory=set)
    """Names of evaluations that are not `eval_loss`."""
    rounded_plain: float = math.inf
    """Half of the last place that evaluations' epochs show, the least: trailing zeros are not printed."""
    rounded_quoted: float = 0.0
    """The same of epochs in quotes, whose digits are counted: the most of them."""
    _counted: tuple[int, int] = (0, 0)
    """(Offset, lines before it) of the last line that was asked for."""

    def where(self, place: int) -> str:
        """The file and line of an entry."""
        return self.line_of(self.at[place])

    def line_of(self, offset: int) -> str:
        """The same of a place in the bytes, counted on from the one asked for before."""
        at, lines = self._counted if self._counted[0] <= offset else (0, 0)
        lines += self.data.count(_NEWLINE, at, offset)
        self._counted = (offset, lines)
        return f"{self.file}:{lines + 1}"

    @cached_property
    def evaluated(self) -> list[int]:
        """The places of all evaluations, once the log has been read."""
        return list(self.evaluations)

    @property
    def within(self) -> float:
        """Steps by which a step that was made from an evaluation's epoch may be off."""
        plain = self.rounded_plain if math.isfinite(self.rounded_plain) else 0.0
        return max(plain, self.rounded_quoted) * (self.choices.steps_per_epoch or 0.0)


def scan(file: str, data: bytes, choices: Choices) -> Columns:
    """The entries of a log. Raises `Invalid` with the line of what cannot be read, or the missing option."""
    columns = Columns(file, data, choices)
    _walk(columns)
    for place, step in enumerate(columns.steps):
        if not 0 <= step <= MAX_INTEGER:
            raise Invalid([FieldError(columns.where(place), f"says no sound step or epoch ({step})")])
    return columns


def _walk(columns: Columns) -> None:
    """Fills the columns. Written flat: this loop sees every line of the log."""
    per_epoch = columns.choices.steps_per_epoch
    steps, losses, at = columns.steps, columns.losses, columns.at
    offset = 0
    try:
        for match in _ENTRY.finditer(columns.data):
            offset, kind = match.start(), match.lastindex
            if kind == _USUAL and per_epoch is not None:
                loss, epoch = match.group(1, _USUAL)
                steps.append(float(epoch) * per_epoch)
                losses.append(float(loss))
                at.append(offset)
            elif kind == _MOE:
                columns.moe.append((len(steps), match[_MOE].decode(errors="replace")))
            elif kind == _TORN:
                columns.torn += 1
            else:
                _read_dict(columns, offset, match[0])
    except ValueError as error:
        place = columns.line_of(offset)
        raise Invalid([FieldError(place, f"holds a number that cannot be read: {error}")]) from None


def _read_dict(columns: Columns, offset: int, text: bytes) -> None:
    """One dict of any keys in any order; one without a loss is noise like any other."""
    pairs = {key: (quote, value) for key, quote, value in _PAIR.findall(text)}
    names = [name for name in (b"loss", b"eval_loss") if name in pairs]
    if not names:
        columns.strange |= {key.decode() for key in pairs if _OTHER_EVALUATION.fullmatch(key)}
        return
    step = _step(columns, offset, pairs)
    for name in names:
        if name == b"eval_loss":
            columns.evaluations[len(columns.steps)] = pairs
        columns.steps.append(step)
        columns.losses.append(float(pairs[name][1]))
        columns.at.append(offset)


def _step(columns: Columns, offset: int, pairs: Pairs) -> float:
    for key in _STEP:
        if key in pairs:
            return float(pairs[key][1])
    if b"epoch" not in pairs:
        raise Invalid([FieldError(columns.line_of(offset), "says a loss, and neither a step nor an epoch")])
    per_epoch = columns.choices.steps_per_epoch
    if per_epoch is None:
        raise steps_missing(columns.line_of(offset))
    quote, epoch = pairs[b"epoch"]
    if b"eval_loss" in pairs:
        half = half_unit(epoch.decode(), quoted=bool(quote))
        if quote:
            columns.rounded_quoted = max(columns.rounded_quoted, half)
        else:
            columns.rounded_plain = min(columns.rounded_plain, half)
    return float(epoch) * per_epoch
