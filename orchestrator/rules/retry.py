"""What follows when an attempt ends without having finished: again, later, or never."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.domain.lifecycle import Reason
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

COUNTED = frozenset({Reason.LOST, Reason.CRASHED, Reason.ENGINE_ERROR, Reason.FINISHED, Reason.USER_STOPPED})
"""Breaks. `finished` and `user_stopped` too: a worker that says so of a run that is not over is wrong."""
MOST_RESTARTS = 3
MOST_IDLE = 5
"""Attempts in a row that end without a step, for whatever reason, before the run is given up."""
FIRST_DELAY = timedelta(seconds=2)
LONGEST_DELAY = timedelta(minutes=5)


@dataclass(frozen=True)
class Ended:
    """How one attempt ended, and the step it had come to."""

    reason: Reason
    step: int


@dataclass(frozen=True)
class Again:
    """Start another attempt after `delay`."""

    delay: timedelta = timedelta(0)


@dataclass(frozen=True)
class GiveUp:
    """The run fails, and `text` says why no other attempt is made."""

    text: str


def reason_of(code: int | None) -> Reason:
    """The reason that a worker's exit code stands for; any code that is not documented is a crash."""
    return Reason.CRASHED if code is None else REASON_OF_CODE.get(code, Reason.CRASHED)


def after(history: Sequence[Ended], *, diverged_retries: int = 1) -> Again | GiveUp:
    """What follows the last of these attempts, oldest first; the policy says how often divergence is retried.

    Raises `ValueError` on an empty history.
    """
    if not history:
        raise ValueError("no attempt has ended")
    last = history[-1]
    if len(history) >= MOST_IDLE and all(ended.step == last.step for ended in history[-MOST_IDLE:]):
        return GiveUp(f"{MOST_IDLE} attempts in a row came no further than step {last.step}")
    if last.reason in FREE:
        return Again()
    if last.reason is Reason.DIVERGED:
        return _diverged(history, diverged_retries)
    if last.reason not in COUNTED:
        return GiveUp(f"{last.reason} is not retried: the same attempt would end the same way")
    return _counted([ended for ended in history if ended.reason in COUNTED])


def _diverged(history: Sequence[Ended], retries: int) -> Again | GiveUp:
    times = sum(ended.reason is Reason.DIVERGED for ended in history)
    if times <= retries:
        return Again()
    return GiveUp(f"it diverged {times} times; the policy retries {retries} from the last good checkpoint")


def _counted(broken: Sequence[Ended]) -> Again | GiveUp:
    last = broken[-1]
    if len(broken) > 1 and last.step <= broken[-2].step:
        return GiveUp(f"{last.reason} twice at step {last.step} without progress between")
    if len(broken) > MOST_RESTARTS:
        return GiveUp(f"{len(broken)} broken attempts; at most {MOST_RESTARTS} are restarted")
    return Again(min(FIRST_DELAY * 2 ** (len(broken) - 1), LONGEST_DELAY))
