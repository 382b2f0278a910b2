"""What the database holds at the end of a chaos run, as plain values."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select

from orchestrator.domain.decisions import DecisionKind
from orchestrator.store import tables as t
from orchestrator.store.database import Database
from orchestrator.store.reports import TRAIN_LOSS

Decision = tuple[str, str, int, str, str, str, str]
"""(variant, stage, step, kind, reason, verdict, text)."""

Value = tuple[int, int, float, bool]
"""(attempt, step, value, superseded)."""


@dataclass(frozen=True)
class Outcome:
    """What an experiment came to: equal however often it was disturbed."""

    status: str
    conclusion: str
    runs: dict[str, tuple[str, str]]
    """(status, reason) by variant."""
    decisions: list[Decision]
    curves: dict[str, list[tuple[int, float]]]
    """(step, eval loss) by variant, superseded ones left out."""


@dataclass(frozen=True)
class AttemptRow:
    id: int
    run: int
    number: int
    epoch: int
    status: str
    slots: tuple[str, ...]
    created_at: datetime
    ended_at: datetime | None
    reason: str | None
    step: int


@dataclass(frozen=True)
class Rows:
    """The rows that the checks read."""

    experiments: list[str] = field(default_factory=list)
    """Their names, as often as they are there."""
    attempts: list[AttemptRow] = field(default_factory=list)
    reports: set[tuple[int, int]] = field(default_factory=set)
    """(attempt, sequence)."""
    evaluations: dict[int, list[Value]] = field(default_factory=dict)
    """By run."""
    points: dict[int, list[Value]] = field(default_factory=dict)
    """Train losses, by run."""
    last_step: dict[int, int] = field(default_factory=dict)
    """Of each run's curve."""


def outcomes(database: Database) -> dict[str, Outcome]:
    """Each experiment's outcome, by its name."""
    found = {}
    with database.read() as connection:
        for row in connection.execute(select(t.experiments)).all():
            of_it = t.runs.c.experiment_id == row.id
            query = select(t.runs, t.variants.c.name.label("variant")).join(t.variants).where(of_it)
            runs = {run.id: run for run in connection.execute(query).all()}
            curves: dict[str, dict[int, float]] = {run.variant: {} for run in runs.values()}
            e = t.evaluations.c
            kept = select(e.run_id, e.step, e.eval_loss).where(e.run_id.in_(runs), e.superseded.is_(False))
            for run_id, step, loss in connection.execute(kept.order_by(e.step, e.attempt_id)):
                curves[runs[run_id].variant][step] = loss
            d = t.decisions.c
            taken = select(t.decisions).where(d.experiment_id == row.id, d.kind != DecisionKind.FALL_BACK)
            found[row.name] = Outcome(
                status=row.status,
                conclusion=row.conclusion or "",
                runs={run.variant: (run.status, run.reason or "") for run in runs.values()},
                decisions=sorted(
                    (runs[x.run_id].variant, x.stage, x.step, x.kind, x.reason, x.verdict, x.text)
                    for x in connection.execute(taken).all()
                ),
                curves={variant: sorted(by_step.items()) for variant, by_step in curves.items()},
            )
    return found


def load_rows(database: Database) -> Rows:
    """Everything that the checks need."""
    rows = Rows()
    with database.read() as connection:
        rows.experiments.extend(connection.execute(select(t.experiments.c.name)).scalars())
        for a in connection.execute(select(t.attempts).order_by(t.attempts.c.id)).all():
            rows.attempts.append(
                AttemptRow(
                    a.id, a.run_id, a.number, a.epoch, a.status, tuple(a.slots), a.created_at, a.ended_at,
                    a.reason, a.step,
                )
            )  # fmt: skip
        rows.reports.update(
            (row.attempt_id, row.sequence)
            for row in connection.execute(select(t.reports.c.attempt_id, t.reports.c.sequence))
        )
        e, p = t.evaluations.c, t.points.c
        evaluations, points = defaultdict(list), defaultdict(list)
        for run, *value in connection.execute(
            select(e.run_id, e.attempt_id, e.step, e.eval_loss, e.superseded)
        ):
            evaluations[run].append(tuple(value))
        of_loss = select(p.run_id, p.attempt_id, p.step, p.value, p.superseded).join(t.metrics)
        for run, *value in connection.execute(of_loss.where(t.metrics.c.name == TRAIN_LOSS)):
            points[run].append(tuple(value))
        rows.evaluations.update(evaluations)
        rows.points.update(points)
        rows.last_step.update(
            {run: max(v[1] for v in values if not v[3]) for run, values in evaluations.items()}
        )
    return rows
