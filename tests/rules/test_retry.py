"""What follows when an attempt ends: again, later, or never."""

from datetime import timedelta

import pytest

from orchestrator.domain.lifecycle import Reason
from orchestrator.domain.spec_models import Retries
from orchestrator.protocol.exit import ExitCode
from orchestrator.rules.retry import (
    COUNTED,
    FREE,
    MOST_AT_ONCE,
    MOST_IDLE,
    REASON_OF_CODE,
    UNSAID,
    Again,
    Ended,
    GiveUp,
    after,
    reason_of,
)

SPECIAL = {Reason.DIVERGED, Reason.OUT_OF_MEMORY, Reason.DISK_FULL}
NEVER = {
    Reason.CONFIG_ERROR,
    Reason.DATA_ERROR,
    Reason.CHECKPOINT_ERROR,
}


def history(*ends: tuple[Reason, int]) -> list[Ended]:
    """Each begins where the one before it came to, or at its own step where that is lower: it makes none."""
    steps = [0, *(step for _, step in ends)]
    return [
        Ended(reason, step, min(before, step)) for (reason, step), before in zip(ends, steps, strict=False)
    ]


def idle(reason: Reason, step: int = 100) -> Ended:
    return Ended(reason, step, step)


@pytest.mark.parametrize("reason", sorted(FREE))
def test_an_end_that_was_asked_for_is_free(reason: Reason) -> None:
    assert after(history((reason, 100))) == Again()
    assert after(history(*((reason, step) for step in range(0, 1000, 100)))) == Again()


@pytest.mark.parametrize("reason", sorted(COUNTED))
def test_a_break_is_tried_again_after_a_moment(reason: Reason) -> None:
    assert after(history((reason, 100))) == Again(timedelta(seconds=2))


@pytest.mark.parametrize("reason", sorted(NEVER))
def test_what_would_end_the_same_way_is_not_tried_again(reason: Reason) -> None:
    following = after(history((Reason.PREEMPTED, 10), (reason, 100)))
    assert following == GiveUp(f"{reason} is not retried: the same attempt would end the same way")


def test_every_reason_of_an_attempt_is_ruled_on() -> None:
    assert set(REASON_OF_CODE.values()) <= FREE | COUNTED | NEVER | SPECIAL


def test_the_wait_doubles_with_each_break_that_made_progress() -> None:
    breaks = [(Reason.CRASHED, 100), (Reason.LOST, 200), (Reason.ENGINE_ERROR, 300)]
    delays = [after(history(*breaks[:count])) for count in (1, 2, 3)]
    assert delays == [Again(timedelta(seconds=seconds)) for seconds in (2, 4, 8)]


def test_free_ends_between_are_not_counted() -> None:
    ends = history((Reason.CRASHED, 100), (Reason.PREEMPTED, 150), (Reason.YIELDED, 200), (Reason.LOST, 300))
    assert after(ends) == Again(timedelta(seconds=4))


def test_too_many_breaks_end_the_run_though_each_made_progress() -> None:
    ends = history(*((Reason.CRASHED, 100 * (i + 1)) for i in range(4)))
    assert isinstance(after(ends[:-1]), Again)
    assert after(ends) == GiveUp("4 broken attempts in 1000 steps; at most 3 are restarted")


def test_breaks_count_within_a_window_of_steps_and_not_for_a_whole_life() -> None:
    ends = history(*((Reason.LOST, 400 * (i + 1)) for i in range(50)))
    assert after(ends) == Again(timedelta(seconds=8))  # at 20000, 19600 and 19200: the third doubling
    near = history((Reason.LOST, 1), (Reason.LOST, 1000), (Reason.LOST, 1001))
    assert after(near, retries=Retries(restarts=2)) == Again(timedelta(seconds=4))
    assert isinstance(after(near, retries=Retries(restarts=2, within_steps=1001)), GiveUp)


def test_no_restarts_are_allowed_when_the_spec_says_so() -> None:
    assert isinstance(after(history((Reason.LOST, 10)), retries=Retries(restarts=0)), GiveUp)


def test_the_wait_never_grows_past_five_minutes() -> None:
    ends = history(*((Reason.CRASHED, i) for i in range(1, 1000)))
    assert after(ends, retries=Retries(restarts=1000)) == Again(timedelta(minutes=5))


def test_an_out_of_memory_is_not_repeated_unless_the_spec_allows_it() -> None:
    once, allowed = history((Reason.LOST, 5), (Reason.OUT_OF_MEMORY, 10)), Retries(out_of_memory="accumulate")
    refused = after(once, can_divide=True)
    assert isinstance(refused, GiveUp)
    assert "retries.out_of_memory" in refused.text
    assert after(once, retries=allowed, can_divide=True) == Again(divided=True)
    assert isinstance(after(once, retries=allowed, can_divide=False), GiveUp)


def test_an_out_of_memory_in_more_passes_is_the_last() -> None:
    twice = history((Reason.OUT_OF_MEMORY, 10), (Reason.PREEMPTED, 30), (Reason.OUT_OF_MEMORY, 40))
    following = after(twice, retries=Retries(out_of_memory="accumulate"), can_divide=True)
    assert following == GiveUp("out_of_memory again, though each step was divided into twice as many passes")


def test_a_full_disk_is_tried_again_ever_later_and_five_times_at_most() -> None:
    ends = [idle(Reason.DISK_FULL)] * MOST_IDLE
    waits = [after(ends[:count]) for count in range(1, MOST_IDLE)]
    assert waits == [Again(timedelta(minutes=minutes)) for minutes in (1, 2, 4, 5)]
    assert isinstance(after(ends), GiveUp)
    assert after([*ends[:3], Ended(Reason.DISK_FULL, 111, 110)]) == Again(timedelta(minutes=1))


def test_a_disk_that_is_full_at_every_checkpoint_ends_the_run_though_it_trains_up_to_it() -> None:
    ends = [Ended(Reason.DISK_FULL, 1000, 900)] * MOST_IDLE
    assert after(ends[:2]) == Again(timedelta(minutes=2))
    assert after(ends) == GiveUp("5 attempts in a row met a full disk and saved nothing after step 900")


def test_a_full_disk_counts_neither_as_a_break_nor_as_progress_between_two() -> None:
    ends = history((Reason.CRASHED, 10), (Reason.DISK_FULL, 20), (Reason.CRASHED, 30))
    assert after(ends) == Again(timedelta(seconds=4))
    assert isinstance(after(history((Reason.STALLED, 10), (Reason.DISK_FULL, 10), (Reason.LOST, 10))), GiveUp)


def test_what_the_service_asked_for_does_not_say_why() -> None:
    assert {reason_of(code) for code in (None, -9, -15, 12)} <= UNSAID
    assert not UNSAID & (NEVER | {Reason.OUT_OF_MEMORY, Reason.DISK_FULL, Reason.FINISHED, Reason.YIELDED})


@pytest.mark.parametrize("second", [100, 99, 0])
@pytest.mark.parametrize("between", [(), ((Reason.PREEMPTED, 100),)])
def test_two_breaks_without_progress_between_end_the_run(
    second: int, between: tuple[tuple[Reason, int], ...]
) -> None:
    following = after(history((Reason.LOST, 100), *between, (Reason.CRASHED, second)))
    assert following == GiveUp(f"crashed twice at step {second} without progress between")


def test_one_step_is_progress() -> None:
    assert isinstance(after(history((Reason.LOST, 100), (Reason.LOST, 101))), Again)


@pytest.mark.parametrize(("before", "began", "lost"), [(1500, 900, 1490), (2000, 0, 1), (1500, 1500, 1501)])
def test_an_attempt_that_was_set_back_and_trained_has_made_progress(
    before: int, began: int, lost: int
) -> None:
    ends = [Ended(Reason.LOST, before, 0), Ended(Reason.LOST, lost, began)]
    assert after(ends) == Again(timedelta(seconds=4))
    assert isinstance(after([*ends, idle(Reason.CRASHED, began)]), GiveUp)


def test_steps_between_two_breaks_are_progress_whoever_made_them() -> None:
    ends = [Ended(Reason.LOST, 100, 0), Ended(Reason.PREEMPTED, 95, 80), idle(Reason.LOST, 95)]
    assert isinstance(after(ends), Again)
    assert isinstance(after([*ends, idle(Reason.PREEMPTED, 95), idle(Reason.LOST, 95)]), GiveUp)


def test_a_loop_from_one_checkpoint_ends_by_the_budget() -> None:
    ends = [Ended(Reason.LOST, 1490 + i % 2, 900) for i in range(4)]
    assert [isinstance(after(ends[:count]), Again) for count in (1, 2, 3, 4)] == [True, True, True, False]
    narrow = Retries(restarts=3, within_steps=1)
    assert isinstance(after([ends[0]] * 4, retries=narrow), GiveUp)


@pytest.mark.parametrize("reason", sorted(FREE))
def test_free_ends_without_a_step_never_end_the_run_and_wait_ever_longer(reason: Reason) -> None:
    ends = [Ended(Reason.YIELDED, 100, 50), *[idle(reason)] * 30]
    seconds = [after(ends[: 1 + count]) for count in range(MOST_AT_ONCE + 4)]
    assert seconds == [Again()] * (MOST_AT_ONCE + 1) + [Again(timedelta(seconds=s)) for s in (2, 4, 8)]
    assert after(ends) == Again(timedelta(minutes=5))
    assert after([*ends, Ended(reason, 101, 100)]) == Again()


def test_free_ends_are_left_out_of_an_idle_row_and_do_not_break_it() -> None:
    ends = [idle(Reason.DISK_FULL), idle(Reason.PREEMPTED), idle(Reason.CRASHED), idle(Reason.DISK_FULL)]
    assert isinstance(after([*ends, *[idle(Reason.PREEMPTED)] * 9]), Again)
    assert isinstance(after([*ends, idle(Reason.DISK_FULL)]), Again)
    following = after([*ends, idle(Reason.DIVERGED), idle(Reason.PREEMPTED), idle(Reason.DISK_FULL)])
    assert following == GiveUp("5 attempts in a row came no further than step 100")
    moved = [*ends, Ended(Reason.PREEMPTED, 101, 100), idle(Reason.DIVERGED), idle(Reason.DISK_FULL)]
    assert isinstance(after(moved), Again)


def test_a_diverged_run_is_tried_once_more_and_at_once() -> None:
    assert after(history((Reason.CRASHED, 20), (Reason.DIVERGED, 60))) == Again()
    again = after(history((Reason.DIVERGED, 60), (Reason.PREEMPTED, 80), (Reason.DIVERGED, 300)))
    assert again == GiveUp("it diverged 2 times; the policy retries 1 from the last good checkpoint")


@pytest.mark.parametrize(("retries", "tried"), [(0, False), (1, True), (2, True)])
def test_the_policy_says_how_often_divergence_is_retried(retries: int, tried: bool) -> None:
    assert isinstance(after(history((Reason.DIVERGED, 60)), diverged_retries=retries), Again) is tried


def test_a_break_after_a_divergence_is_an_ordinary_break() -> None:
    assert after(history((Reason.DIVERGED, 60), (Reason.CRASHED, 50))) == Again(timedelta(seconds=2))


def test_an_empty_history_is_an_error() -> None:
    with pytest.raises(ValueError, match="no attempt has ended"):
        after([])


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_documented_code_has_its_reason(code: ExitCode) -> None:
    expected = {
        ExitCode.FINISHED: Reason.FINISHED,
        ExitCode.CRASHED: Reason.CRASHED,
        ExitCode.AT_GATE: Reason.YIELDED,
        ExitCode.STOPPED: Reason.USER_STOPPED,
        ExitCode.PREEMPTED: Reason.PREEMPTED,
    }
    assert reason_of(code) is (expected[code] if code in expected else Reason[code.name])


@pytest.mark.parametrize("code", [None, -9, -15, 2, 13, 137, 255, -(10**9)])
def test_any_other_end_is_a_crash(code: int | None) -> None:
    assert reason_of(code) is Reason.CRASHED
