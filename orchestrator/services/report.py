"""The report of an experiment: every row of it in one snapshot, and what is worked out from them."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue
from sqlalchemy import Connection

from orchestrator.protocol.report import Identity
from orchestrator.protocol.wire import JsonObject
from orchestrator.services import present, views, views_report
from orchestrator.services.compare import compare_experiment
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment
from orchestrator.services.provenance import this_service
from orchestrator.services.query import present_runs, run_evaluations, whole_experiment
from orchestrator.store import experiments, journal, runs
from orchestrator.store.records import StageRecord, VariantRecord

MOST = 1_000_000


def report(context: Context, experiment_id: int) -> views_report.ReportView:
    """One snapshot of the experiment. Raises `Missing`."""
    with context.database.read() as connection:
        record = need_experiment(connection, experiment_id)
        stages = experiments.get_stages(connection, [experiment_id])
        every = {run.id: run for run in runs.runs_of(connection, [experiment_id])}
        decisions = journal.list_decisions(connection, experiment_id=experiment_id, limit=MOST)
        shadow = journal.list_decisions(connection, experiment_id=experiment_id, limit=MOST, shadow=True)
        events = journal.list_events(connection, experiment_id=experiment_id, limit=MOST)
        return views_report.ReportView(
            experiment=whole_experiment(connection, context, experiment_id),
            policy=views.PolicyView(
                name=str(record.policy["name"]),
                version=int(str(record.policy["version"])),
                hash=record.policy_hash,
                document=record.policy,
            ),
            stages=[present.stage(row) for row in stages],
            variants=_variants(experiments.get_variants(connection, experiment_id), stages),
            runs=_runs(connection, experiment_id),
            compare=compare_experiment(connection, record, "step"),
            decisions=[present.decision(row, every[row.run_id]) for row in decisions],
            shadow_decisions=[present.decision(row, every[row.run_id]) for row in shadow],
            events=[present.event(row) for row in events],
            service=this_service(),
            written_at=context.clock(),
        )


def _runs(connection: Connection, experiment_id: int) -> list[views_report.RunReport]:
    every = runs.runs_of(connection, [experiment_id])
    evaluations = run_evaluations(connection, [run.id for run in every])
    presented = present_runs(connection, experiment_id, every, evaluations)
    return [
        views_report.RunReport(
            **dict(view),
            identity=None if run.identity is None else Identity.model_validate(run.identity),
            evaluations=evaluations[run.id],
            attempt_list=[present.attempt(row) for row in runs.attempts_of(connection, run.id)],
        )
        for run, view in zip(every, presented, strict=True)
    ]


def _variants(found: list[VariantRecord], stages: list[StageRecord]) -> list[views_report.VariantView]:
    control = next((variant.config for variant in found if variant.is_control), {})
    return [
        views_report.VariantView(
            name=variant.name,
            is_control=variant.is_control,
            stage=stages[variant.stage].name,
            overrides=variant.overrides,
            origin=variant.origin,
            config=variant.config,
            config_hash=variant.config_hash,
            changes=changes(control, variant.config),
        )
        for variant in found
    ]


def changes(control: JsonObject, config: JsonObject) -> list[views_report.Change]:
    """The fields in which two configs differ, dotted; a list is one value."""
    before, after = dict(_flat(control)), dict(_flat(config))
    return [
        views_report.Change(field=name, control=before.get(name), variant=after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(config: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
