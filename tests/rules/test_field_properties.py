"""What holds of every rule of the field, whatever the losses and whoever comes first."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from point_builders import GRID, drops, judge, points_of, runs_at, standings, stopped
from rule_builders import POLICIES

from orchestrator.rules.criteria import CRITERIA, Grid, Standing
from orchestrator.rules.criteria_field import OutsideRace, OutsideRung, race_cap, rung_cap
from orchestrator.rules.point import points

FIELD_RULES = sorted(name for name, criterion in CRITERIA.items() if criterion.field is not None)
RANKING = sorted(set(FIELD_RULES) - {"not_among_best"})
"""Rules that drop for a place; past half of a stage `not_among_best` spares nobody, so it passes for all."""
PRUNERS = ["race", "successive-halving", "asha", "median-stop", "percentile-stop", "calibrated"]

finite = st.floats(1, 12, allow_nan=False).map(lambda x: round(x, 2))
losses = st.lists(finite | st.sampled_from([math.inf, math.nan]), min_size=1, max_size=9)
steps = st.integers(1, 99).map(lambda k: 500 * k)
grids = st.builds(
    lambda every, stages, entered: Grid(every, tuple(sorted({every * s for s in stages})), entered),
    st.sampled_from([1, 125, 500]),
    st.lists(st.integers(2, 200), min_size=1, max_size=4),
    st.integers(1, 60),
)


def field(values: list[float]) -> list[Standing]:
    return standings(*[value if math.isfinite(value) else math.inf for value in values])


@settings(max_examples=80, deadline=None)
@given(values=losses, step=steps, name=st.sampled_from(PRUNERS), data=st.data())
def test_the_order_of_the_entrants_changes_no_judgement(
    values: list[float], step: int, name: str, data: st.DataObject
) -> None:
    runs = runs_at(step, {f"v{i}": loss for i, loss in enumerate(values)})
    plan = [run.variant for run in runs if not run.is_control]
    shuffled = data.draw(st.permutations(runs))
    grid = replace(GRID, entered=len(values))
    first = judge(runs, POLICIES[name], step=step, grid=grid, order=plan)
    assert judge(shuffled, POLICIES[name], step=step, grid=grid, order=plan) == first


@settings(max_examples=80, deadline=None)
@given(values=losses, step=steps, name=st.sampled_from(FIELD_RULES), data=st.data())
def test_the_order_of_the_standings_changes_no_drop(
    values: list[float], step: int, name: str, data: st.DataObject
) -> None:
    there = field(values)
    assert drops(name, data.draw(st.permutations(there)), step) == drops(name, there, step)


@given(values=losses, step=steps, name=st.sampled_from(FIELD_RULES))
def test_diverged_are_always_dropped(values: list[float], step: int, name: str) -> None:
    gone = {f"v{i}" for i, value in enumerate(values) if not math.isfinite(value)}
    assert gone <= drops(name, field(values), step)


@given(values=losses, step=steps, name=st.sampled_from(RANKING))
def test_the_best_is_never_dropped(values: list[float], step: int, name: str) -> None:
    sound = [(value, i) for i, value in enumerate(values) if math.isfinite(value)]
    assume(sound)
    assert f"v{min(sound)[1]}" not in drops(name, field(values), step)


@given(values=losses, step=steps, others=losses, name=st.sampled_from(RANKING))
def test_the_diverged_move_no_other(values: list[float], step: int, others: list[float], name: str) -> None:
    """With them or without them, the same of the others are dropped."""
    sound = field([value for value in values if math.isfinite(value)])
    broken = [Standing(f"x{i}", 100 + i, math.inf, math.inf, math.inf) for i in range(len(others))]
    assert drops(name, [*sound, *broken], step) - {s.variant for s in broken} == drops(name, sound, step)


@given(values=losses, grid=grids, f0=st.sampled_from([0.015, 0.025, 0.04]), data=st.data())
def test_the_race_keeps_no_more_than_the_cap_and_no_fewer_than_the_minima(
    values: list[float], grid: Grid, f0: float, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, grid.horizon // grid.every)) * grid.every
    sound = [value for value in values if math.isfinite(value)]
    kept = len(values) - len(drops("outside_race", field(values), step, grid, f0=f0))
    cap = race_cap(OutsideRace(f0=f0), step, grid)
    assert kept == min(len(sound), cap)
    assert cap >= min(2 if step < grid.horizon / 2 else 1, grid.entered)
    if step >= 0.04 * grid.horizon:
        exact = grid.entered * min(1.0, math.sqrt(f0 * grid.horizon / step))
        assert cap == max(2 if step < grid.horizon / 2 else 1, math.ceil(exact - 1e-9))


@given(grid=grids, f0=st.floats(0.005, 0.2))
def test_the_races_points_are_every_change_of_its_cap(grid: Grid, f0: float) -> None:
    params = OutsideRace(f0=f0)
    every = range(grid.every, grid.horizon, grid.every)
    caps = [min(race_cap(params, step, grid), grid.entered) for step in every]
    before = [grid.entered, *caps]
    changes = [step for step, now, then in zip(every, caps, before, strict=False) if now < then]
    assert list(points_of("outside_race", grid, f0=f0)) == changes


@given(values=losses, grid=grids, eta=st.sampled_from([2.0, 3.0, 4.0]), data=st.data())
def test_a_rung_keeps_its_share_and_at_least_one(
    values: list[float], grid: Grid, eta: float, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, grid.horizon // grid.every)) * grid.every
    sound = [value for value in values if math.isfinite(value)]
    kept = len(values) - len(drops("outside_rung", field(values), step, grid, eta=eta))
    assert kept == min(len(sound), rung_cap(OutsideRung(eta=eta), step, grid))
    assert rung_cap(OutsideRung(eta=eta), step, grid) >= 1


@pytest.mark.parametrize("name", FIELD_RULES)
@given(grid=grids)
def test_points_are_evaluations_strictly_within_the_budget(name: str, grid: Grid) -> None:
    found = points_of(name, grid)
    assert list(found) == sorted(set(found))
    assert all(0 < step < grid.horizon and step % grid.every == 0 for step in found)


@given(grid=grids, evaluations=st.integers(1, 40))
def test_points_are_multiples_of_every(grid: Grid, evaluations: int) -> None:
    for name in ("below_median", "below_percentile", "behind_leader", "not_among_best"):
        found = points_of(name, grid, every=evaluations)
        assert all(step % (evaluations * grid.every) == 0 for step in found)


@settings(max_examples=60, deadline=None)
@given(values=losses, name=st.sampled_from(PRUNERS), grid=grids)
def test_a_race_run_to_its_end_keeps_its_winner(values: list[float], name: str, grid: Grid) -> None:
    """Point after point with losses that stand still: the best is there at the end, and nobody comes back."""
    policy, left = POLICIES[name], {f"v{i}": value for i, value in enumerate(values)}
    sound = [(value, i) for i, value in enumerate(values) if math.isfinite(value)]
    assume(sound)
    here = replace(grid, entered=len(values))
    for step in points(policy, here)[:8]:
        gone = stopped(judge(runs_at(step, left), policy, step=step, grid=here))
        left = {variant: loss for variant, loss in left.items() if variant not in gone}
    assert f"v{min(sound)[1]}" in left
