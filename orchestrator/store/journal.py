"""Decisions and events: what was decided and what happened. Rows are only ever added."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from orchestrator.domain.decisions import Judgement
from orchestrator.domain.evidence import criterion_document
from orchestrator.store.records import (
    DecisionRecord,
    EventRecord,
    ExperimentRecord,
    GateRow,
    fetch,
    fetch_one,
)
from orchestrator.store.tables import decisions, events, gates, runs
from orchestrator.store.types import new_id

log = logging.getLogger("assay.events")

MOST = 1_000_000
"""More decisions than an experiment can have."""

POLICY = "policy"
"""The author of what the rules decided; a person's is `user:NAME`."""


@dataclass(frozen=True)
class PolicyStamp:
    """The second policy that a decision is logged for, and by which nothing is done."""

    name: str
    hash: str


def add_decision(
    connection: Connection,
    *,
    key: str,
    experiment: ExperimentRecord,
    run_id: int,
    stage: str,
    step: int,
    judgement: Judgement,
    now: datetime,
    author: str = POLICY,
    gate_id: int | None = None,
    attempt: int | None = None,
    shadow: PolicyStamp | None = None,
) -> bool:
    """Whether the decision is new: under the same natural key the first one stands."""
    if connection.execute(select(decisions.c.id).where(decisions.c.key == key)).first() is not None:
        return False
    connection.execute(
        insert(decisions).values(
            key=key,
            experiment_id=experiment.id,
            run_id=run_id,
            stage=stage,
            step=step,
            kind=judgement.kind,
            reason=judgement.reason,
            author=author,
            verdict=judgement.verdict,
            text=judgement.text,
            criteria=[criterion_document(criterion) for criterion in judgement.criteria],
            evidence=judgement.evidence,
            policy_name=shadow.name if shadow else str(experiment.policy["name"]),
            policy_hash=shadow.hash if shadow else experiment.policy_hash,
            created_at=now,
            gate_id=gate_id,
            attempt=attempt,
            shadow=shadow is not None,
        )
    )
    return True


def get_decision(connection: Connection, id_: int) -> DecisionRecord | None:
    return fetch_one(connection, select(decisions).where(decisions.c.id == id_), DecisionRecord)


def list_decisions(
    connection: Connection,
    *,
    experiment_id: int | None = None,
    run_id: int | None = None,
    kinds: Sequence[str] = (),
    after: int = 0,
    limit: int = 50,
    shadow: bool = False,
) -> list[DecisionRecord]:
    """Oldest first, those with an id above `after`: what was decided, or what a shadow policy would have."""
    query = select(decisions).where(decisions.c.id > after, decisions.c.shadow.is_(shadow))
    query = query.order_by(decisions.c.id).limit(limit)
    if experiment_id is not None:
        query = query.where(decisions.c.experiment_id == experiment_id)
    if run_id is not None:
        query = query.where(decisions.c.run_id == run_id)
    if kinds:
        query = query.where(decisions.c.kind.in_(kinds))
    return fetch(connection, query, DecisionRecord)


def add_gate(connection: Connection, **values: Any) -> int | None:
    """The id of a new row; None when this gate or point was judged before."""
    if connection.execute(select(gates.c.id).where(gates.c.key == values["key"])).first() is not None:
        return None
    return new_id(connection.execute(insert(gates).values(**values)))


def gates_of(connection: Connection, experiment_id: int) -> list[GateRow]:
    """Every gate and point that was judged, oldest first."""
    query = select(gates).where(gates.c.experiment_id == experiment_id).order_by(gates.c.id)
    return fetch(connection, query, GateRow)


def add_event(
    connection: Connection,
    kind: str,
    text: str,
    *,
    now: datetime,
    experiment_id: int | None = None,
    run_id: int | None = None,
) -> None:
    """What happened, for people. A run's event is its experiment's too."""
    if experiment_id is None and run_id is not None:
        query = select(runs.c.experiment_id).where(runs.c.id == run_id)
        experiment_id = connection.execute(query).scalar_one_or_none()
    log.info("%s (experiment %s, run %s): %s", kind, experiment_id, run_id, text)
    values = {"kind": kind, "text": text, "experiment_id": experiment_id, "run_id": run_id, "at": now}
    connection.execute(insert(events).values(**values))


def last_event(connection: Connection, experiment_id: int, kind: str) -> str | None:
    """The text of the newest event of a kind, or None."""
    query = select(events.c.text).where(events.c.experiment_id == experiment_id, events.c.kind == kind)
    return connection.execute(query.order_by(events.c.id.desc()).limit(1)).scalar_one_or_none()


def list_events(
    connection: Connection, *, experiment_id: int, after: int = 0, limit: int = 50
) -> list[EventRecord]:
    """Oldest first, those with an id above `after`."""
    query = select(events).where(events.c.experiment_id == experiment_id, events.c.id > after)
    return fetch(connection, query.order_by(events.c.id).limit(limit), EventRecord)
