"""What is to be done now, from rows alone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from plan_builders import AT_GATE, NOW, PENDING, STOPPED, experiment, planned, run, snapshot, starts

from orchestrator.domain.lifecycle import ExperimentStatus, RunStatus
from orchestrator.rules.plan import CloseStage, EndExperiment, Hold, plan
from orchestrator.rules.sharing import StartRun, wanted_slots

TERMINAL = [status for status in RunStatus if status.is_terminal]
BUSY = [RunStatus.PENDING, RunStatus.STARTING, RunStatus.RUNNING]
CONTROL_AT_GATE = run(1, AT_GATE, control=True)


def test_starts_are_in_order_with_the_control_first() -> None:
    actions = planned(experiment(run(1), run(2), run(3, control=True)), free=2)
    assert actions == [StartRun(3, ("cpu:0",)), StartRun(1, ("cpu:1",))]


def test_experiments_share_the_slots_and_the_oldest_is_served_first() -> None:
    older, newer = experiment(run(5), run(6), run(7)), experiment(run(1, control=True), run(2), id_=2)
    assert starts(planned(older, newer, free=5)) == [5, 1, 6, 2, 7]
    assert starts(planned(older, newer, free=1)) == [5]


def test_the_one_that_holds_fewer_slots_is_served_first() -> None:
    older = replace(experiment(run(5)), held_slots=2)
    assert starts(planned(older, experiment(run(1), run(2), run(3), id_=2), free=4)) == [1, 2, 5, 3]


def test_a_higher_priority_is_served_before_any_other() -> None:
    urgent = replace(experiment(run(1), run(2), id_=2), priority=1, held_slots=5)
    assert starts(planned(experiment(run(5)), urgent, free=2)) == [1, 2]


@pytest.mark.parametrize("free", [0, 1, 2, 3])
def test_a_run_that_needs_more_slots_than_are_free_is_waited_for(free: int) -> None:
    wide = experiment(run(1, control=True), slots=4)
    narrow = experiment(run(2, control=True), id_=2)
    assert planned(wide, narrow, free=free) == []


def test_the_one_that_was_waited_for_comes_first_when_slots_are_there() -> None:
    wide = experiment(run(1, control=True), slots=4)
    narrow = experiment(run(2, control=True), id_=2)
    assert planned(wide, narrow, free=5) == [
        StartRun(1, ("cpu:0", "cpu:1", "cpu:2", "cpu:3")),
        StartRun(2, ("cpu:4",)),
    ]


def test_a_paused_experiment_starts_nothing_and_holds_up_nobody() -> None:
    paused = experiment(run(1), slots=64, status=ExperimentStatus.PAUSED)
    assert starts(planned(paused, experiment(run(2), id_=2), free=1)) == [2]


def test_a_paused_experiment_closes_no_gate() -> None:
    paused = experiment(CONTROL_AT_GATE, run(2, STOPPED), status=ExperimentStatus.PAUSED)
    assert planned(paused) == []


@pytest.mark.parametrize("ended", [STOPPED, RunStatus.FAILED, RunStatus.CANCELLED])
def test_the_control_does_not_train_on_for_nobody(ended: RunStatus) -> None:
    (action,) = planned(experiment(run(1, RunStatus.RUNNING, control=True), run(2, ended)))
    assert isinstance(action, EndExperiment)
    assert action.status is ExperimentStatus.SUCCEEDED
    assert (action.conclusion or "").startswith("no_winner")


def test_the_control_goes_as_far_as_a_variant_that_has_finished() -> None:
    assert planned(experiment(run(1, RunStatus.RUNNING, control=True), run(2, RunStatus.SUCCEEDED))) == []


def test_the_control_waits_for_new_variants_of_a_later_stage() -> None:
    running = run(1, RunStatus.RUNNING, control=True)
    assert planned(experiment(running, run(2, STOPPED), run(3, stage=1))) == []


def test_more_slots_than_there_are_hold_up_nobody_and_make_nobody_yield() -> None:
    asked = replace(snapshot(experiment(run(1), slots=9), experiment(run(2), id_=2), free=1), all_slots=1)
    assert starts(plan(asked)) == [2]
    assert wanted_slots(asked) == 1


@pytest.mark.parametrize(("seconds", "begins"), [(-1, True), (0, True), (1, False), (300, False)])
def test_a_run_that_backs_off_is_not_started_early(seconds: int, begins: bool) -> None:
    waiting = run(1, not_before=NOW + timedelta(seconds=seconds))
    assert starts(planned(experiment(waiting), free=1)) == ([1] if begins else [])


def test_a_run_that_backs_off_holds_up_nobody() -> None:
    waiting = run(1, not_before=NOW + timedelta(seconds=9))
    assert starts(planned(experiment(waiting, slots=9), experiment(run(2), id_=2), free=1)) == [2]


@pytest.mark.parametrize("status", [status for status in RunStatus if status is not PENDING])
def test_only_pending_runs_are_started(status: RunStatus) -> None:
    assert starts(planned(experiment(run(1, status), run(2)), free=2)) == [2]


def test_a_run_of_a_later_stage_waits_for_its_stage() -> None:
    late = run(2, stage=1)
    assert starts(planned(experiment(run(1), late), free=2)) == [1]
    assert starts(planned(experiment(run(1, STOPPED), late, closed=1), free=2)) == [2]


@pytest.mark.parametrize("status", BUSY)
def test_a_gate_waits_while_one_of_its_runs_is_on_its_way(status: RunStatus) -> None:
    assert planned(experiment(CONTROL_AT_GATE, run(2, AT_GATE), run(3, status))) == []


@pytest.mark.parametrize("status", [AT_GATE, *TERMINAL])
def test_a_gate_is_due_when_all_of_its_runs_have_settled(status: RunStatus) -> None:
    assert planned(experiment(CONTROL_AT_GATE, run(2, status))) == [CloseStage(1, 0)]


def test_runs_of_other_stages_do_not_hold_up_a_gate() -> None:
    there = experiment(run(1, AT_GATE, control=True, stage=1), run(2, STOPPED), run(3, stage=2), closed=1)
    assert planned(there) == [CloseStage(1, 1)]


@pytest.mark.parametrize("status", TERMINAL)
@pytest.mark.parametrize("closed", [0, 1])
def test_a_gate_holds_when_the_control_ended_before_it(status: RunStatus, closed: int) -> None:
    view = experiment(
        run(1, status, control=True, stage=closed), run(2, AT_GATE, stage=closed), closed=closed
    )
    assert planned(view) == [Hold(1, closed)]
    assert planned(replace(view, is_held=True)) == []
    assert planned(replace(view, has_reference=True, is_held=True)) == [CloseStage(1, closed)]


def test_an_experiment_whose_every_run_ended_with_the_control_ends() -> None:
    (end,) = planned(experiment(run(1, RunStatus.FAILED, control=True), run(2, STOPPED)))
    assert isinstance(end, EndExperiment)
    assert (end.experiment_id, end.status) == (1, ExperimentStatus.FAILED)
    assert end.conclusion is not None
    assert end.conclusion.startswith("the control ended before the gate of stage-0")


def test_a_control_that_the_budget_ended_ends_the_experiment() -> None:
    unpaid = replace(run(1, STOPPED, control=True), is_unpaid=True)
    (end,) = planned(experiment(unpaid, run(2, AT_GATE)))
    assert isinstance(end, EndExperiment)
    assert (end.conclusion or "").startswith("the budget did not bring the control to the gate")


def test_one_seed_of_the_control_is_enough_to_go_on() -> None:
    controls = [run(1, RunStatus.FAILED, control=True), run(2, AT_GATE, control=True)]
    assert planned(experiment(*controls, run(3, AT_GATE))) == [CloseStage(1, 0)]


def test_without_the_control_the_last_stage_is_trained_to_its_end_and_holds_there() -> None:
    gone = run(1, RunStatus.FAILED, control=True, stage=2)
    assert planned(experiment(gone, run(2, RunStatus.RUNNING, stage=2), closed=2)) == []
    done = experiment(gone, run(2, RunStatus.SUCCEEDED, stage=2), closed=2)
    assert planned(done) == [Hold(1, 2)]
    assert planned(replace(done, has_reference=True)) == [CloseStage(1, 2)]


def test_an_experiment_whose_stages_are_all_closed_ends() -> None:
    assert planned(experiment(closed=3)) == [EndExperiment(1, ExperimentStatus.SUCCEEDED, None)]


def test_gates_come_before_starts() -> None:
    due = experiment(run(9, AT_GATE, control=True), id_=2)
    assert planned(experiment(run(1, control=True)), due, free=1) == [
        CloseStage(2, 0),
        StartRun(1, ("cpu:0",)),
    ]


def test_nothing_is_planned_of_nothing() -> None:
    assert planned() == []
    assert planned(free=8) == []


def test_equal_snapshots_give_equal_plans() -> None:
    views = (experiment(run(2), run(1, control=True), slots=2), experiment(run(3), id_=2))
    assert plan(snapshot(*views, free=5)) == plan(snapshot(*views, free=5))


def test_wanted_slots_are_those_of_every_run_that_could_start() -> None:
    backing_off = run(4, not_before=NOW + timedelta(seconds=1))
    views = [
        experiment(run(1), run(2), run(3, RunStatus.RUNNING), backing_off, slots=3),
        experiment(run(5), run(6, stage=1), id_=2),
        experiment(run(7), id_=3, status=ExperimentStatus.PAUSED),
    ]
    assert wanted_slots(snapshot(*views)) == 7
    assert wanted_slots(snapshot()) == 0
