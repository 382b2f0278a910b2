"""What may break, how often, and the one source of chance from which a whole experiment follows."""

import random
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Crash(BaseException):
    """The service dies here. No `Exception`: nothing in it may live on."""


class Violation(Exception):
    """A promise of the service was broken."""

    def __init__(self, invariant: str, detail: str) -> None:
        self.invariant = invariant
        self.detail = detail
        super().__init__(invariant, detail)

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


class Fault(StrEnum):
    CRASH_BEFORE_COMMIT = "crash before a commit"
    CRASH_AFTER_COMMIT = "crash after a commit"
    CRASH_BEFORE_SUBMIT = "crash before engine.submit"
    CRASH_AFTER_SUBMIT = "crash after engine.submit"
    CRASH_BEFORE_CANCEL = "crash before engine.cancel"
    CRASH_AFTER_CANCEL = "crash after engine.cancel"
    CRASH_AFTER_ASSIGNMENT = "crash after the assignment was written"
    DISK_FULL_COMMIT = "disk full at a commit"
    DISK_FULL_ASSIGNMENT = "disk full at the assignment"
    SUBMIT_DONE_BUT_ERROR = "engine: done, but an error"
    SUBMIT_ERROR = "engine: an error, nothing done"
    ENGINE_AWAY = "engine unreachable for a while"
    ENGINE_UNSURE = "engine answers unknown for a while"
    REPORT_LOST = "report lost"
    ANSWER_LOST = "answer lost"
    REPORT_LATE = "report late"
    REPORT_TWICE = "report duplicated"
    REPORTS_REORDERED = "reports reordered"
    ZOMBIE = "zombie: declared lost, reports on"
    KILLED = "worker killed"
    TORN = "worker killed in the middle of a spool line"
    LOST = "worker lost without trace"
    HUNG = "worker hangs"
    STALLED = "worker stalls: heartbeats, no progress"
    PREEMPTED = "worker preempted"
    NAN = "a loss that is not a number"
    DAMAGED = "newest checkpoint damaged"
    CLOCK_FORWARD = "wall clock jumps forwards"
    CLOCK_BACK = "wall clock jumps backwards"
    SUSPEND = "machine suspended"
    SERVICE_DOWN = "service down for long"
    PAUSED = "a person pauses the experiment"


BASE_RATES = {
    Fault.CRASH_BEFORE_COMMIT: 0.03,
    Fault.CRASH_AFTER_COMMIT: 0.03,
    Fault.CRASH_BEFORE_SUBMIT: 0.10,
    Fault.CRASH_AFTER_SUBMIT: 0.10,
    Fault.CRASH_BEFORE_CANCEL: 0.30,
    Fault.CRASH_AFTER_CANCEL: 0.30,
    Fault.CRASH_AFTER_ASSIGNMENT: 0.10,
    Fault.DISK_FULL_COMMIT: 0.03,
    Fault.DISK_FULL_ASSIGNMENT: 0.10,
    Fault.SUBMIT_DONE_BUT_ERROR: 0.20,
    Fault.SUBMIT_ERROR: 0.20,
    Fault.ENGINE_AWAY: 0.05,
    Fault.ENGINE_UNSURE: 0.05,
    Fault.REPORT_LOST: 0.08,
    Fault.ANSWER_LOST: 0.08,
    Fault.REPORT_LATE: 0.08,
    Fault.REPORT_TWICE: 0.08,
    Fault.REPORTS_REORDERED: 0.4,
    Fault.ZOMBIE: 0.06,
    Fault.KILLED: 0.05,
    Fault.TORN: 0.05,
    Fault.LOST: 0.05,
    Fault.HUNG: 0.03,
    Fault.STALLED: 0.03,
    Fault.PREEMPTED: 0.05,
    Fault.NAN: 0.03,
    Fault.DAMAGED: 0.6,
    Fault.CLOCK_FORWARD: 0.03,
    Fault.CLOCK_BACK: 0.03,
    Fault.SUSPEND: 0.03,
    Fault.SERVICE_DOWN: 0.02,
    Fault.PAUSED: 0.02,
}
"""Of one opportunity: a commit, a call, a post, a worker's move or a turn."""

SHARE_ACTIVE = 0.35
MOST = 12
"""Faults in one experiment; after them it must come to its end."""


@dataclass
class Plan:
    """The rates of one experiment, the chance they are drawn from, and what has struck so far."""

    seed: int
    rates: dict[Fault, float]
    left: int
    random: random.Random
    struck: Counter[Fault] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)

    def strikes(self, fault: Fault) -> bool:
        """Whether this opportunity is taken."""
        rate = self.rates.get(fault, 0.0)
        if self.left <= 0 or rate <= 0 or self.random.random() >= rate:
            return False
        self.left -= 1
        self.struck[fault] += 1
        self.say(f"!! {fault.value}")
        return True

    def say(self, text: str) -> None:
        """Enters a line of the trace: the same seed gives the same lines."""
        self.trace.append(text)


def draw_plan(seed: int) -> Plan:
    """The plan of a seed: some kinds of faults, each with a rate of its own."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeated, not to be secret
    chosen = [fault for fault in Fault if chance.random() < SHARE_ACTIVE]
    rates = {fault: BASE_RATES[fault] * chance.choice((0.5, 1.0, 2.0)) for fault in chosen}
    return Plan(seed, rates, chance.randint(3, MOST), chance)


def calm_plan(seed: int) -> Plan:
    """The same turns with nothing that breaks."""
    return Plan(seed, {}, 0, random.Random(seed))  # noqa: S311 - likewise
