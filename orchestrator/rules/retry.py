"""What follows when an attempt ends without having finished: again, later, or never."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile

from orchestrator.domain.lifecycle import Reason
from orchestrator.domain.spec_models import Retries
from orchestrator.protocol.exit import ExitCode

REASON_OF_CODE: dict[int, Reason] = {
    ExitCode.FINISHED: Reason.FINISHED,
    ExitCode.AT_GATE: Reason.YIELDED,
    ExitCode.STOPPED: Reason.USER_STOPPED,
    ExitCode.PREEMPTED: Reason.PREEMPTED,
    ExitCode.CONFIG_ERROR: Reason.CONFIG_ERROR,
    ExitCode.DATA_ERROR: Reason.DATA_ERROR,
    ExitCode.CHECKPOINT_ERROR: Reason.CHECKPOINT_ERROR,
    ExitCode.DIVERGED: Reason.DIVERGED,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.DISK_FULL: Reason.DISK_FULL,
    ExitCode.STALE_EPOCH: Reason.STALE_EPOCH,
}

FREE = frozenset({Reason.PREEMPTED, Reason.YIELDED, Reason.STALE_EPOCH, Reason.LINKED})
"""Ends that were asked for: the run goes on when it may, and nothing is counted."""

COUNTED = frozenset(
    {
        Reason.LOST,
        Reason.STALLED,
        Reason.CRASHED,
        Reason.ENGINE_ERROR,
        Reason.FINISHED,
        Reason.USER_STOPPED,
    }
)
"""Breaks. `finished` and `user_stopped` too: a worker that says so of a run that is not over is wrong."""

UNSAID = frozenset({Reason.PREEMPTED, Reason.CRASHED, Reason.LOST})
"""Ends that do not tell why, when the service itself asked for them."""
MOST_IDLE = 5
"""Attempts in a row without a step of their own before the run is given up; free ends are left out."""
MOST_AT_ONCE = 3
"""Free ends in a row without a step that are followed at once; from then on each waits longer."""
FIRST_DELAY = timedelta(seconds=2)
FIRST_DISK_DELAY = timedelta(minutes=1)
LONGEST_DELAY = timedelta(minutes=5)


@dataclass(frozen=True)
class Ended:
    """How one attempt ended, the step it had come to, and the step it had begun from."""

    reason: Reason
    step: int
    began: int
    """Of the checkpoint it resumed from; `step` where it never said that it had begun."""

    @property
    def is_idle(self) -> bool:
        """Whether it made no step of its own. What others had trained before it is no progress of its."""
        return self.step <= self.began


@dataclass(frozen=True)
class Again:
    """Start another attempt after `delay`."""

    delay: timedelta = timedelta(0)
    divided: bool = False
    """Each step in twice as many passes as before: the same tokens in less memory."""


@dataclass(frozen=True)
class GiveUp:
    """The run fails, and `text` says why no other attempt is made."""

    text: str


def reason_of(code: int | None) -> Reason:
    """The reason that a worker's exit code stands for; any code that is not documented is a crash."""
    return Reason.CRASHED if code is None else REASON_OF_CODE.get(code, Reason.CRASHED)


def after(
    history: Sequence[Ended],
    *,
    retries: Retries | None = None,
    diverged_retries: int = 1,
    can_divide: bool = False,
) -> Again | GiveUp:
    """What follows the last of these attempts, oldest first; the policy says how often divergence is retried.

    `can_divide`: whether the trainer can do a step in twice as many passes. Raises `ValueError` on an empty
    history.
    """
    if not history:
        raise ValueError("no attempt has ended")
    last, allowed = history[-1], retries or Retries()
    if last.reason in FREE:
        return _free(history)
    idle = takewhile(lambda ended: ended.is_idle, reversed(history))
    if sum(ended.reason not in FREE for ended in idle) >= MOST_IDLE:
        return GiveUp(f"{MOST_IDLE} attempts in a row came no further than step {last.step}")
    if last.reason is Reason.DIVERGED:
        return _diverged(history, diverged_retries)
    if last.reason is Reason.OUT_OF_MEMORY:
        return _out_of_memory(history, allowed, can_divide=can_divide)
    if last.reason is Reason.DISK_FULL:
        return _disk_full(history)
    if last.reason not in COUNTED:
        return GiveUp(f"{last.reason} is not retried: the same attempt would end the same way")
    return _counted(history, allowed)


def _free(history: Sequence[Ended]) -> Again:
    """At once, unless one follows the other without a step: a loop that costs nothing still has to wait."""
    row = list(takewhile(lambda ended: ended.is_idle and ended.reason in FREE, reversed(history)))
    late = len(row) - MOST_AT_ONCE
    return Again(_doubled(FIRST_DELAY, late)) if late > 0 else Again()


def _diverged(history: Sequence[Ended], retries: int) -> Again | GiveUp:
    times = _times(history, Reason.DIVERGED)
    if times <= retries:
        return Again()
    return GiveUp(f"it diverged {times} times; the policy retries {retries} from the last good checkpoint")


def _out_of_memory(history: Sequence[Ended], allowed: Retries, *, can_divide: bool) -> Again | GiveUp:
    if allowed.out_of_memory == "fail":
        return GiveUp(
            "out_of_memory is not retried: the same attempt would end the same way "
            "(`retries.out_of_memory: accumulate` divides the step once)"
        )
    if _times(history, Reason.OUT_OF_MEMORY) > 1:
        return GiveUp("out_of_memory again, though each step was divided into twice as many passes")
    if not can_divide:
        return GiveUp("out_of_memory is not retried: its steps cannot be divided any further")
    return Again(divided=True)


def _disk_full(history: Sequence[Ended]) -> Again | GiveUp:
    """Later each time that nothing could be saved: the next attempt begins where the last one did."""
    began = history[-1].began
    row = takewhile(
        lambda ended: ended.reason is Reason.DISK_FULL and ended.began == began, reversed(history)
    )
    times = len(list(row))
    if times >= MOST_IDLE:
        return GiveUp(f"{MOST_IDLE} attempts in a row met a full disk and saved nothing after step {began}")
    return Again(_doubled(FIRST_DISK_DELAY, times))


def _counted(history: Sequence[Ended], allowed: Retries) -> Again | GiveUp:
    """A run that is set back again and again trains each time, and saves nothing: its budget ends that."""
    last, broken = history[-1], [ended for ended in history if ended.reason in COUNTED]
    idle = list(takewhile(lambda ended: ended.is_idle, reversed(history)))
    since = history[-len(idle) - 1 :] if idle else []  # with the one whose steps were the last
    if sum(ended.reason in COUNTED for ended in since) > 1:
        return GiveUp(f"{last.reason} twice at step {last.step} without progress between")
    lately = sum(ended.step > last.step - allowed.within_steps for ended in broken)
    if lately > allowed.restarts:
        return GiveUp(
            f"{lately} broken attempts in {allowed.within_steps} steps; "
            f"at most {allowed.restarts} are restarted"
        )
    return Again(_doubled(FIRST_DELAY, lately))


def _times(history: Sequence[Ended], reason: Reason) -> int:
    return sum(ended.reason is reason for ended in history)


def _doubled(first: timedelta, times: int) -> timedelta:
    """`first`, doubled with each time after the first, up to the longest."""
    return min(first * (1 << min(times - 1, 10)), LONGEST_DELAY)
