"""Recorded curves for a backtest: from finished experiments, or as they were posted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from sqlalchemy import Connection

from orchestrator.domain.backtests import History, PostedCurve
from orchestrator.domain.curves import Curve, comparable
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.ids import number_of
from orchestrator.rules.history import Recorded, Replay, bare_curve, moved_to_horizon, on_grid
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment
from orchestrator.services.protocol import protocol_of
from orchestrator.store import experiments, runs
from orchestrator.store.histories import load_curves
from orchestrator.store.records import ExperimentRecord

NEAR = 0.9
"""With a rate of exchange: from this share of the common horizon on a run's last loss counts as final."""
MOST_TOLD = 5


@dataclass(frozen=True)
class Raw:
    """One run as it was recorded, before it is put on a grid."""

    config: str
    run: str
    curve: Curve
    horizon: int | None
    """What its schedule was sized to; None where that was not said."""
    seconds_per_step: float | None


@dataclass(frozen=True)
class Loaded:
    """A history with the plan that it comes with."""

    raw: list[Raw]
    notes: list[str] = field(default_factory=list)
    stages: tuple[int, ...] | None = None
    promote: tuple[PromoteRule, ...] | None = None
    eval_every: int | None = None
    control: str | None = None


def load_history(context: Context, history: History) -> Loaded:
    """Raises `Missing` for an experiment that is not there, `Invalid` for one that has not ended."""
    if history.curves:
        return posted_history(history.curves)
    ids = [number_of("exp", text) for text in history.experiments]
    with context.database.read() as connection:
        found = [need_experiment(connection, id_) for id_ in ids]
        loaded = [_experiment(connection, one, several=len(found) > 1) for one in found]
    problems = [
        FieldError(f"history.experiments[{i}]", f"{text} has not ended: its curves still grow")
        for i, (text, one) in enumerate(zip(history.experiments, found, strict=True))
        if one.ended_at is None
    ]
    problems += [
        FieldError(f"history.experiments[{i}]", f"{text} is named twice: name it once")
        for i, text in enumerate(history.experiments)
        if text in history.experiments[:i]
    ]
    if problems:
        raise Invalid(problems)
    return loaded[0] if len(loaded) == 1 else _together(loaded)


def posted_history(curves: Sequence[PostedCurve]) -> Loaded:
    """Curves as they were posted; evaluations come as often as most of them do."""
    raw = [
        Raw(
            config=curve.config,
            run=curve.run,
            curve=bare_curve(index, curve.config, curve.points, curve.horizon_steps or curve.points[-1][0]),
            horizon=curve.horizon_steps,
            seconds_per_step=curve.seconds_per_step,
        )
        for index, curve in enumerate(curves, 1)
    ]
    gaps = Counter(after - before for one in raw for before, after in pairwise(one.curve.steps))
    return Loaded(raw, eval_every=gaps.most_common(1)[0][0])


def _experiment(connection: Connection, experiment: ExperimentRecord, *, several: bool) -> Loaded:
    every = runs.runs_of(connection, [experiment.id])
    curves = load_curves(connection, every)
    protocol = protocol_of(experiment)
    stages = experiments.get_stages(connection, [experiment.id])
    slots = protocol.spec.resources.slots
    prefix = f"{experiment.name}/" if several else ""
    raw, notes = [], []
    for run in every:
        curve = curves[run.id]
        if curve.evaluations and curve.steps[-1] > 0:
            last, horizon = curve.evaluations[-1], curve.identity.horizon_step if curve.identity else None
            seconds = slots * last.wall_seconds / last.step if last.wall_seconds > 0 else None
            raw.append(Raw(f"{prefix}{run.variant}", str(run.seed), curve, horizon, seconds))
        else:
            notes.append(f"{prefix}{run.variant}, seed {run.seed}, was never evaluated and is left out")
    return Loaded(
        raw=raw,
        notes=notes,
        stages=tuple(stage.steps for stage in stages),
        promote=tuple(protocol.rule(stage.position) for stage in stages[1:]),
        eval_every=protocol.spec.eval_every,
        control=f"{prefix}{experiment.control}",
    )


def _together(loaded: Sequence[Loaded]) -> Loaded:
    """Several experiments as one history: its plan where they have the same, and no control of its own."""
    stages, rates = {one.stages for one in loaded}, {one.eval_every for one in loaded}
    return Loaded(
        raw=[raw for one in loaded for raw in one.raw],
        notes=[note for one in loaded for note in one.notes],
        stages=stages.pop() if len(stages) == 1 else None,
        eval_every=rates.pop() if len(rates) == 1 else None,
    )


def on_replay(loaded: Loaded, replay: Replay, exchange: float | None) -> tuple[list[Recorded], list[str]]:
    """Every run on the replay's grid, and what was done to get it there.

    Raises `Invalid` where the runs have no common horizon, or their losses do not mean the same.
    """
    notes = list(loaded.notes)
    raw = list(_moved(loaded.raw, replay, exchange, notes))
    problems = [*_horizon_problems(raw, replay)]
    if problems:
        raise Invalid(problems)
    recorded = []
    made = 0
    for number, one in enumerate(raw, 1):
        curve = on_grid(one.curve, replay.steps)
        made += len(set(curve.steps) - set(one.curve.steps))
        curve = replace(curve, run_id=number, variant=one.config, seed=0, is_control=False)
        recorded.append(Recorded(one.config, one.run, curve, one.seconds_per_step))
    if made:
        of = sum(len(one.curve.steps) for one in recorded)
        notes.append(f"{made} of {of} losses were interpolated between measured ones")
    return recorded, notes


def _moved(raw: Sequence[Raw], replay: Replay, exchange: float | None, notes: list[str]) -> Iterator[Raw]:
    """With a rate of exchange: each run that came near the common horizon as a run of that horizon.

    One that ended long before stays a recording that is too short, for which no end is made up.
    """
    moved = 0
    for one in raw:
        own, end = one.horizon or one.curve.steps[-1], one.curve.steps[-1]
        if exchange is None or own == end == replay.horizon:
            yield one
            continue
        curve = one.curve
        if end >= NEAR * replay.horizon:
            curve = moved_to_horizon(curve, own, replay.horizon, exchange)
            moved += 1
        yield replace(one, curve=_at_horizon(curve, replay.horizon), horizon=replay.horizon)
    if moved:
        notes.append(
            f"{moved} runs of other horizons were moved to {replay.horizon} at {exchange} nats a step"
        )


def _at_horizon(curve: Curve, horizon: int) -> Curve:
    identity = curve.identity
    return replace(curve, identity=identity and identity.model_copy(update={"horizon_step": horizon}))


def _horizon_problems(raw: Sequence[Raw], replay: Replay) -> Iterator[FieldError]:
    """Losses under schedules of different lengths are never compared; and some run came to the end."""
    other = sorted({one.horizon for one in raw if one.horizon not in (None, replay.horizon)})
    if other:
        count = sum(one.horizon in other for one in raw)
        told = ", ".join(str(horizon) for horizon in other[:MOST_TOLD]) + (
            ", ..." if other[MOST_TOLD:] else ""
        )
        message = (
            f"no common horizon: the last stage ends at {replay.horizon}, and {count} of {len(raw)} runs are "
            f"sized to others ({told}): choose the stages, leave those out, or give a `horizon_exchange`"
        )
        yield FieldError("history", message)
        return
    longest = max((one.curve.steps[-1] for one in raw), default=0)
    if longest < replay.horizon:
        message = (
            f"no run comes to step {replay.horizon}: the longest ends at {longest}; end the stages there"
        )
        yield FieldError("stages", message)
        return
    yield from _identity_problems(raw)


def _identity_problems(raw: Sequence[Raw]) -> Iterator[FieldError]:
    """The same evaluation set, tokenizer, schedule family and horizon."""
    known = [one for one in raw if one.horizon is not None]
    for one in known[1:]:
        reason = comparable(known[0].curve, one.curve)
        if reason is not None:
            message = f"{known[0].config} and {one.config} cannot be compared: {reason}"
            yield FieldError("history", message)
            return
