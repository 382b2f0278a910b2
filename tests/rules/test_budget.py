"""A budget in slot-hours: prices, what is promised, what can be paid."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_builders import PENDING, experiment, planned, run, snapshot, starts

from orchestrator.domain.lifecycle import RunStatus
from orchestrator.rules.budget import Account, Work, account, cost_of, slot_seconds_per_step
from orchestrator.rules.plan import EndUnpaid, plan
from orchestrator.rules.snapshot import ExperimentView, RunView


def work(id_: int = 1, **changes: object) -> Work:
    fresh = Work(id_, 0, 100, 1, 0.0, 10.0, False, 0)
    return replace(fresh, **changes)  # type: ignore[arg-type]


TRAINED = work(1, step=50, trained=50, spent=25.0)


def test_a_run_is_priced_by_what_it_has_cost_itself() -> None:
    assert cost_of(TRAINED, [TRAINED]) == pytest.approx(25.0)


def test_steps_that_were_trained_twice_do_not_raise_the_price() -> None:
    twice = replace(TRAINED, trained=100, spent=50.0)
    assert slot_seconds_per_step(twice, [twice]) == pytest.approx(0.5)


def test_a_run_that_has_not_begun_is_priced_by_the_others_and_its_flops() -> None:
    double = work(2, flops_per_step=20.0)
    assert cost_of(double, [TRAINED, double]) == pytest.approx(100.0)


def test_nothing_is_known_before_the_first_step() -> None:
    assert cost_of(work(), [work(spent=3.0)]) is None


def test_a_run_past_its_target_costs_nothing_more() -> None:
    assert cost_of(replace(TRAINED, step=120), [TRAINED]) == 0


def test_what_live_workers_still_need_is_promised() -> None:
    found = account(0.1, [replace(TRAINED, is_live=True), work(2)])
    assert (found.limit, found.spent, found.committed, found.probing) == (360.0, 25.0, 25.0, False)
    assert found.left == 310.0


def test_one_probe_at_a_time_while_no_cost_is_known() -> None:
    fresh = account(0.1, [work(1, is_live=True), work(2)])
    assert fresh.probing
    assert not fresh.can_pay(None)
    assert account(0.1, [work(1), work(2)]).can_pay(None)
    assert not account(0.1, [work(1)]).promise(None).can_pay(None)


def test_what_it_cannot_pay_is_not_started_and_is_passed_over() -> None:
    rich = Account(100.0, 0.0, 0.0, False)
    view = experiment(costing(run(1), 80), costing(run(2), 30), costing(run(3), 20))
    assert starts(planned(replace(view, account=rich), free=3)) == [1, 3]


def test_nobody_passes_a_control_that_cannot_be_paid() -> None:
    short = Account(50.0, 0.0, 0.0, False)
    view = experiment(costing(run(1, control=True), 80), costing(run(2), 30))
    assert planned(replace(view, account=short), free=2) == [EndUnpaid(1, (1, 2))]
    busy = experiment(*view.runs, run(3, RunStatus.RUNNING))
    assert planned(replace(busy, account=short), free=2) == []


def costing(view: RunView, cost: float | None) -> RunView:
    return replace(view, cost=cost)


def test_a_spent_budget_ends_everything_that_is_not_at_its_gate() -> None:
    view = experiment(run(1, RunStatus.RUNNING), run(2, PENDING), run(3, RunStatus.AT_GATE))
    found = plan(snapshot(replace(view, account=Account(10.0, 10.0, 0.0, False)), free=2))
    assert found == [EndUnpaid(1, (1, 2))]


def test_what_can_never_be_paid_ends_once_nothing_live_can_give_anything_back() -> None:
    short = Account(100.0, 90.0, 0.0, False)

    def view(*runs: RunView) -> ExperimentView:
        return replace(experiment(*runs), account=short)

    dear = costing(run(1), 30)
    assert planned(view(dear, run(2, RunStatus.RUNNING)), free=1) == []
    assert planned(view(dear), free=1) == [EndUnpaid(1, (1,))]
    assert starts(planned(view(dear, costing(run(2), 5)), free=1)) == [2]


@settings(max_examples=80, derandomize=True)
@given(
    limit=st.floats(1, 1000),
    costs=st.lists(st.floats(0.1, 300), min_size=1, max_size=8),
    free=st.integers(1, 8),
)
def test_what_is_started_together_is_paid_for_together(limit: float, costs: list[float], free: int) -> None:
    runs = [costing(run(number), cost) for number, cost in enumerate(costs, 1)]
    view = replace(experiment(*runs), account=Account(limit, 0.0, 0.0, False))
    begun = starts(planned(view, free=free))
    assert sum(costs[id_ - 1] for id_ in begun) <= limit * (1 + 1e-9)
