"""The rows that the plan is made from."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.lifecycle import AttemptStatus, Reason, RunStatus, StageStatus
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.budget import Account, Work, account, cost_of
from orchestrator.rules.placement import free_slots
from orchestrator.rules.snapshot import ExperimentView, RunView, Snapshot, StageRow, WaitingView
from orchestrator.rules.turns import Waiter, waits_behind
from orchestrator.services.context import Context
from orchestrator.services.poison import set_aside
from orchestrator.services.protocol import protocol_of
from orchestrator.store import dependents, experiments, runs
from orchestrator.store.records import AttemptRecord, DependentRow, ExperimentRecord, RunRecord, StageRecord


def load_snapshot(connection: Connection, context: Context) -> Snapshot:
    """Open experiments with their stages, runs, waiting variants and budgets, and the slots that are free.

    An experiment of which no view can be made is left out.
    """
    found = experiments.open_experiments(connection)
    ids = [experiment.id for experiment in found]
    stages = experiments.get_stages(connection, ids)
    own: dict[int, list[RunRecord]] = {}
    for run in runs.runs_of(connection, ids):
        own.setdefault(run.experiment_id, []).append(run)
    waiting = dependents.dependents_of(connection, ids)
    live, left = runs.held_slots(connection)
    there = [slot.id for slot in context.engine.slots()]
    held = {run_id: len(slots) for run_id, slots in live.items()}
    now = context.clock()
    views = []
    for experiment in found:
        with set_aside(context, experiment.id):
            its_stages = [stage for stage in stages if stage.experiment_id == experiment.id]
            waiters = [row for row in waiting if row.experiment_id == experiment.id]
            its_runs = own.get(experiment.id, [])
            views.append(_view(connection, experiment, its_stages, its_runs, waiters, held, now))
    taken = [slot for slots in live.values() for slot in slots] + left
    return Snapshot(tuple(views), free_slots(there, taken), now, all_slots=len(there))


def _view(
    connection: Connection,
    experiment: ExperimentRecord,
    stages: Sequence[StageRecord],
    own: Sequence[RunRecord],
    waiting: Sequence[DependentRow],
    held: Mapping[int, int],
    now: datetime,
) -> ExperimentView:
    """`held`: how many slots each run's live attempt holds, for the runs that have one."""
    works = budget_works(connection, experiment, own, now)
    waiters = [row for row in waiting if row.kind == "best_of"]
    protocol = protocol_of(experiment)
    return ExperimentView(
        id=experiment.id,
        status=experiment.status,
        slots_per_run=_slots_per_run(experiment.spec),
        stages=tuple(StageRow(stage.position, stage.name, stage.status, stage.steps) for stage in stages),
        runs=tuple(_run(run, works, held.get(run.id, 0), protocol.begins(run)) for run in own),
        priority=experiment.priority,
        held_slots=sum(held.get(run.id, 0) for run in own),
        waiting=_waiting(connection, experiment, waiters, own),
        account=budget_account(experiment, works),
        has_reference=experiment.reference_id is not None,
        is_held=experiment.held is not None,
    )


def _waiting(
    connection: Connection,
    experiment: ExperimentRecord,
    rows: Sequence[DependentRow],
    own: Sequence[RunRecord],
) -> tuple[WaitingView, ...]:
    """Those that still wait, with what they wait for. Whose turn is first is asked only of two or more."""
    still = [row for row in rows if row.status == "waiting"]
    if not still:
        return ()
    known = {row.name: row for row in experiments.get_variants(connection, experiment.id)}
    behind: Mapping[str, tuple[str, ...]] = {}
    if len(still) > 1:
        every = [Waiter(row.name, row.stage, tuple(row.sources), row.overrides) for row in rows]
        behind = waits_behind(every, {name: row.config for name, row in known.items()})
    protocol, found = protocol_of(experiment), []
    for row in still:
        there = [known[name] for name in row.sources if name in known]
        step, chosen = protocol.compared(there, own)
        ids = tuple(run.id for run in chosen)
        sources, before = tuple(row.sources), behind.get(row.name, ())
        found.append(WaitingView(row.id, row.name, row.stage, sources, ids, step, before))
    return tuple(found)


def _run(run: RunRecord, works: Sequence[Work], held: int, begins: int) -> RunView:
    work = next((work for work in works if work.run_id == run.id), None)
    return RunView(
        run.id,
        run.variant,
        run.is_control,
        run.status,
        run.stage,
        run.not_before,
        begins,
        run.step,
        run.target_step,
        None if work is None else cost_of(work, works),
        run.reason == Reason.BUDGET_EXHAUSTED,
        has_worker=held > 0,
    )


def budget_account(experiment: ExperimentRecord, works: Sequence[Work]) -> Account | None:
    """The account of an experiment that has a budget."""
    hours = slot_hours_of(experiment.spec)
    return None if hours is None else account(hours, works)


def budget_works(
    connection: Connection, experiment: ExperimentRecord, own: Sequence[RunRecord], now: datetime
) -> list[Work]:
    """What each run has cost so far; empty for an experiment without a budget, which asks for none of it."""
    if slot_hours_of(experiment.spec) is None:
        return []
    slots = _slots_per_run(experiment.spec)
    facts = {row.id: row.facts for row in experiments.get_variants(connection, experiment.id)}
    tried = runs.attempts_by_run(connection, [run.id for run in own])
    return [_work(run, facts[run.variant_id], tried.get(run.id, []), slots, now) for run in own]


def _work(
    run: RunRecord, facts: Mapping[str, object], tried: Sequence[AttemptRecord], slots: int, now: datetime
) -> Work:
    spent = sum(
        len(attempt.slots) * ((attempt.ended_at or now) - attempt.created_at).total_seconds()
        for attempt in tried
    )
    trained = sum(max(0, attempt.step - (attempt.resumed_from_step or 0)) for attempt in tried)
    flops = float(str(facts["flops_per_token"])) * float(str(facts["tokens_per_step"]))
    up = any(attempt.status is not AttemptStatus.ENDED for attempt in tried)
    leaves = run.status is RunStatus.PENDING or run.status.is_terminal
    live = up and not leaves  # a worker that is to leave is promised nothing
    return Work(run.id, run.step, run.target_step, slots, spent, flops, live, trained)


def eager_stages(connection: Connection) -> list[tuple[int, int]]:
    """(experiment, position) of each open stage whose successor lets variants go on before the gate."""
    found = []
    for experiment in experiments.open_experiments(connection):
        stages = experiments.get_stages(connection, [experiment.id])
        position = next((s.position for s in stages if s.status is not StageStatus.CLOSED), None)
        if position is not None and _is_eager(experiment.spec, position + 1):
            found.append((experiment.id, position))
    return found


def _is_eager(spec: JsonObject, position: int) -> bool:
    stages = spec["stages"]
    promote = stages[position].get("promote") if position < len(stages) else None  # type: ignore[arg-type,index,union-attr]  # the spec was validated when it was accepted
    return bool(promote and promote.get("eager"))  # type: ignore[union-attr]  # likewise


def slot_hours_of(spec: JsonObject) -> float | None:
    """The budget of a stored spec, in slot-hours."""
    budget = spec.get("budget")
    hours = budget.get("slot_hours") if isinstance(budget, dict) else None
    return float(hours) if isinstance(hours, int | float) else None


def _slots_per_run(spec: JsonObject) -> int:
    resources = spec.get("resources")
    slots = resources.get("slots") if isinstance(resources, dict) else None
    return slots if isinstance(slots, int) else 1
