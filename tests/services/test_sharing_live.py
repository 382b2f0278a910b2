"""Budgets that hold, slots that are shared, and gates that hold without a control."""

from pathlib import Path
from typing import Any

import pytest
from live_builders import (
    best_of,
    conclusion,
    decided,
    decisions,
    ends,
    events,
    finish,
    row_of,
    runs_of,
    stage,
    stages_of,
    stop_worker,
    turns,
)
from worlds import World, falling

from orchestrator.domain.ids import number_of
from orchestrator.protocol.exit import ExitCode
from orchestrator.rules.plan import plan
from orchestrator.services.reconcile import tick
from orchestrator.services.snapshot import load_snapshot
from orchestrator.store import runs
from orchestrator.store.database import Database

LOSS = falling({"wide": -0.3, "wider": -0.2, "slow": 0.3})
FIELD = {"base": {}, "wide": {"width": 8}, "wider": {"width": 16}, "slow": {"rate": 0.1}}
PLAN = [stage("screen", 100, FIELD), stage("long", 200, promote={"best": 2})]


def world_of(database: Database, folder: Path, slots: int) -> World:
    return World(database, folder / "home", slots=slots, loss=LOSS)


def spent(world: World, experiment: int) -> float:
    """Slot-seconds of every attempt so far."""
    with world.database.read() as connection:
        ids = [run.id for run in runs.runs_of(connection, [experiment])]
        tried = [a for found in runs.attempts_by_run(connection, ids).values() for a in found]
    return sum(len(a.slots) * ((a.ended_at or world.now) - a.created_at).total_seconds() for a in tried)


def budget(seconds: float) -> dict[str, Any]:
    return {"slot_hours": seconds / 3600}


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("seconds", [0.5, 8, 20, 30, 45])
def test_a_budget_holds_and_the_experiment_ends(
    either: Database, tmp_path: Path, slots: int, seconds: float
) -> None:
    world = world_of(either, tmp_path, slots)
    experiment = world.submit(stages=PLAN, budget=budget(seconds))
    finish(world, experiment)
    assert spent(world, experiment) <= seconds + slots
    unpaid = [end for end in ends(world, experiment).values() if end[1] == "budget_exhausted"]
    assert unpaid or spent(world, experiment) < seconds
    said = [d for _, d in decisions(world, experiment) if d.reason == "budget_exhausted"]
    assert len(said) == len(unpaid)
    assert all("budget" in d.text and d.kind == "stop" for d in said)


def test_a_budget_that_is_enough_changes_nothing(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 2)
    experiment = world.submit(stages=PLAN, budget=budget(500))
    assert finish(world, experiment) == "succeeded"
    assert ends(world, experiment)["wide"] == ("succeeded", "finished", 200)


def test_while_no_cost_is_known_one_run_is_tried(database: Database, tmp_path: Path) -> None:
    world = world_of(database, tmp_path, 4)
    experiment = world.submit(stages=PLAN, budget=budget(500))
    turns(world, 2)
    assert sum(end[0] != "pending" for end in ends(world, experiment).values()) == 1
    turns(world, 2)
    assert sum(end[0] != "pending" for end in ends(world, experiment).values()) == 4


def test_a_spent_budget_ends_what_is_live_and_says_so(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 4)
    experiment = world.submit(stages=PLAN, budget=budget(5))
    assert finish(world, experiment) == "failed"
    assert "the budget did not bring the control" in conclusion(world, experiment)
    assert all(worker.exited is not None for worker in world.workers.values())


def test_what_is_promoted_in_its_worker_is_not_trained_on_unpaid(either: Database, tmp_path: Path) -> None:
    """All four come to the gate for about 26 slot-seconds; two more runs to the end cost some 15 each."""
    long = [stage("screen", 100, FIELD), stage("long", 1000, promote={"best": 2})]
    world = world_of(either, tmp_path, 4)
    experiment = world.submit(stages=long, budget=budget(60))
    finish(world, experiment)
    assert spent(world, experiment) <= 60
    trained = {name: end[2] for name, end in ends(world, experiment).items()}
    assert trained["wide"] == 100, "a run was begun whose end the budget could not pay"


def held(world: World, experiment: int) -> int:
    """Slots that an experiment's workers hold."""
    with world.database.read() as connection:
        ids = {run.id for run in runs.runs_of(connection, [experiment])}
        return sum(len(a.slots) for a in runs.live_attempts(connection) if a.run_id in ids)


@pytest.mark.parametrize("count", [2, 3])
def test_equal_experiments_share_the_slots(database: Database, tmp_path: Path, count: int) -> None:
    world = world_of(database, tmp_path, 2 if count == 2 else 3)
    made = [world.submit(stages=PLAN, name=f"e{number}") for number in range(count)]
    for _ in range(20):
        world.turn()
        shares = [held(world, experiment) for experiment in made]
        assert max(shares) - min(shares) <= 1
    assert [finish(world, experiment) for experiment in made] == ["succeeded"] * count


def test_three_experiments_on_two_slots_all_end(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 2)
    made = [world.submit(stages=PLAN, name=f"e{number}") for number in range(3)]
    assert [finish(world, experiment) for experiment in made] == ["succeeded"] * 3


def test_a_higher_priority_goes_first_at_every_free_slot(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 2)
    low = world.submit(stages=PLAN, name="low")
    turns(world, 3)
    high = world.submit(stages=PLAN, name="high", priority=5)
    while not row_of(world, high).status.is_terminal:
        before = set(world.workers)
        wants = any(end[0] == "pending" for end in ends(world, high).values())
        tick(world.context)
        world.adopt()
        started = [w for key, w in world.workers.items() if key not in before]
        if wants and started:
            assert number_of("exp", started[0].assignment.experiment_id) == high
        turns(world, 1)
    assert finish(world, low) == "succeeded"


def test_a_worker_at_a_gate_gives_its_slot_to_another_experiment(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 4)
    first = world.submit(stages=PLAN, name="first")
    turns(world, 2)
    assert stop_worker(world, "slow")
    turns(world, 3)
    second = world.submit(stages=PLAN, name="second")
    for _ in range(4):
        turns(world, 1)
    assert held(world, second) > 0
    assert finish(world, first) == finish(world, second) == "succeeded"


def test_a_gate_without_its_control_holds_once_and_says_so(database: Database, tmp_path: Path) -> None:
    world = world_of(database, tmp_path, 4)
    experiment = world.submit(stages=PLAN)
    turns(world, 3)
    assert stop_worker(world, "base", ExitCode.OUT_OF_MEMORY)
    turns(world, 20)
    assert row_of(world, experiment).status == "running"
    text = row_of(world, experiment).held or ""
    assert text.startswith("the gate of screen holds: the control base ended (run_")
    assert events(world, experiment, "held") == [text]
    holds = [name for (name, _), d in decisions(world, experiment) if d.reason == "control_missing"]
    assert sorted(holds) == ["slow", "wide", "wider"]
    count = len(decisions(world, experiment))
    with world.database.read() as connection:
        assert plan(load_snapshot(connection, world.context)) == []
    turns(world, 10)
    assert len(decisions(world, experiment)) == count
    assert {end[0] for name, end in ends(world, experiment).items() if name != "base"} == {"at_gate"}
    assert stages_of(world, experiment)[0].status == "running"


def test_one_of_the_controls_seeds_is_enough_for_a_gate(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 8)
    experiment = world.submit(stages=PLAN, seeds=[0, 1])
    turns(world, 3)
    assert stop_worker(world, "base", ExitCode.OUT_OF_MEMORY, seed=1)
    assert finish(world, experiment) == "succeeded"
    assert row_of(world, experiment).held is None


def test_the_end_of_the_last_stage_holds_too(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 4)
    experiment = world.submit(stages=PLAN, seeds=[0])
    while runs_of(world, experiment)["base", 0].step <= 100:
        turns(world, 1)
    assert stop_worker(world, "base", ExitCode.OUT_OF_MEMORY)
    turns(world, 15)
    assert row_of(world, experiment).status == "running"
    assert "the gate of long holds" in (row_of(world, experiment).held or "")
    assert ends(world, experiment)["wide"] == ("succeeded", "finished", 200)
    assert len(events(world, experiment, "held")) == 1


def test_a_control_seed_that_an_earlier_stage_was_the_last_to_train_does_not_stand_for_the_control(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path, 8)
    stages = [stage("screen", 100, FIELD, seeds=[0, 1]), stage("long", 200, promote={"best": 1}, seeds=[0])]
    experiment = world.submit(stages=stages)
    while runs_of(world, experiment)["base", 0].step <= 100:
        turns(world, 1)
    assert ends(world, experiment)["base/1"][:2] == ("succeeded", "finished")
    assert stop_worker(world, "base", ExitCode.OUT_OF_MEMORY)
    turns(world, 15)
    assert row_of(world, experiment).held is not None


def test_a_gate_that_waits_for_a_choice_holds_when_that_is_trained(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 4)
    stages = [stage("screen", 100, FIELD | {"next": best_of("wide", "wider", rate=0.5)}), PLAN[1]]
    experiment = world.submit(stages=stages)
    turns(world, 3)
    assert stop_worker(world, "base", ExitCode.OUT_OF_MEMORY)
    turns(world, 25)
    assert row_of(world, experiment).held is not None
    assert ends(world, experiment)["next"][0] == "at_gate"
    assert not decided(world, experiment, "next", "promote", "decline")


SEEDED = [
    stage("screen", 100, FIELD, seeds=[0]),
    stage("confirm", 140, promote={"best": 2}, seeds=[0, 1, 2]),
    stage("long", 200, promote={"best": 1}, seeds=[1]),
]


def test_later_stages_add_seeds_from_step_0_and_leave_others_behind(
    database: Database, tmp_path: Path
) -> None:
    world = world_of(database, tmp_path, 4)
    experiment = world.submit(stages=SEEDED)
    assert finish(world, experiment) == "succeeded"
    found = ends(world, experiment)
    assert {name.split("/")[0] for name in found if "/" in name} == {"base", "wide", "wider"}
    assert found["wide/1"] == found["base/1"] == ("succeeded", "finished", 200)
    assert found["wide"] == found["wide/2"] == ("stopped", "not_promoted", 140)
    assert found["base"] == found["base/2"] == ("succeeded", "finished", 140)
    first = [
        w.reported[0] for w in world.workers.values() if w.assignment.seed and w.assignment.target_step == 140
    ]
    assert set(first) <= {20}
    done = [d for d in decided(world, experiment, "wide") if d.reason == "seed_done"]
    assert [d.kind for d in done] == ["decline"] * 2
    assert all("goes on from confirm without seed" in d.text for d in done)


def test_sigma_comes_from_the_controls_seeds_where_there_are_some(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 4)
    experiment = world.submit(stages=SEEDED)
    assert finish(world, experiment) == "succeeded"
    by_stage = {d.stage: d.evidence for d in decided(world, experiment, "wide", "promote")}
    assert by_stage["screen"]["sigma"] != by_stage["confirm"]["sigma"] == pytest.approx(1e-4)
