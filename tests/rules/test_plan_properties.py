"""What holds of every plan, whatever the rows say."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from plan_builders import NOW, experiment, snapshot, starts

from orchestrator.domain.lifecycle import ExperimentStatus, RunStatus
from orchestrator.rules.plan import CloseStage, EndExperiment, plan
from orchestrator.rules.sharing import StartRun
from orchestrator.rules.snapshot import ExperimentView, RunView, Snapshot

DELAYS = st.sampled_from([None, NOW - timedelta(seconds=1), NOW, NOW + timedelta(seconds=1)])
STATUSES = st.sampled_from([*RunStatus, *[RunStatus.PENDING] * 4])


@st.composite
def experiments(draw: st.DrawFn, id_: int) -> ExperimentView:
    closed = draw(st.integers(0, 3))
    count = draw(st.integers(0, 5))
    runs = [
        RunView(
            id=100 * id_ + index,
            variant=f"v{index}",
            is_control=draw(st.booleans()),
            status=draw(STATUSES),
            stage=draw(st.integers(0, 2)),
            not_before=draw(DELAYS),
        )
        for index in range(count)
    ]
    status = draw(st.sampled_from([ExperimentStatus.RUNNING, ExperimentStatus.PAUSED]))
    return experiment(*runs, id_=id_, slots=draw(st.integers(1, 3)), status=status, closed=closed)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    views = [draw(experiments(id_)) for id_ in range(1, draw(st.integers(0, 3)) + 1)]
    return snapshot(*views, free=draw(st.integers(0, 6)))


every_snapshot = settings(max_examples=50, deadline=None, derandomize=True)


@every_snapshot
@given(snapshots())
def test_no_slot_twice_no_run_twice_and_never_more_than_is_free(rows: Snapshot) -> None:
    begun = [action for action in plan(rows) if isinstance(action, StartRun)]
    taken = [slot for action in begun for slot in action.slots]
    assert len(taken) == len(set(taken)) <= len(rows.free_slots)
    assert set(taken) <= set(rows.free_slots)
    assert len({action.run_id for action in begun}) == len(begun)


@every_snapshot
@given(snapshots())
def test_each_started_run_was_pending_due_and_gets_what_its_experiment_asks(rows: Snapshot) -> None:
    known = {run.id: (view, run) for view in rows.experiments for run in view.runs}
    for action in plan(rows):
        if isinstance(action, StartRun):
            view, run = known[action.run_id]
            assert run.status is RunStatus.PENDING
            assert run.not_before is None or run.not_before <= rows.now
            assert view.status is ExperimentStatus.RUNNING
            assert len(action.slots) == view.slots_per_run


@every_snapshot
@given(snapshots(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(rows: Snapshot, random: object) -> None:
    shuffled = []
    for view in rows.experiments:
        runs = list(view.runs)
        random.shuffle(runs)  # type: ignore[attr-defined]
        shuffled.append(replace(view, runs=tuple(runs)))
    assert plan(replace(rows, experiments=tuple(shuffled))) == plan(rows)


@every_snapshot
@given(snapshots())
def test_an_experiment_settles_at_most_one_thing_at_a_time(rows: Snapshot) -> None:
    due = [a.experiment_id for a in plan(rows) if isinstance(a, CloseStage | EndExperiment)]
    assert len(due) == len(set(due))


@every_snapshot
@given(snapshots())
def test_more_slots_only_add_starts_at_the_end(rows: Snapshot) -> None:
    more = replace(rows, free_slots=(*rows.free_slots, "cpu:98", "cpu:99"))
    fewer, all_of_them = starts(plan(rows)), starts(plan(more))
    assert all_of_them[: len(fewer)] == fewer


@every_snapshot
@given(snapshots())
def test_what_was_started_is_not_asked_for_again(rows: Snapshot) -> None:
    begun = set(starts(plan(rows)))
    after = tuple(
        replace(
            view,
            runs=tuple(
                replace(run, status=RunStatus.STARTING) if run.id in begun else run for run in view.runs
            ),
        )
        for view in rows.experiments
    )
    assert begun.isdisjoint(starts(plan(replace(rows, experiments=after))))
