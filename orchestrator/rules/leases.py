"""Who is overdue, and when nobody may be called so: pure functions of told times."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.protocol.report import Phase


class Overdue(StrEnum):
    """What an attempt has missed."""

    SILENT = "silent"
    """Its lease ran out: nothing was heard of its worker."""
    STALLED = "stalled"
    """Its worker is heard and comes no further."""


@dataclass(frozen=True)
class Held:
    """What is known of an attempt that holds a lease."""

    lease_expires_at: datetime
    created_at: datetime
    phase: str | None = None
    progress_at: datetime | None = None


@dataclass(frozen=True)
class Deadlines:
    """How long a worker that is heard may come no further, and how long nobody may know of one."""

    progress: timedelta
    """While it trains."""
    start: timedelta
    """To its first step."""
    unknown: timedelta
    """After its lease, while the engine cannot tell."""


def overdue(held: Held, deadlines: Deadlines, now: datetime) -> Overdue | None:
    """The deadline that the attempt has missed at `now`, or None. Waiting at a gate is progress."""
    if now > held.lease_expires_at:
        return Overdue.SILENT
    allowed = _allowed(held.phase, deadlines)
    if allowed is not None and now - (held.progress_at or held.created_at) > allowed:
        return Overdue.STALLED
    return None


def _allowed(phase: str | None, deadlines: Deadlines) -> timedelta | None:
    if phase is None or phase == Phase.STARTING:
        return deadlines.start
    return deadlines.progress if phase in (Phase.TRAINING, Phase.AT_GATE) else None


def is_given_up(held: Held, deadlines: Deadlines, now: datetime) -> bool:
    """Whether an attempt that the engine cannot tell of has been waited for long enough."""
    return now > held.lease_expires_at + deadlines.unknown


@dataclass(frozen=True)
class Look:
    """When the service looked at its workers, by two clocks."""

    wall: datetime
    """Database time: what leases are kept in. It may step, and runs on while the machine sleeps."""
    monotonic: float
    """Seconds since some instant. It never steps, and may stand still while the machine sleeps."""


def unheard(before: Look | None, now: Look, lease: timedelta) -> str | None:
    """Why no worker can have been heard between two looks, in words; None when each could be.

    Then no lease and no deadline means anything: all of them begin anew.
    """
    if before is None:
        return "the service began anew, or its database was away"
    wall = (now.wall - before.wall).total_seconds()
    passed = now.monotonic - before.monotonic
    if abs(wall - passed) > lease.total_seconds() / 4:
        return (
            f"the clock moved by {wall:.0f} s while {passed:.0f} s passed: it was set, or the machine slept"
        )
    if passed > lease.total_seconds() / 2:
        return f"the service did not look for {passed:.0f} s"
    return None
