"""The log of an experiment is made again from its rows, word for word; what was tampered with is found."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from worlds import World, falling, spec

from orchestrator.domain.ids import number_of
from orchestrator.protocol.exit import ExitCode
from orchestrator.services import override
from orchestrator.services.query import get_experiment, list_runs
from orchestrator.services.replay import BY_CLOCK, TOO_OLD, replay
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from orchestrator.store.tables import decisions, evaluations

LOSS = falling({"wide": -0.20, "wider": -0.25, "slow": 0.30, "top": -0.3, "rate-2": -0.35})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(Database(f"sqlite:///{tmp_path / 'assay.sqlite3'}")) as database:
        upgrade(database)
        yield World(database, tmp_path / "home", loss=LOSS)


def dependent_stages() -> list[dict[str, Any]]:
    stages: Any = spec()["stages"]
    top = {"from": {"best_of": ["wide", "wider"]}, "set": {"rate": 0.5}}
    stages[0]["variants"]["top"] = top
    stages[1]["around_winner"] = {"rate": [2]}
    stages[1]["seeds"] = [0, 1]
    return list(stages)


def finished(world: World, **changes: Any) -> int:
    experiment = world.submit(**changes)
    assert world.run_to_end(experiment) == "succeeded"
    return experiment


@pytest.mark.parametrize("policy", ["stage-gate", "short-screen", "race", "successive-halving", "asha"])
def test_a_finished_experiment_is_replayed_exactly(world: World, policy: str) -> None:
    experiment = finished(world, policy=policy)
    found = replay(world.context, experiment)
    assert found.differences == []
    assert found.exact
    assert found.reproduced == found.decisions > 10
    assert found.not_replayed == []


def test_choices_seeds_and_variants_around_the_winner_are_replayed_too(world: World) -> None:
    experiment = finished(world, stages=dependent_stages())
    names = {run.variant for run in list_runs(world.context, experiment, limit=50, cursor=None).items}
    assert {"top", "rate-2"} <= names
    found = replay(world.context, experiment)
    assert (found.differences, found.exact) == ([], True)


def test_an_early_promotion_is_replayed_too(world: World) -> None:
    stages: Any = spec()["stages"]
    stages[1]["promote"] = {"best": 3, "eager": True, "eligible": "all"}
    found = replay(world.context, finished(world, stages=stages))
    assert (found.differences, found.exact) == ([], True)


def test_a_crash_in_between_changes_nothing_in_the_replay(world: World) -> None:
    experiment = world.submit()
    for turn in range(400):
        world.turn()
        for key, worker in list(world.workers.items()):
            if turn in {6, 15, 30} and worker.exited is None:
                world.end(key, worker, 1)
        if get_experiment(world.context, experiment).status == "succeeded":
            break
        world.wait(5)
    found = replay(world.context, experiment)
    assert (found.differences, found.exact) == ([], True)


def test_what_a_person_decided_is_left_out_and_said(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    runs = {run.variant: run for run in list_runs(world.context, experiment, limit=50, cursor=None).items}
    override.stop_run(world.context, number_of("run", runs["slow"].id), "user:ada", "too slow")
    world.run_to_end(experiment)
    found = replay(world.context, experiment)
    assert found.exact
    assert [row.why for row in found.not_replayed] == ["user:ada decided it"]


def test_decisions_from_before_inputs_were_kept_are_not_said_to_be_exact(world: World) -> None:
    experiment = finished(world)
    with world.database.write() as connection:
        connection.execute(update(decisions).values(attempt=None, gate_id=None))
        connection.execute(update(decisions).where(decisions.c.kind == "decline").values(criteria=[]))
    found = replay(world.context, experiment)
    assert (found.exact, found.reproduced, found.differences) == (False, 0, [])
    assert len(found.not_replayed) == found.decisions > 10
    assert {row.why for row in found.not_replayed} == {TOO_OLD}


def test_a_decision_from_before_among_others_leaves_these_exact(world: World) -> None:
    experiment = finished(world)
    with world.database.write() as connection:
        connection.execute(update(decisions).where(decisions.c.step == 20).values(attempt=None))
    found = replay(world.context, experiment)
    assert found.exact
    assert found.reproduced == found.decisions - len(found.not_replayed) > 10
    assert {row.why for row in found.not_replayed} == {TOO_OLD}


def test_what_followed_from_how_a_worker_ended_is_left_out_and_said(world: World) -> None:
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    for key, worker in world.workers.items():
        if worker.assignment.variant == "wide" and worker.exited is None:
            world.end(key, worker, ExitCode.CONFIG_ERROR)
    world.run_to_end(experiment)
    found = replay(world.context, experiment)
    assert found.exact
    assert [row.why for row in found.not_replayed] == [BY_CLOCK]


def test_before_the_first_decision_there_is_nothing_to_replay(world: World) -> None:
    found = replay(world.context, world.submit())
    assert (found.exact, found.decisions, found.not_replayed) == (False, 0, [])


def test_a_measurement_that_was_changed_afterwards_shows(world: World) -> None:
    experiment = finished(world)
    with world.database.write() as connection:
        body = {"eval_loss": 9.0}
        row = connection.execute(evaluations.select().where(evaluations.c.step == 100)).first()
        assert row is not None
        own = (evaluations.c.run_id == row.run_id) & (evaluations.c.step == 100)
        connection.execute(update(evaluations).where(own).values(body=row.body | body))
    found = replay(world.context, experiment)
    assert not found.exact
    assert {difference.field for difference in found.differences} >= {"evidence"}


def test_a_decision_that_was_changed_afterwards_shows(world: World) -> None:
    experiment = finished(world)
    with world.database.write() as connection:
        changed = decisions.c.kind == "promote"
        connection.execute(update(decisions).where(changed).values(text="because I say so"))
    found = replay(world.context, experiment)
    assert {difference.field for difference in found.differences} == {"text"}
    assert all(difference.recorded == "because I say so" for difference in found.differences)
