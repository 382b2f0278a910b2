"""A damaged checkpoint: the run goes on from the one before, and a decision says so once."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import select
from stored_checkpoints import rows
from worlds import Worker, World, falling

from orchestrator.api.report import report_html
from orchestrator.domain.ids import number_of
from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.report import PassedOver, Phase
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.query import list_decisions, list_events
from orchestrator.services.reconcile import tick
from orchestrator.services.replay import replay
from orchestrator.services.report import report
from orchestrator.services.views import DecisionView
from orchestrator.store import runs
from orchestrator.store.database import Database
from orchestrator.store.tables import attempts

PROBLEM = "model.safetensors has 10 bytes, not 300"


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home", loss=falling({"wide": -0.2, "wider": -0.1}))


def fall_backs(world: World, experiment: int) -> list[DecisionView]:
    found = list_decisions(
        world.context, experiment_id=experiment, run_id=None, kinds=["fall_back"], limit=500, cursor=None
    )
    return found.items


def crash(world: World, at: int = 60) -> Worker:
    """The worker of `base`, killed when it has got to a step."""
    while True:
        world.turn()
        for key, worker in world.workers.items():
            if worker.assignment.variant == "base" and worker.step == at:
                world.end(key, worker, ExitCode.CRASHED)
                return worker


def second(world: World, first: Worker, *damaged: int) -> Worker:
    """The next worker of the run, which could not read some checkpoints of the first, begun."""
    return begin(world, first, next_worker(world, first), *damaged)


def next_worker(world: World, first: Worker) -> Worker:
    follows = (first.assignment.run_id, first.assignment.attempt + 1)
    for _ in range(30):
        for worker in world.workers.values():
            if (worker.assignment.run_id, worker.assignment.attempt) == follows:
                return worker
        world.wait(3)
        tick(world.context)
        world.adopt()
    raise AssertionError("no other attempt followed")


def begin(world: World, first: Worker, worker: Worker, *damaged: int) -> Worker:
    folder = f"{first.assignment.directory}/checkpoints"
    passed = [PassedOver(step=s, path=f"{folder}/step-{s:08d}", problem=PROBLEM) for s in damaged]
    worker.step = min(damaged) - 20
    worker.report(
        world.context,
        phase=Phase.STARTING,
        resumed_from_step=worker.step,
        identity=worker.identity(),
        passed_over=tuple(passed),
    )
    return worker


def test_the_decision_says_which_was_damaged_and_what_is_trained_again(world: World) -> None:
    experiment = world.submit()
    first = crash(world)
    run = number_of("run", first.assignment.run_id)
    second(world, first, 60, 40)
    (found,) = fall_backs(world, experiment)
    assert (found.reason, found.verdict, found.step, found.variant) == (
        "checkpoint_damaged",
        "inconclusive",
        20,
        "base",
    )
    assert "attempt 2 goes on from the checkpoint of step 20, so 40 steps are trained again" in found.text
    assert f"the one of step 60: {PROBLEM}; the one of step 40: {PROBLEM}" in found.text
    passed = [
        PassedOver.model_validate(one) for one in cast("list[JsonObject]", found.evidence["passed_over"])
    ]
    assert [one.step for one in passed] == [60, 40]
    marked = {row.step: row.damage for row in rows(world) if row.run_id == run}
    assert marked == {20: None, 40: PROBLEM, 60: PROBLEM}
    assert resumes_at_most(world, run) == 20  # were the disk sound again, that line is given up


def resumes_at_most(world: World, run: int) -> int | None:
    with world.database.read() as connection:
        found = runs.get_run(connection, run)
    assert found is not None
    return found.resume_at_most


def test_what_is_saved_after_a_fall_back_is_gone_on_from(world: World) -> None:
    world.submit()
    first = crash(world)
    again = second(world, first, 60, 40)
    while again.step < 60:
        world.turn()
    assert resumes_at_most(world, number_of("run", first.assignment.run_id)) == 60


def test_a_checkpoint_that_is_gone_is_said_too(world: World) -> None:
    """The worker sees no folder of it and says nothing; the record does."""
    experiment = world.submit()
    first = crash(world)
    again = next_worker(world, first)
    again.step = 20
    again.report(world.context, phase=Phase.STARTING, resumed_from_step=20, identity=again.identity())
    (found,) = fall_backs(world, experiment)
    assert "attempt 2 goes on from the checkpoint of step 20, so 40 steps are trained again" in found.text
    assert found.text.endswith("(the one of step 60: it is on record, and the worker did not find it)")
    assert found.reason == "checkpoint_missing"
    run = number_of("run", first.assignment.run_id)
    assert [row.step for row in rows(world) if row.run_id == run and row.damage is None] == [20, 40]
    again.report(world.context, resumed_from_step=0)  # once more, which the protocol does not foresee
    assert world.run_to_end(experiment) == "succeeded"
    assert len(fall_backs(world, experiment)) == 1


def test_without_its_folder_a_run_waits_and_begins_nothing_anew(world: World) -> None:
    experiment = world.submit()
    first = crash(world)
    folder = Path(first.assignment.directory)
    away = folder.rename(folder.with_name("away"))
    for _ in range(20):
        world.turn()
    key = f"{first.assignment.run_id}-2"
    assert key not in world.machine.starts
    found = list_events(world.context, experiment, after=0, limit=500).items
    (said,) = [event.text for event in found if event.kind == "outage"]
    assert f"{folder} has the newest checkpoint of {first.assignment.run_id}: mount its disk" in said
    away.rename(folder)
    assert next_worker(world, first).step == 60
    assert world.run_to_end(experiment) == "succeeded"
    assert fall_backs(world, experiment) == []


def test_a_folder_that_was_made_anew_is_gone_on_without(world: World) -> None:
    """What the event advises, when nothing can be brought back."""
    experiment = world.submit()
    first = crash(world)
    folder = Path(first.assignment.directory)
    shutil.rmtree(folder)
    for _ in range(5):
        world.turn()
    folder.mkdir()
    first.reported.clear()
    assert next_worker(world, first).step == 0
    assert world.run_to_end(experiment) == "succeeded"
    (found,) = fall_backs(world, experiment)
    assert "attempt 2 goes on from the beginning, so 60 steps are trained again" in found.text


@pytest.mark.parametrize("breaks", [crash, lambda world: world.turn()])
def test_who_goes_on_from_the_newest_that_it_may_falls_back_on_nothing(
    breaks: Callable[[World], object], database: Database, tmp_path: Path
) -> None:
    """After a crash that is the newest of all; after a divergence, at 60, the last good one, of 40."""

    def loss(variant: str, seed: int, step: int) -> float:
        return math.nan if variant == "wide" and step >= 60 else falling()(variant, seed, step)

    world = World(database, tmp_path / "home", loss=loss)
    experiment = world.submit()
    breaks(world)
    assert world.run_to_end(experiment) == "succeeded"
    with database.read() as connection:
        begun = connection.execute(select(attempts.c.number, attempts.c.resumed_from_step)).all()
    assert (2, 40) in begun
    assert fall_backs(world, experiment) == []


def test_it_is_recorded_once_and_disturbs_nothing(world: World, tmp_path: Path) -> None:
    experiment = world.submit()
    first = crash(world)
    again = second(world, first, 60)
    sequence, again.sequence = again.sequence, again.sequence - 1
    begin(world, first, again, 60)  # the same report once more
    assert again.sequence == sequence
    assert world.run_to_end(experiment) == "succeeded"
    (found,) = fall_backs(world, experiment)
    replayed = replay(world.context, experiment)
    assert replayed.exact
    assert [one.decision_id for one in replayed.not_replayed if "damaged" in one.why] == [found.id]
    page = report_html(report(world.context, experiment))
    assert "so 20 steps are trained again" in page


def test_another_attempt_that_falls_back_is_another_decision(world: World) -> None:
    experiment = world.submit()
    again = second(world, crash(world), 60)
    while again.step < 80:
        world.turn()
    world.end(next(key for key, worker in world.workers.items() if worker is again), again, ExitCode.CRASHED)
    second(world, again, 80)
    assert [found.evidence["attempt"] for found in fall_backs(world, experiment)] == [2, 3]


def test_a_worker_can_mark_nothing_of_another_run(world: World) -> None:
    world.submit()
    first = crash(world)
    other = next(row for row in rows(world) if f"/{first.assignment.run_id}/" not in row.path)
    for _ in range(30):
        world.turn()
        world.wait(2)
        found = [w for w in world.workers.values() if w.assignment.run_id == first.assignment.run_id]
        if len(found) == 2:
            break
    worker = found[1]
    passed = PassedOver(step=other.step, path=other.path, problem=PROBLEM)
    worker.report(world.context, resumed_from_step=worker.step, passed_over=(passed,))
    assert [row.damage for row in rows(world) if row.id == other.id] == [None]
