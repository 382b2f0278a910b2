"""Policies that compare variants with each other: runs wait at points, and leave there or go on."""

import math
from pathlib import Path
from typing import Any

import pytest
from live_builders import (
    conclusion,
    decided,
    decision_log,
    decisions,
    ends,
    finish,
    row_of,
    runs_of,
    stage,
    stop_worker,
    turns,
)
from worlds import Loss, World, falling

from orchestrator.bootstrap import configs_folder, load_policies
from orchestrator.protocol.exit import ExitCode
from orchestrator.services import override
from orchestrator.services.protocol import protocol_of
from orchestrator.store import runs
from orchestrator.store.database import Database

NAMES = [f"v{number}" for number in range(1, 6)]
SPREAD = falling({name: 0.3 * number - 0.5 for number, name in enumerate(NAMES)})
PLAN = [
    stage("race", 100, {"base": {}} | {name: {"width": 4 + n} for n, name in enumerate(NAMES, 1)}),
    stage("long", 200, promote={"best": 2, "eligible": "all"}),
]


def policy(name: str, **stop: Any) -> Any:
    """A policy of the folder, with other numbers in its stop rule."""
    document = load_policies(configs_folder() / "policies")[name]
    return document | {"stop": dict(document["stop"]) | stop}  # type: ignore[arg-type]


MEDIAN = policy("median-stop", every=2)
POLICIES: dict[str, Any] = {
    "race": "race",
    "successive-halving": policy("successive-halving", at=[0.1, 0.4]),
    "asha": policy("asha", at=[0.1, 0.4]),
    "median-stop": MEDIAN,
}


def world_of(database: Database, folder: Path, slots: int, loss: Loss = SPREAD) -> World:
    return World(database, folder / "home", slots=slots, loss=loss)


def stopped_at(world: World, experiment: int) -> dict[str, int]:
    """The step at which each run left as outranked."""
    return {n: end[2] for n, end in ends(world, experiment).items() if end[1] == "outranked"}


@pytest.mark.parametrize("slots", [2, 7])
def test_outranked_runs_stop_at_points_and_the_others_go_on(
    database: Database, tmp_path: Path, slots: int
) -> None:
    world = world_of(database, tmp_path, slots)
    experiment = world.submit(stages=PLAN, policy="race")
    points = protocol_of(row_of(world, experiment)).points
    assert len(points) > 2
    assert finish(world, experiment) == "succeeded"
    left = stopped_at(world, experiment)
    assert left["v5"] == points[0]
    assert set(left.values()) <= set(points)
    assert [left[name] for name in sorted(left, reverse=True)] == sorted(left.values())
    assert len(set(left.values())) > 1
    assert ends(world, experiment)["base"] == ends(world, experiment)["v1"] == ("succeeded", "finished", 200)
    workers = {n: sum(w.assignment.variant == n for w in world.workers.values()) for n in ("base", "v1")}
    assert all(count == 1 for count in workers.values()) if slots == 7 else workers["v1"] > 1
    (out,) = [d for d in decided(world, experiment, "v5") if d.kind == "stop"]
    assert out.reason == "outranked"
    assert f"it leaves the race at step {points[0]}" in out.text
    assert out.evidence["rank"] == 5
    assert out.gate_id is not None


@pytest.mark.parametrize("name", POLICIES)
def test_decisions_do_not_hang_on_the_number_of_slots(either: Database, tmp_path: Path, name: str) -> None:
    logs = []
    for slots in (1, 2, 5):
        world = world_of(either, tmp_path / str(slots), slots)
        experiment = world.submit(stages=PLAN, policy=POLICIES[name])
        assert finish(world, experiment) == "succeeded"
        logs.append(decision_log(world, experiment))
        controls = [r for r in runs_of(world, experiment).values() if r.is_control]
        assert [(r.status, r.step) for r in controls] == [("succeeded", 200)]
    assert logs[0] == logs[1] == logs[2]
    assert any(row[5] == "outranked" for row in logs[0])


def test_with_seeds_a_variant_is_ranked_by_its_mean_and_all_its_runs_leave(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path, 4)
    experiment = world.submit(stages=PLAN, policy="race", seeds=[0, 1])
    assert finish(world, experiment) == "succeeded"
    found = ends(world, experiment)
    assert all(found[name] == found[f"{name}/1"] for name in ["base", *NAMES])
    assert found["v5"][1] == "outranked"


def test_a_run_that_fails_between_points_is_waited_for_no_longer(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 7)
    experiment = world.submit(stages=PLAN, policy="race")
    turns(world, 3)
    assert stop_worker(world, "v1", ExitCode.OUT_OF_MEMORY)
    assert finish(world, experiment) == "succeeded"
    assert ends(world, experiment)["v1"][1] == "out_of_memory"
    assert ends(world, experiment)["v2"] == ("succeeded", "finished", 200)


def test_what_diverged_leaves_at_its_point_and_counts_in_no_rank(either: Database, tmp_path: Path) -> None:
    def loss(variant: str, seed: int, step: int) -> float:
        return math.nan if variant == "v1" and step >= 60 else SPREAD(variant, seed, step)

    world = world_of(either, tmp_path, 3, loss)
    experiment = world.submit(stages=PLAN, policy="race")
    assert finish(world, experiment) == "succeeded"
    assert ends(world, experiment)["v1"][:2] == ("failed", "diverged")
    assert ends(world, experiment)["v2"] == ("succeeded", "finished", 200)


def test_a_person_stops_a_run_that_waits_at_a_point(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 2)
    experiment = world.submit(stages=PLAN, policy="race")
    while runs_of(world, experiment)["v1", 0].status != "at_gate":
        turns(world, 1)
    override.stop_run(world.context, runs_of(world, experiment)["v1", 0].id, "user:ada", "enough")
    assert finish(world, experiment) == "succeeded"
    assert ends(world, experiment)["v1"][:2] == ("stopped", "user_stopped")
    assert ends(world, experiment)["v2"] == ("succeeded", "finished", 200)


def test_a_run_that_was_stopped_at_a_point_and_is_promoted_goes_on(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 7)
    experiment = world.submit(stages=PLAN, policy="race")
    while runs_of(world, experiment)["v5", 0].status != "stopped":
        turns(world, 1)
    override.promote_run(world.context, runs_of(world, experiment)["v5", 0].id, "user:ada", "a hunch")
    assert finish(world, experiment) == "succeeded"
    assert ends(world, experiment)["v5"][1] == "outranked"
    assert ends(world, experiment)["v5"][2] > 20


@pytest.mark.parametrize("name", ["race", "successive-halving"])
def test_a_run_that_falls_back_behind_a_point_passes_it_again_without_waiting(
    either: Database, tmp_path: Path, name: str
) -> None:
    calm = world_of(either, tmp_path / "calm", 7)
    undisturbed = calm.submit(stages=PLAN, policy=POLICIES[name])
    assert finish(calm, undisturbed) == "succeeded"
    world = world_of(either, tmp_path / "shaken", 7)
    experiment = world.submit(stages=PLAN, policy=POLICIES[name])
    points = protocol_of(row_of(world, experiment)).points
    while runs_of(world, experiment)["v1", 0].step <= points[0]:
        turns(world, 1)
    for worker in world.workers.values():
        if worker.assignment.variant == "v1" and worker.exited is None:
            worker.reported.clear()  # none of its checkpoints can be read
    assert stop_worker(world, "v1")
    assert finish(world, experiment) == "succeeded"
    decided = [row for row in decision_log(world, experiment) if row[4] != "fall_back"]
    assert decided == decision_log(calm, undisturbed)


def test_a_retry_after_divergence_goes_back_behind_a_point_and_on(either: Database, tmp_path: Path) -> None:
    broken: set[int] = set()

    def loss(variant: str, seed: int, step: int) -> float:
        if variant == "v1" and step in {20, 40, 60, 80} and step not in broken:
            broken.add(step)
            return SPREAD(variant, seed, step) + (0 if step == 20 else 3.5 if step < 80 else 0)
        return SPREAD(variant, seed, step)

    world = world_of(either, tmp_path, 7, loss)
    experiment = world.submit(stages=PLAN, policy=MEDIAN)
    assert finish(world, experiment) == "succeeded"
    assert ends(world, experiment)["v1"] == ("succeeded", "finished", 200)


def test_points_before_the_gate_of_a_last_stage_and_after_a_gate(either: Database, tmp_path: Path) -> None:
    plan = [
        stage("screen", 40, PLAN[0]["variants"]),
        stage("confirm", 100, promote={"best": 3, "eligible": "all"}),
        stage("long", 200, promote={"best": 3, "eligible": "all"}),
    ]
    world = world_of(either, tmp_path, 3)
    experiment = world.submit(stages=plan, policy="race")
    assert finish(world, experiment) == "succeeded"
    assert conclusion(world, experiment).startswith("v1 is the winner")
    kinds = {(d.stage, d.kind, d.reason) for _, d in decisions(world, experiment)}
    assert ("long", "stop", "outranked") in kinds or ("confirm", "stop", "outranked") in kinds
    assert ends(world, experiment)["base"] == ("succeeded", "finished", 200)


def test_new_variants_of_a_later_stage_have_the_earlier_points_before_them(
    either: Database, tmp_path: Path
) -> None:
    plan = [PLAN[0], stage("long", 200, {"late": {"width": 99}}, promote={"best": 2, "eligible": "all"})]
    logs = []
    for slots in (2, 5):
        world = world_of(either, tmp_path / str(slots), slots)
        experiment = world.submit(stages=plan, policy="race")
        assert finish(world, experiment) == "succeeded"
        assert ends(world, experiment)["late"][1] == "outranked"
        logs.append(decision_log(world, experiment))
    assert logs[0] == logs[1]


def test_a_worker_at_a_point_yields_only_when_others_want_its_slot(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, 7)
    experiment = world.submit(stages=PLAN, policy="race")
    assert finish(world, experiment) == "succeeded"
    with world.database.read() as connection:
        tried = runs.attempts_by_run(connection, [r.id for r in runs_of(world, experiment).values()])
    assert {len(found) for found in tried.values()} == {1}
