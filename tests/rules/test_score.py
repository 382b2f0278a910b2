"""What is said of a policy over sets, against figures worked out by hand."""

from collections.abc import Sequence

import pytest
from replay_builders import recorded

from orchestrator.rules.history import Recorded
from orchestrator.rules.resample import DrawnSet
from orchestrator.rules.score import Sets, score, stops_earlier
from orchestrator.rules.simulate import Exit, Outcome, Unscorable

FINISHED = Exit(100, "finished")


def run(name: str, final: float, end: int = 100, seconds: float | None = None) -> Recorded:
    made = recorded(name, {50: 4.0, end: final})
    return Recorded(name, "r0", made.curve, seconds)


def outcome(exits: Sequence[Exit], pick: int) -> Outcome:
    return Outcome(dict(enumerate(exits)), (), pick, sum(left.step for left in exits))


RUNS = [run("control", 3.0), run("best", 2.8), run("mid", 2.9), run("worst", 3.5)]
DRAWN = DrawnSet((0, 1, 2, 3), 0)
SETS = Sets(RUNS, [DRAWN] * 4, 100)
LOST = outcome([FINISHED, Exit(50, "outranked"), FINISHED, Exit(50, "outranked")], pick=2)
KEPT = outcome([FINISHED, FINISHED, Exit(50, "outranked"), Exit(60, "outranked")], pick=1)
NONE = outcome([Exit(50, "control"), *[Exit(50, "not_promoted")] * 3], pick=0)


def test_every_figure_by_hand() -> None:
    found = score(SETS, [LOST, KEPT, NONE, Unscorable(1, 100, "not recorded so far")])
    assert (found.sets, found.coverage, found.regret_known) == (4, 0.75, 0.75)
    assert found.cost is not None
    assert found.cost.value == pytest.approx((300 + 310 + 200) / 1200)
    assert found.regret is not None
    assert found.regret_p90 is not None
    assert found.regret.value == pytest.approx((0.1 + 0.0 + 0.2) / 3)
    assert found.regret_p90.value == pytest.approx(0.18)
    assert found.best_kept == pytest.approx(1 / 3)
    assert found.false_stops == pytest.approx((1 + 0 + 2) / (2 + 2 + 3))
    assert found.no_winner == pytest.approx(1 / 3)
    assert found.unscorable == (("not recorded so far", 1),)
    assert found.slot_hours is None


def test_hours_of_slots_weigh_each_run_by_its_own_rate() -> None:
    runs = [run("control", 3.0, seconds=1.0), run("slow", 2.8, seconds=3.0)]
    found = score(
        Sets(runs, [DrawnSet((0, 1), 0)], 100), [outcome([Exit(50, "control"), Exit(50, "plateau")], 0)]
    )
    assert found.slot_hours is not None
    assert found.slot_hours.value == pytest.approx(0.5)
    uneven = Outcome({0: FINISHED, 1: Exit(50, "plateau")}, (), 0, 150)
    again = score(Sets(runs, [DrawnSet((0, 1), 0)], 100), [uneven])
    assert again.slot_hours is not None
    assert again.slot_hours.value == pytest.approx((100 + 150) / 400)


def test_a_final_loss_that_is_not_known_leaves_the_cost_and_takes_the_regret() -> None:
    runs = [run("control", 3.0), run("short", 2.8, end=60)]
    found = score(
        Sets(runs, [DrawnSet((0, 1), 0)], 100), [outcome([Exit(50, "control"), Exit(50, "plateau")], 0)]
    )
    assert found.coverage == 1
    assert found.regret_known == 0
    assert found.cost is not None
    assert found.regret is None
    assert found.best_kept is None


def test_with_nothing_to_score_nothing_is_said() -> None:
    found = score(SETS, [Unscorable(0, 50, "the control diverged")] * 4)
    assert found.coverage == 0
    assert (found.cost, found.regret, found.no_winner) == (None, None, None)


def test_where_one_policy_stops_what_another_keeps() -> None:
    broken = Unscorable(0, 50, "the control diverged")
    found = stops_earlier(SETS, [LOST, KEPT, LOST, LOST], [KEPT, LOST, broken, LOST])
    assert (found.runs, found.of) == (3, 9)
    assert found.at == ((50, 3),)
    assert dict(found.configs) == {"best": 1, "worst": 1, "mid": 1}
    first = found.examples[0]
    assert (first.number, first.config, first.step, first.other_step) == (0, "best", 50, 100)
    assert (first.reason, first.other_reason, first.final) == ("outranked", "finished", 2.8)
