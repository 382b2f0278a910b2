"""Rows that must be there. Each raises `Missing` with the id as the outside spells it."""

from sqlalchemy import Connection

from orchestrator.domain.ids import missing
from orchestrator.store import experiments, journal, reports, runs
from orchestrator.store.records import (
    AttemptRecord,
    DecisionRecord,
    ExperimentRecord,
    RunRecord,
    VariantRecord,
)
from orchestrator.store.reports import Standing


def need_experiment(connection: Connection, id_: int) -> ExperimentRecord:
    found = experiments.get_experiment(connection, id_)
    if found is None:
        raise missing("exp", id_)
    return found


def need_run(connection: Connection, id_: int) -> RunRecord:
    found = runs.get_run(connection, id_)
    if found is None:
        raise missing("run", id_)
    return found


def need_attempt(connection: Connection, id_: int) -> AttemptRecord:
    found = runs.get_attempt(connection, id_)
    if found is None:
        raise missing("att", id_)
    return found


def need_standing(connection: Connection, id_: int, sequence: int = 0) -> Standing:
    """The attempt with its run, and what is stored under the sequence."""
    found = reports.standing(connection, id_, sequence)
    if found is None:
        raise missing("att", id_)
    return found


def need_decision(connection: Connection, id_: int) -> DecisionRecord:
    found = journal.get_decision(connection, id_)
    if found is None:
        raise missing("dec", id_)
    return found


def variant_of(connection: Connection, run: RunRecord) -> VariantRecord:
    """The variant of a run: a foreign key holds it."""
    found = experiments.get_variant(connection, run.variant_id)
    if found is None:
        raise missing("run", run.id)
    return found
