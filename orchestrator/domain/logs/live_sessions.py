"""The columns of a live log as sessions: a new one begins where the steps go back."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.logs.live import Columns, Pairs, scan
from orchestrator.domain.logs.mixture import mixed
from orchestrator.domain.logs.moe import fields_of, in_nats, read_moe
from orchestrator.domain.logs.sessions import Loss, Measured, Session, counted, equal
from orchestrator.domain.logs.steps import Choices, on_grid
from orchestrator.protocol.wire import JsonObject

CARRIED = {b"learning_rate": "learning_rate", b"grad_norm": "grad_norm", b"num_input_tokens_seen": "tokens"}
"""Other keys of an evaluation's dict, and the fields that they are."""

Stretch = tuple[int, int]
"""(first place, place after the last) of a session in the columns."""


def read_live_log(file: str, data: bytes, choices: Choices) -> tuple[list[Session], list[str]]:
    """The sessions in a log, and sentences about what was made of it.

    Raises `Invalid` with the line of a number that cannot be read, or the option that gives missing steps.
    """
    columns = scan(file, data, choices)
    if columns.strange and not columns.evaluations:
        names = ", ".join(f"`{name}`" for name in sorted(columns.strange))
        raise Invalid([FieldError(file, f"has no `eval_loss`, but {names}: rename the one that is meant")])
    stretches = list(_stretches(columns.steps))
    balance, notes = _balance(columns, stretches)
    sessions = [_session(columns, stretch, balance, notes) for stretch in stretches]
    if columns.torn:
        notes.append(f"{file}: {counted(columns.torn, 'entry', 'entries')} without an end passed over")
    if columns.within >= 1 and choices.eval_every is None:
        notes.append(
            f"{file}: steps were made from rounded epochs: an evaluation may lie {columns.within:.0f} steps "
            "beside the step that it got; --eval-every puts evaluations on their grid"
        )
    return sessions, notes


def _stretches(steps: list[float]) -> Iterator[Stretch]:
    start = 0
    for place, (before, after) in enumerate(pairwise(steps), 1):
        if after < before:
            yield start, place
            start = place
    if steps:
        yield start, len(steps)


def _within(columns: Columns, stretch: Stretch) -> list[int]:
    """The places of the evaluations of a stretch."""
    every = columns.evaluated
    return every[bisect_left(every, stretch[0]) : bisect_left(every, stretch[1])]


def _session(columns: Columns, stretch: Stretch, balance: dict[int, JsonObject], notes: list[str]) -> Session:
    places = _within(columns, stretch)
    found: dict[int, Measured] = {}
    differing: list[int] = []
    for place in places:
        step = on_grid(columns.steps[place], columns.choices.eval_every, columns.within)
        values = _values(columns.evaluations[place]) | balance.get(place, {})
        measured = Measured(step, columns.losses[place], values)
        if step in found and not equal(found[step].eval_loss, measured.eval_loss):
            differing.append(place)
        found[step] = measured
    _tell_differing(columns, differing, notes)
    losses = _losses(columns, stretch, places, notes)
    evaluations = sorted(found.values(), key=lambda measured: measured.step)
    return Session(columns.where(stretch[0]), evaluations, losses)


def _values(pairs: Pairs) -> JsonObject:
    """The other fields that an evaluation's dict says."""
    found: JsonObject = {}
    for key, name in CARRIED.items():
        if key in pairs:
            number = float(pairs[key][1])
            found[name] = int(number) if name == "tokens" else number
    return found


def _tell_differing(columns: Columns, places: list[int], notes: list[str]) -> None:
    """One evaluation made again is told; more of them are two runs side by side."""
    if not places:
        return
    text = f"eval losses differ at the same step {len(places)} times, without steps going back"
    if len(places) > 1:
        raise mixed(columns.where(places[0]), text)
    step = round(columns.steps[places[0]])
    notes.append(f"{columns.where(places[0])}: evaluated again at step {step}; the one before was dropped")


def _losses(columns: Columns, stretch: Stretch, places: list[int], notes: list[str]) -> list[Loss]:
    """(step, training loss) of a stretch; of those that share a step, the last."""
    found: dict[int, float] = {}
    start = stretch[0]
    for place in [*places, stretch[1]]:
        found.update(zip(map(round, columns.steps[start:place]), columns.losses[start:place], strict=True))
        start = place + 1
    every = stretch[1] - stretch[0] - len(places)
    shared = every - len(found)
    if columns.choices.steps_per_epoch is None and shared >= 10 and shared > every / 5:
        raise mixed(columns.where(stretch[0]), f"{shared:,} training losses share their step with another")
    if shared:
        text = (
            f"{counted(shared, 'training loss', 'training losses')} dropped, since a later one has its step"
        )
        notes.append(f"{columns.where(stretch[0])}: {text}")
    return list(found.items())


def _balance(columns: Columns, stretches: list[Stretch]) -> tuple[dict[int, JsonObject], list[str]]:
    """For the place of each evaluation what the last [MOE] line since the one before says, and sentences."""
    if not columns.moe:
        return {}, []
    said = {place: read_moe(line) for place, line in _last_lines(columns, stretches)}
    nats = any(map(in_nats, said.values()))
    found: dict[int, JsonObject] = {}
    missing: dict[str, int] = {}
    for place, numbers in said.items():
        found[place], lacks = fields_of(numbers, nats=nats)
        if lacks is not None:
            missing[lacks] = missing.get(lacks, 0) + 1
    routed = sum("routing" in values for values in found.values())
    head = f"{columns.file}: {counted(len(columns.moe), '[MOE] line')}; routing known at {routed:,} of "
    notes = [f"{head}{counted(len(columns.evaluations), 'evaluation')}"]
    notes += [f"{columns.file}: {count:,} [MOE] lines say {lacks}" for lacks, count in missing.items()]
    if nats:
        notes.append(f"{columns.file}: [MOE] entropies above 1 are in nats: all were divided by ln E")
    return found, notes


def _last_lines(columns: Columns, stretches: list[Stretch]) -> Iterator[tuple[int, str]]:
    """An [MOE] line belongs to the step of the entry before it."""
    counts = [count for count, _ in columns.moe]
    for start, end in stretches:
        after = start if start else -1
        for place in _within(columns, (start, end)):
            until = bisect_right(columns.steps, columns.steps[place], start, end)
            line = bisect_right(counts, until) - 1
            if line >= 0 and counts[line] > after:
                yield place, columns.moe[line][1]
            after = until
