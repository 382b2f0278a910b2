"""What a person does at a gate, links past a gate, seeds that do not overlap, money that comes back."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from worlds import World, falling

from orchestrator.domain.ids import number_of
from orchestrator.services import override
from orchestrator.services.query import get_experiment, list_decisions, list_runs
from orchestrator.services.replay import replay
from orchestrator.services.views import RunView
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade

LOSS = falling({"wide": -0.20, "wider": -0.10, "late": -0.30, "slow": 0.30})
VARIANTS: dict[str, Any] = {"base": {}, "wide": {"width": 8}, "wider": {"width": 16}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(Database(f"sqlite:///{tmp_path / 'assay.sqlite3'}")) as database:
        upgrade(database)
        yield World(database, tmp_path / "home", slots=4, loss=LOSS)


def runs_of(world: World, experiment: int) -> dict[tuple[str, int], RunView]:
    found = list_runs(world.context, experiment, limit=100, cursor=None).items
    return {(run.variant, run.seed): run for run in found}


def stages(**confirm: Any) -> list[dict[str, Any]]:
    return [
        {"name": "screen", "steps": 100, "variants": VARIANTS},
        {"name": "confirm", "steps": 200, "promote": {"best": 1, "eligible": "all"}} | confirm,
    ]


def until_at_gate(world: World, experiment: int, variant: str) -> RunView:
    for _ in range(40):
        world.turn()
        run = runs_of(world, experiment)[variant, 0]
        if run.status == "at_gate":
            return run
    raise AssertionError("it did not come to its gate")


def test_a_run_that_is_stopped_and_promoted_while_it_waits_at_its_gate_waits_on(world: World) -> None:
    world.slots = ("cpu:0", "cpu:1")  # the others are still to come
    world.restart()
    experiment = world.submit(stages=stages())
    run = until_at_gate(world, experiment, "wide")
    id_ = number_of("run", run.id)
    override.stop_run(world.context, id_, "user:ada", "a mistake")
    override.promote_run(world.context, id_, "user:ada", "undone")
    assert runs_of(world, experiment)["wide", 0].status == "at_gate"
    assert world.run_to_end(experiment) == "succeeded"
    assert runs_of(world, experiment)["wide", 0].status == "succeeded"


def test_a_newcomer_of_a_later_stage_takes_no_place_at_an_earlier_gate(world: World) -> None:
    later = stages(variants={"late": {"width": 32}})
    first = world.submit(stages=later)
    assert world.run_to_end(first) == "succeeded"
    linked = world.submit(stages=later, same_config="link")
    assert world.run_to_end(linked) == "succeeded"
    for experiment in (first, linked):
        found = list_decisions(
            world.context, experiment_id=experiment, run_id=None, kinds=("promote",), limit=99, cursor=None
        ).items
        assert {d.variant for d in found if d.stage == "screen"} == {"base", "wide"}


def test_seeds_that_do_not_overlap_are_trained_from_step_0(world: World) -> None:
    experiment = world.submit(stages=stages(seeds=[1, 2]))
    assert world.run_to_end(experiment) == "succeeded"
    runs = runs_of(world, experiment)
    ended = {key: run.step for key, run in runs.items() if run.status == "succeeded" and run.step == 200}
    assert set(ended) == {("base", 1), ("base", 2), ("wide", 1), ("wide", 2)}
    assert (get_experiment(world.context, experiment).conclusion or "").startswith("wide is the winner")


def test_money_that_a_stopped_run_gives_back_is_spent_on_the_others(world: World) -> None:
    world.slots = ("cpu:0",)
    world.restart()
    equal = {"base": {}, "wide": {"rate": 0.5}, "slow": {"rate": 0.1}}
    screen = {"name": "screen", "steps": 100, "variants": equal}
    confirm = {"name": "confirm", "steps": 120, "promote": {"best": 1, "eligible": "all"}}
    experiment = world.submit(stages=[screen, confirm], budget={"slot_hours": 15 / 3600})
    for _ in range(60):
        world.turn()
        run = runs_of(world, experiment)["wide", 0]
        if run.step >= 40:
            break
    override.stop_run(world.context, number_of("run", run.id), "user:ada", "enough")
    for _ in range(30):
        world.turn()
    assert runs_of(world, experiment)["slow", 0].step > 0


def test_what_held_is_forgotten_when_the_control_comes_back(world: World) -> None:
    experiment = world.submit(stages=stages())
    world.turn()
    control = number_of("run", runs_of(world, experiment)["base", 0].id)
    override.stop_run(world.context, control, "user:ada", "by mistake")
    for _ in range(30):
        world.turn()
        if get_experiment(world.context, experiment).held:
            break
    assert get_experiment(world.context, experiment).held
    override.promote_run(world.context, control, "user:ada", "back")
    assert get_experiment(world.context, experiment).held is None
    assert world.run_to_end(experiment) == "succeeded"
    assert get_experiment(world.context, experiment).held is None


def fall_back(world: World, variant: str, step: int) -> None:
    """The variant's worker dies, and the newest checkpoint that is sound lies at `step`."""
    newest = world.checkpoint
    world.checkpoint = lambda a: step if a.variant == variant else newest(a)  # type: ignore[method-assign]
    for key, worker in world.workers.items():
        if worker.assignment.variant == variant and worker.exited is None:
            world.end(key, worker, 1)


@pytest.mark.parametrize("variant", ["base", "wide"])
def test_a_run_that_went_on_early_and_fell_back_is_ranked_as_it_left(world: World, variant: str) -> None:
    screen = {"name": "screen", "steps": 100, "variants": VARIANTS}
    promote = {"best": 2, "eager": True}
    experiment = world.submit(stages=[screen, {"name": "confirm", "steps": 400, "promote": promote}])
    move, last = world.move, {"wider"}

    def late(key: str, worker: Any) -> None:
        """`wider` stands still before the gate, and the one that fell back stands still behind it."""
        held = worker.assignment.variant in last and (worker.step >= 80 and worker.sequence > 0)
        if not held:
            move(key, worker)

    world.move = late  # type: ignore[method-assign]
    for _ in range(12):
        world.turn()
    assert runs_of(world, experiment)[variant, 0].stage == "confirm"
    fall_back(world, variant, 80)
    last.add(variant)
    for _ in range(8):
        world.turn()
        world.wait(4)
    last.remove("wider")
    for _ in range(6):
        world.turn()
    found = get_experiment(world.context, experiment)
    assert found.held is None
    assert found.stages[0].conclusion == "screen promotes wide, wider, of 2 ranked"
    last.clear()
    assert world.run_to_end(experiment) == "succeeded"
    assert replay(world.context, experiment).exact
