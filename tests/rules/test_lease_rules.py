"""Who is overdue, and when nobody may be called so, by told clocks."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.rules.leases import Deadlines, Held, Look, Overdue, is_given_up, overdue, unheard

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)
DEADLINES = Deadlines(timedelta(minutes=15), timedelta(hours=1), timedelta(hours=1))
BIT = timedelta(seconds=1)


def held(phase: str | None, since: timedelta, *, lease: timedelta = LEASE, told: bool = True) -> Held:
    """One whose progress, or whose creation when it told of none, is so long ago."""
    return Held(NOW + lease, NOW - since, phase, NOW - since if told else None)


def test_a_lease_that_ran_out_is_silence_whatever_the_phase() -> None:
    for phase in (None, "starting", "training", "at_gate", "ended"):
        assert overdue(held(phase, BIT, lease=-BIT), DEADLINES, NOW) is Overdue.SILENT
        assert overdue(held(phase, BIT, lease=timedelta(0)), DEADLINES, NOW) is None


@pytest.mark.parametrize(
    ("phase", "allowed"),
    [
        ("training", DEADLINES.progress),
        ("at_gate", DEADLINES.progress),  # whose waiting counts as progress where its run waits, too
        ("starting", DEADLINES.start),
    ],
)
def test_each_phase_has_its_deadline(phase: str, allowed: timedelta) -> None:
    assert overdue(held(phase, allowed), DEADLINES, NOW) is None
    assert overdue(held(phase, allowed + BIT), DEADLINES, NOW) is Overdue.STALLED


def test_one_that_told_nothing_yet_is_starting_since_it_was_made() -> None:
    assert overdue(held(None, DEADLINES.start, told=False), DEADLINES, NOW) is None
    assert overdue(held(None, DEADLINES.start + BIT, told=False), DEADLINES, NOW) is Overdue.STALLED


def test_nobody_stalls_at_its_end() -> None:
    assert overdue(held("ended", timedelta(days=30)), DEADLINES, NOW) is None


def test_an_unknown_one_is_given_up_an_hour_after_its_lease() -> None:
    assert not is_given_up(held("training", BIT, lease=-DEADLINES.unknown), DEADLINES, NOW)
    assert is_given_up(held("training", BIT, lease=-DEADLINES.unknown - BIT), DEADLINES, NOW)


def look(wall: float, passed: float) -> Look:
    return Look(NOW + timedelta(seconds=wall), passed)


@pytest.mark.parametrize(("wall", "passed"), [(0, 0), (1, 1), (30, 30), (1, 16), (16, 1), (-14, 1)])
def test_everybody_could_be_heard(wall: float, passed: float) -> None:
    assert unheard(look(0, 0), look(wall, passed), LEASE) is None


@pytest.mark.parametrize(
    ("wall", "passed", "why"),
    [
        (
            3600,
            1,
            "moved by 3600 s while 1 s passed",
        ),  # set forward, or a suspend that stops the monotonic clock
        (-3600, 1, "moved by -3600 s while 1 s passed"),
        (-15, 1, "was set"),
        (31, 31, "did not look for 31 s"),  # stopped, or a suspend that both clocks count
        (1, 3600, "was set"),
    ],
)
def test_nobody_could_be_heard(wall: float, passed: float, why: str) -> None:
    assert why in (unheard(look(0, 0), look(wall, passed), LEASE) or "")


def test_at_the_first_look_nobody_could_be_heard() -> None:
    assert unheard(None, look(0, 0), LEASE)
