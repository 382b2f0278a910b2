"""What a gate or a point sees, frozen so that it can be judged again, and how its decisions are recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue
from sqlalchemy import Connection

from orchestrator.domain.curves import Curve, upto
from orchestrator.domain.decisions import Entrant, Judgement, PromoteRule
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.cases import field_of
from orchestrator.rules.criteria import Field
from orchestrator.rules.gate import Anchor
from orchestrator.services.context import Context
from orchestrator.services.judge import record
from orchestrator.services.lookup import need_experiment
from orchestrator.services.protocol import Protocol, plan_order, protocol_of
from orchestrator.services.references import reference_curve
from orchestrator.store import curves as stored
from orchestrator.store import experiments, journal, runs
from orchestrator.store.histories import load_curves
from orchestrator.store.records import ExperimentRecord, GateRow, RunRecord, StageRecord

NEVER = -1
"""The last evaluation of a run that has none: an evaluation may be of step 0."""


@dataclass(frozen=True)
class Sitting:
    """One transaction's work on one experiment."""

    connection: Connection
    context: Context
    experiment: ExperimentRecord
    protocol: Protocol
    now: datetime

    @property
    def stages(self) -> list[StageRecord]:
        return experiments.get_stages(self.connection, [self.experiment.id])

    @property
    def runs(self) -> list[RunRecord]:
        """Every run of the experiment, as it is now."""
        return runs.runs_of(self.connection, [self.experiment.id])

    def say(self, kind: str, text: str) -> None:
        """Enters an event of the experiment."""
        journal.add_event(self.connection, kind, text, now=self.now, experiment_id=self.experiment.id)


def sit(connection: Connection, context: Context, experiment_id: int) -> Sitting:
    """Raises `Missing` for an experiment that is not there."""
    experiment = need_experiment(connection, experiment_id)
    return Sitting(connection, context, experiment, protocol_of(experiment), context.clock())


@dataclass(frozen=True)
class Place:
    """Where a gate or point stands, and which of them it is."""

    stage: int
    step: int
    phase: str


@dataclass(frozen=True)
class Seen:
    """The runs of a gate or point as they stood, and the rule by which they were judged."""

    entrants: tuple[Entrant, ...]
    inputs: JsonObject
    """What it takes to see the same again: how far each run had come, who was out, and the rule."""


def see(
    connection: Connection,
    chosen: Sequence[RunRecord],
    out: Mapping[int, bool],
    as_of: Mapping[int, int] | None = None,
    **also: JsonValue,
) -> Seen:
    """These runs as they are now, up to the last evaluation of each.

    Those in `as_of` are seen as they were while that attempt of theirs was the newest.
    """
    numbers = runs.count_attempts(connection, [run.id for run in chosen]) | dict(as_of or {})
    whole = load_curves(connection, chosen, as_of)
    last = {id_: curve.steps[-1] if curve.steps else NEVER for id_, curve in whole.items()}
    rows: list[JsonValue] = [
        {"run": run.id, "attempt": numbers.get(run.id, 0), "upto": last[run.id], "out": out[run.id]}
        for run in chosen
    ]
    inputs: JsonObject = {"entrants": rows, **also}
    curves = {id_: upto(curve, last[id_]) for id_, curve in whole.items()}
    return Seen(tuple(Entrant(curves[run.id], out[run.id]) for run in chosen), inputs)


def seen_attempts(gate: GateRow) -> dict[int, int]:
    """By run, the attempt that was its newest when the gate was judged."""
    rows = [dict(row) for row in gate.inputs["entrants"]]  # type: ignore[union-attr,arg-type]  # written by `see`
    return {int(row["run"]): int(row["attempt"]) for row in rows}


def see_again(connection: Connection, gate: GateRow) -> Seen:
    """The runs of a gate as they were when it was judged.

    A worker may report after its run has ended, so each curve is cut where it stood then; rows from before
    that was kept have no such step, and are seen whole.
    """
    rows = [dict(row) for row in gate.inputs["entrants"]]  # type: ignore[union-attr,arg-type]  # written by `see`
    as_of = seen_attempts(gate)
    by_id = runs.runs_by_id(connection, list(as_of))
    curves = load_curves(connection, list(by_id.values()), as_of)
    entrants = tuple(Entrant(_as_seen(curves[int(row["run"])], row), bool(row["out"])) for row in rows)
    return Seen(entrants, gate.inputs)


def _as_seen(curve: Curve, row: Mapping[str, JsonValue]) -> Curve:
    last = row.get("upto")
    return upto(curve, last) if isinstance(last, int) else curve


def rule_inputs(rule: PromoteRule) -> JsonObject:
    """A promote rule as JSON."""
    return {
        "best": rule.best,
        "eligible": rule.eligible,
        "if_none": rule.if_none,
        "eager": rule.eager,
        "seeds": None if rule.seeds is None else list(rule.seeds),
        "newcomers": rule.newcomers,
    }


def rule_again(inputs: JsonObject) -> PromoteRule:
    """The promote rule that `rule_inputs` wrote down."""
    values = dict(inputs)
    seeds = values.pop("seeds")
    return PromoteRule(**values, seeds=None if seeds is None else tuple(seeds))  # type: ignore[arg-type]


def anchor_of(connection: Connection, reference_id: object, protocol: Protocol, step: int) -> Anchor:
    """What the variants of a gate at `step` are judged against beside the control."""
    row = stored.get_curve(connection, reference_id) if isinstance(reference_id, int) else None
    reference = None if row is None else reference_curve(row)

    def field(curves: Sequence[Curve]) -> Field | None:
        order = plan_order(protocol.spec)
        found = field_of(curves, order=order, step=step, grid=protocol.grid, policy=protocol.policy)
        return found if isinstance(found, Field) else None

    return Anchor(reference, field if protocol.compares else None)


def open_gate(
    sitting: Sitting, key: str, place: Place, seen: Seen, conclusion: str | None = None
) -> int | None:
    """The id of the row that its decisions refer to; None when it was judged before."""
    return journal.add_gate(
        sitting.connection,
        key=f"exp:{sitting.experiment.id}/{key}",
        experiment_id=sitting.experiment.id,
        stage=place.stage,
        step=place.step,
        phase=place.phase,
        inputs=seen.inputs,
        conclusion=conclusion,
        created_at=sitting.now,
    )


def record_at(
    sitting: Sitting,
    run: RunRecord,
    stage: StageRecord,
    step: int,
    judgement: Judgement,
    phase: str,
    gate_id: int | None,
) -> None:
    """The decision of a gate or point on one run."""
    record(
        sitting.connection,
        sitting.experiment,
        run,
        stage,
        step,
        judgement,
        sitting.now,
        phase=phase,
        gate_id=gate_id,
    )
