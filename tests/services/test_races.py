"""Policies that compare variants, through the real services: points, who leaves, and what cannot move it."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from worlds import World, falling

from orchestrator.services.query import list_decisions
from orchestrator.services.views import DecisionView
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade

NAMES = [f"v{i}" for i in range(8)]
LOSS = falling({name: 0.05 * ((3 * i) % 8) for i, name in enumerate(NAMES)})
"""Best first: v0, v3, v6, v1, v4, v7, v2, v5."""
VARIANTS = {"base": {}} | {name: {"width": 8 + i} for i, name in enumerate(NAMES)}
STAGES: list[dict[str, Any]] = [
    {"name": "screen", "steps": 100, "variants": VARIANTS},
    {"name": "long", "steps": 500, "promote": {"best": 8}},
]


def raced(folder: Path, *, slots: int, policy: str = "race", crash: bool = False) -> list[DecisionView]:
    """Every decision of the experiment, in the order of runs and steps."""
    with closing(Database(f"sqlite:///{folder / f'{policy}-{slots}-{crash}.sqlite3'}")) as database:
        event.listen(database.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
        upgrade(database)
        world = World(database, folder / f"{policy}-{slots}-{crash}", slots=slots, loss=LOSS)
        experiment = world.submit(policy=policy, stages=STAGES)
        if crash:
            interrupt(world)
        assert world.run_to_end(experiment, turns=2000) == "succeeded"
        return every_decision(world, experiment)


def interrupt(world: World) -> None:
    """The service restarts and workers crash while the race is on."""
    for turn in range(40):
        world.turn()
        if turn % 7 == 3:
            world.restart()
        alive = [key for key, worker in world.workers.items() if worker.exited is None]
        if turn in {5, 16} and alive:
            world.end(alive[0], world.workers[alive[0]], 1)
            world.wait(5)


def every_decision(world: World, experiment: int) -> list[DecisionView]:
    found: list[DecisionView] = []
    cursor: str | None = None
    while True:
        page = list_decisions(
            world.context, experiment_id=experiment, run_id=None, kinds=(), limit=500, cursor=cursor
        )
        found += page.items
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    return sorted(found, key=lambda d: (d.variant, d.step, d.kind, d.reason))


def told(decisions: list[DecisionView]) -> list[tuple[str, int, str, str, str]]:
    return [(d.variant, d.step, d.kind, d.reason, d.text) for d in decisions]


def left(decisions: list[DecisionView]) -> dict[str, tuple[int, str]]:
    """Where each variant left, and why."""
    return {d.variant: (d.step, d.reason) for d in decisions if d.kind in ("stop", "decline", "fail")}


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> list[DecisionView]:
    """A race on one slot: every run yields it at every point."""
    return raced(tmp_path_factory.mktemp("race"), slots=1)


def test_a_race_drops_the_worst_at_its_points(race: list[DecisionView]) -> None:
    """R is 500, n is 8: the cap is 7 at step 20, 5 at 40, 4 at 60, 3 at 100 (a gate, too), 2 from 200 on."""
    assert left(race) == {
        "v5": (20, "outranked"),
        "v2": (40, "outranked"),
        "v7": (40, "outranked"),
        "v4": (60, "outranked"),
        "v1": (100, "outranked"),
        "v6": (200, "outranked"),
    }


def test_the_control_runs_as_far_as_the_furthest(race: list[DecisionView]) -> None:
    ends = {d.variant: d.step for d in race if d.reason == "finished"}
    assert ends == {"base": 500, "v0": 500, "v3": 500}


def test_slots_and_so_the_order_of_arrival_change_no_decision(
    race: list[DecisionView], tmp_path: Path
) -> None:
    assert told(raced(tmp_path, slots=9)) == told(race)


def test_a_stop_of_percentiles_does_not_depend_on_slots_either(tmp_path: Path) -> None:
    one, nine = (raced(tmp_path, slots=slots, policy="percentile-stop") for slots in (1, 9))
    assert told(one) == told(nine)
    assert "outranked" in {reason for _, reason in left(one).values()}


def test_crashes_and_restarts_change_nobodys_place(race: list[DecisionView], tmp_path: Path) -> None:
    assert left(raced(tmp_path, slots=2, crash=True)) == left(race)
