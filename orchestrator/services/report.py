"""Everything about one experiment in one document: what the report page and a program read."""

from orchestrator.services import present, views
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment
from orchestrator.services.query import present_runs, run_evaluations
from orchestrator.store import experiments, journal, runs

MOST = 100_000


def report(context: Context, experiment_id: int) -> views.ReportView:
    """One snapshot of the experiment. Raises `Missing`."""
    with context.database.read() as connection:
        record = need_experiment(connection, experiment_id)
        stages = experiments.get_stages(connection, [experiment_id])
        every = runs.runs_of(connection, [experiment_id])
        by_id = {run.id: run for run in every}
        evaluations = run_evaluations(connection, list(by_id))
        decisions = journal.list_decisions(connection, experiment_id=experiment_id, limit=MOST)
        events = journal.list_events(connection, experiment_id=experiment_id, limit=MOST)
        return views.ReportView(
            experiment=present.experiment(record, stages),
            stages=[present.stage(row) for row in stages],
            runs=[
                views.RunReport(
                    **dict(view),
                    evaluations=evaluations[run.id],
                    attempt_list=[present.attempt(row) for row in runs.attempts_of(connection, run.id)],
                )
                for run, view in zip(every, present_runs(connection, experiment_id, every), strict=True)
            ],
            decisions=[present.decision(row, by_id[row.run_id]) for row in decisions],
            events=[present.event(row) for row in events],
        )
