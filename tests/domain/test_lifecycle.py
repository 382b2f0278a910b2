"""Statuses, reasons and the one table of what may follow what."""

import itertools

import pytest

from orchestrator.domain.errors import Conflict, IllegalTransition
from orchestrator.domain.lifecycle import (
    TRANSITIONS,
    ExperimentStatus,
    Reason,
    RunStatus,
    move,
)

P, ST, RU, G = RunStatus.PENDING, RunStatus.STARTING, RunStatus.RUNNING, RunStatus.AT_GATE
SUC, STO, FAI, CAN = RunStatus.SUCCEEDED, RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED
ENDS = {SUC, STO, FAI, CAN}

ALLOWED = {
    (P, ST),
    (P, G),
    (ST, RU),
    (ST, G),
    (ST, P),
    (RU, G),
    (RU, P),
    (G, RU),
    (G, P),
    *itertools.product((P, ST, RU, G), ENDS),
}


@pytest.mark.parametrize(("now", "then"), list(itertools.product(RunStatus, RunStatus)))
def test_every_pair_of_statuses(now: RunStatus, then: RunStatus) -> None:
    if now is then or (now, then) in ALLOWED:
        assert move(now, then) is then
        return
    with pytest.raises(IllegalTransition, match=f"a run that is {now} cannot become {then}") as caught:
        move(now, then)
    assert isinstance(caught.value, Conflict)
    assert caught.value.status == 409


def test_the_table_names_every_status() -> None:
    assert set(TRANSITIONS) == set(RunStatus)


def test_terminal_statuses_absorb() -> None:
    assert {status for status in RunStatus if status.is_terminal} == ENDS
    assert all(not TRANSITIONS[status] for status in ENDS)


def test_every_status_can_be_reached_from_pending_and_none_is_a_trap() -> None:
    reached, frontier = {P}, [P]
    while frontier:
        for then in TRANSITIONS[frontier.pop()] - reached:
            reached.add(then)
            frontier.append(then)
    assert reached == set(RunStatus)
    assert all(TRANSITIONS[status] >= ENDS for status in RunStatus if not status.is_terminal)


STATUS_OF = {
    Reason.FINISHED: SUC,
    Reason.NOT_PROMOTED: STO,
    Reason.OUTRANKED: STO,
    Reason.BUDGET_EXHAUSTED: STO,
    Reason.PLATEAU: STO,
    Reason.DIVERGED: FAI,
    Reason.UNHEALTHY_ROUTING: STO,
    Reason.OUT_OF_MEMORY: FAI,
    Reason.DISK_FULL: FAI,
    Reason.LOST: FAI,
    Reason.STALLED: FAI,
    Reason.CRASHED: FAI,
    Reason.PREEMPTED: FAI,
    Reason.YIELDED: FAI,
    Reason.LINKED: FAI,
    Reason.STALE_EPOCH: FAI,
    Reason.USER: CAN,
    Reason.USER_STOPPED: STO,
    Reason.CONTROL_FAILED: STO,
    Reason.CONFIG_ERROR: FAI,
    Reason.DATA_ERROR: FAI,
    Reason.CHECKPOINT_ERROR: FAI,
    Reason.ENGINE_ERROR: FAI,
}


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_means_one_terminal_status(reason: Reason) -> None:
    assert reason.status is STATUS_OF[reason]
    assert reason.status.is_terminal


def test_an_experiment_is_open_while_it_runs_or_is_paused() -> None:
    still_open = {status for status in ExperimentStatus if not status.is_terminal}
    assert still_open == {ExperimentStatus.RUNNING, ExperimentStatus.PAUSED}
