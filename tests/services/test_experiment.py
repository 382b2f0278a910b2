"""The way through the house: a whole experiment, from submission to conclusion, on both databases."""

from pathlib import Path

import pytest
from worlds import World, falling

from orchestrator.services.query import get_experiment, list_decisions, list_runs
from orchestrator.services.report import report
from orchestrator.services.views import DecisionView, RunView
from orchestrator.store.database import Database

BETTER = falling({"wide": -0.20, "wider": -0.10, "slow": 0.30})


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home", loss=BETTER)


def runs_of(world: World, experiment: int) -> dict[str, RunView]:
    found = list_runs(world.context, experiment, limit=500, cursor=None).items
    return {run.variant: run for run in found}


def decisions_of(world: World, experiment: int, *kinds: str) -> list[DecisionView]:
    return list_decisions(
        world.context, experiment_id=experiment, run_id=None, kinds=kinds, limit=500, cursor=None
    ).items


def test_the_best_go_on_from_their_checkpoints_and_the_rest_end(world: World) -> None:
    experiment = world.submit()
    assert world.run_to_end(experiment) == "succeeded"
    runs = runs_of(world, experiment)
    assert {name: run.status for name, run in runs.items()} == {
        "base": "succeeded",
        "wide": "succeeded",
        "wider": "stopped",
        "slow": "stopped",
    }
    assert {name: run.step for name, run in runs.items()} == {
        "base": 400,
        "wide": 400,
        "wider": 200,
        "slow": 100,
    }
    assert runs["slow"].reason == runs["wider"].reason == "not_promoted"
    found = get_experiment(world.context, experiment)
    assert [stage.status for stage in found.stages] == ["closed", "closed", "closed"]
    assert found.conclusion is not None
    assert found.conclusion.startswith("wide is the winner")


def test_no_step_is_trained_twice_and_none_is_missing(world: World) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    for run in report(world.context, experiment).runs:
        steps = [evaluation.step for evaluation in run.evaluations]
        assert steps == list(range(20, run.step + 1, 20))
        resumed = [attempt.resumed_from_step for attempt in run.attempt_list]
        assert resumed[0] == 0
        assert all(step in {100, 200} for step in resumed[1:])


def test_every_move_has_a_decision_with_its_evidence(world: World) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    promoted = decisions_of(world, experiment, "promote")
    assert {(d.variant, d.stage) for d in promoted} == {
        ("base", "screen"),
        ("wide", "screen"),
        ("wider", "screen"),
        ("base", "confirm"),
        ("wide", "confirm"),
    }
    (declined,) = [d for d in decisions_of(world, experiment, "decline") if d.variant == "slow"]
    assert declined.step == 100
    assert declined.author == "policy"
    assert "above the control" in declined.text
    assert declined.evidence
    assert declined.criteria


def test_each_evaluation_has_exactly_one_decision(world: World) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    found = decisions_of(world, experiment)
    judged = [(d.variant, d.step) for d in found if d.kind in {"continue", "hold"}]
    assert len(judged) == len(set(judged))
    expected = {(r.variant, e.step) for r in report(world.context, experiment).runs for e in r.evaluations}
    assert set(judged) == expected


def test_none_eligible_closes_the_branch_as_no_winner(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path / "home", loss=falling({"wide": 0.2, "wider": 0.1, "slow": 0.3}))
    experiment = world.submit()
    assert world.run_to_end(experiment) == "succeeded"
    found = get_experiment(world.context, experiment)
    assert found.conclusion is not None
    assert found.conclusion.startswith("no_winner")
    assert all(run.step == 100 for run in runs_of(world, experiment).values())
    assert runs_of(world, experiment)["base"].status == "succeeded"


def test_a_worker_that_waits_at_a_gate_goes_on_in_the_same_attempt(
    database: Database, tmp_path: Path
) -> None:
    world = World(database, tmp_path / "home", slots=4, loss=BETTER)
    experiment = world.submit()
    world.run_to_end(experiment)
    assert runs_of(world, experiment)["wide"].attempts == 1


def test_a_worker_yields_its_slot_when_others_want_it(world: World) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    assert runs_of(world, experiment)["base"].attempts > 1


def test_slots_are_never_oversubscribed(world: World) -> None:
    world.submit()
    for _ in range(60):
        world.turn()
        busy = [w.spec.slots for w in world.machine.workers.values() if not w.state.is_over]
        held = [slot for slots in busy for slot in slots]
        assert len(held) == len(set(held))


def test_new_variants_of_a_later_stage_start_from_step_0(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path / "home", loss=falling({"wide": 0.2, "late": -0.3}))
    stages = [
        {"name": "screen", "steps": 100, "variants": {"base": {}, "wide": {"width": 8}}},
        {"name": "confirm", "steps": 200, "variants": {"late": {"width": 2}}},
        {"name": "long", "steps": 400},
    ]
    experiment = world.submit(stages=stages)
    assert world.run_to_end(experiment) == "succeeded"
    runs = runs_of(world, experiment)
    assert (runs["late"].status, runs["late"].step) == ("succeeded", 400)
    assert (runs["base"].status, runs["base"].step) == ("succeeded", 400)
    assert runs["wide"].status == "stopped"


def test_seeds_are_judged_together(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path / "home", slots=3, loss=BETTER)
    experiment = world.submit(seeds=[0, 1, 2])
    assert world.run_to_end(experiment) == "succeeded"
    wide = [d for d in decisions_of(world, experiment, "promote") if d.variant == "wide"]
    assert sorted((d.stage, d.seed) for d in wide) == [
        (stage, seed) for stage in ("confirm", "screen") for seed in (0, 1, 2)
    ]
