"""Read models: what people and programs ask about experiments, runs and decisions."""

import math
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.domain.curves import Curve, Unmatched, match
from orchestrator.domain.ids import number_of, spell
from orchestrator.engines.base import Handle
from orchestrator.protocol.report import Identity
from orchestrator.services import present, views
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_decision, need_experiment, need_run
from orchestrator.services.snapshot import budget_account, budget_works
from orchestrator.store import dependents, experiments, journal, reports, runs
from orchestrator.store.records import RunRecord

LOG_CHUNK = 64 * 1024


def page(items: Sequence[views.T], limit: int, cursor_of: str) -> views.Page[views.T]:
    """One page from `limit + 1` rows: one more than shown means that there is a next."""
    more = len(items) > limit
    shown = list(items[:limit])
    return views.Page(items=shown, next_cursor=str(getattr(shown[-1], cursor_of)) if more else None)


def list_experiments(
    context: Context, *, limit: int, cursor: str | None, status: str | None, name: str | None
) -> views.Page[views.ExperimentView]:
    """Newest first."""
    before = number_of("exp", cursor) if cursor else None
    with context.database.read() as connection:
        found = experiments.list_experiments(
            connection, before=before, limit=limit + 1, status=status, name=name
        )
        stages = experiments.get_stages(connection, [record.id for record in found])
    return page([present.experiment(record, stages) for record in found], limit, "id")


def get_experiment(context: Context, id_: int) -> views.ExperimentView:
    with context.database.read() as connection:
        return whole_experiment(connection, context, id_)


def whole_experiment(connection: Connection, context: Context, id_: int) -> views.ExperimentView:
    """The experiment with what it has spent and what waits in it. Raises `Missing`."""
    record = need_experiment(connection, id_)
    stages = experiments.get_stages(connection, [id_])
    works = budget_works(connection, record, runs.runs_of(connection, [id_]), context.clock())
    account = budget_account(record, works)
    waiting = dependents.dependents_of(connection, [id_])
    return present.experiment(record, stages).model_copy(
        update={
            "budget": None if account is None else present.budget(account),
            "waiting": [present.waiting(row, stages) for row in waiting],
        }
    )


def list_runs(
    context: Context, experiment_id: int, *, limit: int, cursor: str | None
) -> views.Page[views.RunView]:
    """In the order they were planned: the control first."""
    after = number_of("run", cursor) if cursor else 0
    with context.database.read() as connection:
        need_experiment(connection, experiment_id)
        every = runs.runs_of(connection, [experiment_id])
        chosen = [run for run in every if run.id > after][: limit + 1]
        return page(present_runs(connection, experiment_id, chosen), limit, "id")


def get_run(context: Context, id_: int) -> views.RunView:
    with context.database.read() as connection:
        record = need_run(connection, id_)
        return present_runs(connection, record.experiment_id, [record])[0]


def present_runs(
    connection: Connection,
    experiment_id: int,
    chosen: Sequence[RunRecord],
    read: dict[int, list[views.EvaluationView]] | None = None,
) -> list[views.RunView]:
    """Runs with what is computed for them: attempts, best and last evaluation, the gap to the control.

    `read` are the evaluations of every run of the experiment, where the caller has them already.
    """
    stages = experiments.get_stages(connection, [experiment_id])
    variants = {v.id: v for v in experiments.get_variants(connection, experiment_id)}
    controls = [run for run in runs.runs_of(connection, [experiment_id]) if run.is_control]
    ids = sorted({run.id for run in [*chosen, *controls]})
    found = run_evaluations(connection, ids) if read is None else read
    attempts = runs.count_attempts(connection, ids)
    curves = {run.seed: _curve(run, found[run.id]) for run in controls}
    return [
        present.run(
            run,
            variants[run.variant_id],
            stages,
            found[run.id][-1] if found[run.id] else None,
            best=min((e.eval_loss for e in found[run.id] if math.isfinite(e.eval_loss)), default=None),
            attempts=attempts.get(run.id, 0),
            gap=_gap(run, found[run.id], curves.get(run.seed)),
        )
        for run in chosen
    ]


def _curve(run: RunRecord, evaluations: Sequence[views.EvaluationView]) -> Curve:
    identity = None if run.identity is None else Identity.model_validate(run.identity)
    return Curve(run.id, run.variant, run.seed, run.is_control, identity, tuple(evaluations))


def _gap(run: RunRecord, evaluations: Sequence[views.EvaluationView], control: Curve | None) -> float | None:
    """The gap of the last evaluation, as a gate would see it; None where there is no sound comparison."""
    if run.is_control or control is None or not evaluations:
        return None
    found = match(_curve(run, evaluations), control, evaluations[-1].step)
    return None if isinstance(found, Unmatched) else found.gap


def list_evaluations(
    context: Context, run_id: int, *, limit: int, cursor: str | None
) -> views.Page[views.EvaluationView]:
    """Ascending by step, over all attempts; the cursor is a step."""
    after = int(cursor) if cursor and cursor.isdecimal() else -1
    with context.database.read() as connection:
        need_run(connection, run_id)
        found = run_evaluations(connection, [run_id])[run_id]
    return page([e for e in found if e.step > after][: limit + 1], limit, "step")


def run_evaluations(connection: Connection, run_ids: Sequence[int]) -> dict[int, list[views.EvaluationView]]:
    """For each run its evaluations, each with the number of the attempt that made it."""
    return {
        id_: [present.evaluation(evaluation, number) for evaluation, number in found]
        for id_, found in reports.load_evaluations(connection, run_ids).items()
    }


def get_series(context: Context, run_id: int, name: str, max_points: int) -> views.SeriesView:
    with context.database.read() as connection:
        need_run(connection, run_id)
        points = reports.load_series(connection, run_id, name)
        names = reports.series_names(connection, run_id)
    return views.SeriesView(name=name, points=thin(points, max_points), total=len(points), names=names)


def thin(points: Sequence[views.T], most: int) -> list[views.T]:
    """At most `most` of the points, evenly by place, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    places = sorted({round(i * last / max(1, most - 1)) for i in range(most)})
    return [points[place] for place in places]


def list_attempts(context: Context, run_id: int) -> views.Page[views.AttemptView]:
    with context.database.read() as connection:
        need_run(connection, run_id)
        return views.Page(items=[present.attempt(row) for row in runs.attempts_of(connection, run_id)])


def get_logs(context: Context, run_id: int, offset: int) -> views.LogView:
    """The output of the run's attempts, one after the other, from `offset` bytes on."""
    with context.database.read() as connection:
        need_run(connection, run_id)
        attempts = runs.attempts_of(connection, run_id)
    start = 0
    for attempt in attempts:
        file = Path(attempt.directory) / "worker.log"
        size = file.stat().st_size if file.is_file() else 0
        if attempt.handle is not None and offset < start + size:
            handle = Handle.from_json(attempt.handle)
            data, _ = context.engine.logs(handle, offset - start, LOG_CHUNK)
            return views.LogView(text=data.decode(errors="replace"), next_offset=offset + len(data))
        start += size
    return views.LogView(text="", next_offset=offset)


def list_decisions(
    context: Context,
    *,
    experiment_id: int | None,
    run_id: int | None,
    kinds: Sequence[str],
    limit: int,
    cursor: str | None,
    shadow: bool = False,
) -> views.Page[views.DecisionView]:
    """Oldest first: what was decided, or what the shadow policy would have decided."""
    after = number_of("dec", cursor) if cursor else 0
    with context.database.read() as connection:
        found = journal.list_decisions(
            connection,
            experiment_id=experiment_id,
            run_id=run_id,
            kinds=kinds,
            after=after,
            limit=limit + 1,
            shadow=shadow,
        )
        every = runs.runs_by_id(connection, sorted({row.run_id for row in found}))
    return page([present.decision(row, every[row.run_id]) for row in found], limit, "id")


def get_decision(context: Context, id_: int) -> views.DecisionView:
    with context.database.read() as connection:
        record = need_decision(connection, id_)
        return present.decision(record, need_run(connection, record.run_id))


def list_events(
    context: Context, experiment_id: int, *, after: int, limit: int
) -> views.Page[views.EventView]:
    """Oldest first; the cursor is an event's id."""
    with context.database.read() as connection:
        need_experiment(connection, experiment_id)
        found = journal.list_events(connection, experiment_id=experiment_id, after=after, limit=limit + 1)
    return page([present.event(row) for row in found], limit, "id")


def list_slots(context: Context) -> views.Page[views.SlotView]:
    """Every slot of the machine, and the run that holds it."""
    with context.database.read() as connection:
        live = runs.live_attempts(connection)
        every = runs.runs_by_id(connection, [attempt.run_id for attempt in live])
    holder = {slot: every[attempt.run_id] for attempt in live for slot in attempt.slots}
    items = [
        views.SlotView(
            id=slot.id,
            kind=slot.kind,
            device=slot.device,
            run_id=spell("run", holder[slot.id].id) if slot.id in holder else None,
            variant=holder[slot.id].variant if slot.id in holder else None,
        )
        for slot in context.engine.slots()
    ]
    return views.Page(items=items)
