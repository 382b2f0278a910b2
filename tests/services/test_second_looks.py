"""Linked runs, shadows, retries of a dead control, and references that stand in for it."""

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from worlds import World, falling, spec

from orchestrator.domain.errors import Conflict, Invalid
from orchestrator.domain.ids import number_of
from orchestrator.services import override
from orchestrator.services.compare import compare
from orchestrator.services.query import get_experiment, list_attempts, list_decisions, list_events, list_runs
from orchestrator.services.references import create_reference
from orchestrator.services.replay import replay
from orchestrator.services.report import report
from orchestrator.services.views import DecisionView, RunView
from orchestrator.store import links
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from orchestrator.store.tables import checkpoints

LOSS = falling({"wide": -0.20, "wider": -0.25, "slow": 0.30})
SHORT: list[dict[str, Any]] = [
    {"name": "screen", "steps": 100, "variants": {"base": {}, "wide": {"width": 8}}},
    {"name": "long", "steps": 200, "promote": {"best": 1}},
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(Database(f"sqlite:///{tmp_path / 'assay.sqlite3'}")) as database:
        upgrade(database)
        yield World(database, tmp_path / "home", loss=LOSS)


def runs_of(world: World, experiment: int) -> dict[str, RunView]:
    return {run.variant: run for run in list_runs(world.context, experiment, limit=50, cursor=None).items}


def decisions_of(world: World, experiment: int, *, shadow: bool = False) -> list[DecisionView]:
    return list_decisions(
        world.context,
        experiment_id=experiment,
        run_id=None,
        kinds=(),
        limit=500,
        cursor=None,
        shadow=shadow,
    ).items


def told(world: World, experiment: int) -> list[tuple[str, str, int, str, str, str]]:
    """The log without ids and times."""
    return sorted(
        (d.variant, d.stage, d.step, d.kind, d.reason, d.text) for d in decisions_of(world, experiment)
    )


def test_an_equal_run_is_linked_on_request_and_not_trained_again(world: World) -> None:
    first = world.submit()
    assert world.run_to_end(first) == "succeeded"
    trained = len(world.workers)
    again = world.submit(same_config="link")
    assert world.run_to_end(again) == "succeeded"
    assert len(world.workers) == trained
    runs = runs_of(world, again)
    assert runs["wide"].linked_run_id == runs_of(world, first)["wide"].id
    assert told(world, again) == told(world, first)
    assert replay(world.context, again).exact


def test_a_linked_run_goes_on_from_where_the_other_ended(world: World) -> None:
    first = world.submit()
    world.run_to_end(first)
    stages: Any = spec()["stages"]
    stages[1]["promote"] = {"best": 2, "eligible": "all"}
    stages[2]["promote"] = {"best": 2, "eligible": "all"}
    again = world.submit(same_config="link", stages=stages)
    before = set(world.workers)
    assert world.run_to_end(again) == "succeeded"
    (started,) = [world.workers[key] for key in set(world.workers) - before]
    wide = runs_of(world, first)["wide"]
    assert started.assignment.variant == "wide"  # the first experiment stopped it at its second gate
    assert any(f"/{wide.id}/" in folder for folder in started.assignment.resume_from)
    steps = {run.variant: [e.step for e in run.evaluations] for run in report(world.context, again).runs}
    assert steps["wide"] == list(range(20, 401, 20))


def linked(world: World, experiment: int) -> list[str]:
    found = list_events(world.context, experiment, after=0, limit=500).items
    return [event.text for event in found if event.kind == "linked"]


def test_a_run_that_took_over_a_curve_is_taken_over_with_what_it_took(world: World) -> None:
    world.loss = falling({"wide": 0.1})
    world.run_to_end(world.submit(stages=SHORT))
    longer = [SHORT[0], SHORT[1] | {"promote": {"best": 1, "eligible": "all"}}]
    second = world.submit(stages=longer, same_config="link")
    assert world.run_to_end(second) == "succeeded"
    trained = {worker.assignment.variant: worker.reported for worker in list(world.workers.values())[2:]}
    assert trained == {"base": [120, 140, 160, 180, 200], "wide": [120, 140, 160, 180, 200]}
    before = len(world.workers)
    third = world.submit(stages=longer, same_config="link")
    assert world.run_to_end(third) == "succeeded"
    assert len(world.workers) == before
    assert told(world, third) == told(world, second)
    source = runs_of(world, second)["wide"].id
    assert [text for text in linked(world, third) if source in text] == [
        f"takes over the curve of {source} of exp_2 up to step {step}: "
        "it has the same config, seed and schedule"
        for step in (100, 200)
    ]
    assert replay(world.context, third).exact


def test_a_worker_finds_the_checkpoints_of_the_whole_chain(world: World) -> None:
    first = world.submit(stages=SHORT)
    world.run_to_end(first)
    again = world.submit(stages=SHORT, same_config="link")
    world.run_to_end(again)
    ids = [number_of("run", runs_of(world, experiment)["base"].id) for experiment in (first, again)]
    with world.database.read() as connection:
        (folder,) = links.directories(connection, ids[0])
        assert links.directories(connection, ids[1]) == [folder]
        assert links.newest_checkpoint(connection, ids[1], 130) == 120


def test_a_linked_run_that_diverges_goes_back_to_what_it_took_over(world: World) -> None:
    world.loss = falling({"wide": 0.1})
    assert world.run_to_end(world.submit(stages=SHORT)) == "succeeded"
    broken, calm = [math.nan], world.loss

    def loss(variant: str, seed: int, step: int) -> float:
        return broken.pop() if (variant, step) == ("wide", 120) and broken else calm(variant, seed, step)

    world.loss = loss
    again = world.submit(stages=[SHORT[0] | {"steps": 160}, SHORT[1]], same_config="link")
    assert world.run_to_end(again) == "succeeded"
    assert not broken
    run = number_of("run", runs_of(world, again)["wide"].id)
    resumed = [attempt.resumed_from_step for attempt in list_attempts(world.context, run).items]
    assert resumed == [0, 100, 100]  # the first stands for what was taken over


def test_a_run_that_diverged_is_not_taken_over(world: World) -> None:
    world.loss = lambda variant, seed, step: math.nan if variant == "wide" else LOSS(variant, seed, step)
    first = world.submit(stages=SHORT)
    world.run_to_end(first)
    assert runs_of(world, first)["wide"].reason == "diverged"
    world.loss = LOSS
    again = world.submit(stages=SHORT, same_config="link")
    assert world.run_to_end(again) == "succeeded"
    assert runs_of(world, again)["wide"].linked_run_id is None
    assert runs_of(world, again)["base"].linked_run_id is not None
    assert runs_of(world, again)["wide"].status == "succeeded"


def test_without_a_checkpoint_before_the_gate_nothing_is_taken_over_and_nothing_said(world: World) -> None:
    world.run_to_end(world.submit(stages=SHORT))
    with world.database.write() as connection:
        connection.execute(checkpoints.delete().where(checkpoints.c.step <= 100))
    again = world.submit(stages=SHORT, same_config="link")
    assert world.run_to_end(again) == "succeeded"
    assert {run.linked_run_id for run in runs_of(world, again).values()} == {None}
    assert linked(world, again) == []


@pytest.mark.parametrize("change", [{"eval_every": 10}, {"base": {"width": 5}}, {"seeds": [7]}])
def test_only_equal_runs_are_linked(world: World, change: dict[str, Any]) -> None:
    world.run_to_end(world.submit(stages=SHORT))
    again = world.submit(**({"stages": SHORT, "same_config": "link"} | change))
    assert all(run.linked_run_id is None for run in runs_of(world, again).values() if run.variant == "base")


def test_without_a_request_nothing_is_linked(world: World) -> None:
    world.run_to_end(world.submit(stages=SHORT))
    again = world.submit(stages=SHORT)
    assert {run.linked_run_id for run in runs_of(world, again).values()} == {None}


def test_a_shadow_logs_what_it_would_have_decided_and_changes_nothing(world: World) -> None:
    alone = world.submit()
    world.run_to_end(alone)
    watched = world.submit(shadow="run-all")
    world.run_to_end(watched)
    assert told(world, watched) == told(world, alone)
    logged = decisions_of(world, watched, shadow=True)
    assert {d.policy.name for d in logged} == {"run-all"}
    gate = {d.variant: d.kind for d in logged if d.stage == "screen" and d.kind in {"promote", "decline"}}
    real = {
        d.variant: d.kind for d in decisions_of(world, watched) if d.stage == "screen" and d.kind == "promote"
    }
    assert gate.keys() > real.keys()
    assert get_experiment(world.context, watched).shadow == "run-all"


def test_what_a_shadow_ended_is_heard_of_no_more(world: World) -> None:
    watched = world.submit(policy="run-all", shadow="stage-gate")
    world.run_to_end(watched)
    logged = decisions_of(world, watched, shadow=True)
    for variant in {d.variant for d in logged}:
        own = [d for d in logged if d.variant == variant]
        ends = [place for place, d in enumerate(own) if d.kind in {"decline", "stop", "fail"}]
        assert not ends or ends == [len(own) - 1]
    assert "slow" in {d.variant for d in logged if d.kind == "decline"}


def test_an_unknown_shadow_is_named_under_its_own_field(world: World) -> None:
    with pytest.raises(Invalid) as caught:
        world.submit(shadow="stage-gat")
    assert [error.field for error in caught.value.errors] == ["shadow"]


def kill_control(world: World, experiment: int, turns: int = 60) -> None:
    """Its workers die at once, until the run is given up and the others wait at the gate."""
    for _ in range(turns):
        world.turn()
        for key, worker in world.workers.items():
            if worker.assignment.variant == "base" and worker.exited is None:
                world.end(key, worker, 1)
        world.wait(5)
        if get_experiment(world.context, experiment).held:
            return
    raise AssertionError("no gate holds")


def test_gates_hold_when_the_control_dies_and_go_on_when_it_is_tried_again(world: World) -> None:
    experiment = world.submit()
    kill_control(world, experiment)
    found = get_experiment(world.context, experiment)
    assert found.status == "running"
    assert "the gate of screen holds: the control base ended" in (found.held or "")
    held = [d for d in decisions_of(world, experiment) if d.reason == "control_missing"]
    assert {d.variant for d in held} == {"wide", "wider", "slow"}
    for _ in range(5):
        world.turn()
    assert len([d for d in decisions_of(world, experiment) if d.reason == "control_missing"]) == len(held)
    control = runs_of(world, experiment)["base"]
    override.retry_run(world.context, number_of("run", control.id), "user:ada", "a broken node")
    assert world.run_to_end(experiment) == "succeeded"
    assert runs_of(world, experiment)["base"].status == "succeeded"
    assert get_experiment(world.context, experiment).held is None
    retried = [d for d in decisions_of(world, experiment) if d.reason == "retry"]
    assert [(d.author, d.variant, d.text) for d in retried] == [("user:ada", "base", "a broken node")]
    assert replay(world.context, experiment).exact


def test_breaks_before_a_retry_do_not_count(world: World) -> None:
    experiment = world.submit()
    kill_control(world, experiment)
    control = runs_of(world, experiment)["base"]
    id_ = number_of("run", control.id)
    override.retry_run(world.context, id_, "user:ada", "")
    world.turn()
    for key, worker in world.workers.items():
        if worker.assignment.variant == "base" and worker.exited is None:
            world.end(key, worker, 1)
    world.turn()
    assert runs_of(world, experiment)["base"].status == "pending"
    assert len(list_attempts(world.context, id_).items) > 2


def test_only_a_failed_run_can_be_tried_again(world: World) -> None:
    experiment = world.submit()
    world.turn()
    run = runs_of(world, experiment)["wide"]
    with pytest.raises(Conflict, match="only a failed run can be tried again"):
        override.retry_run(world.context, number_of("run", run.id), "user:ada", "")


def reference(world: World, experiment: int) -> str:
    made, new = create_reference(world.context, {"experiment_id": f"exp_{experiment}", "name": "known-base"})
    assert new
    return f"ref_{made}"


def test_a_pinned_reference_stands_in_for_a_dead_control(world: World) -> None:
    earlier = world.submit()
    world.run_to_end(earlier)
    pinned = reference(world, earlier)
    experiment = world.submit()
    kill_control(world, experiment)
    override.pin_reference(world.context, experiment, pinned, "user:ada", "the same config")
    assert world.run_to_end(experiment) == "succeeded"
    gate = [d for d in decisions_of(world, experiment) if d.variant == "wide" and d.kind == "promote"]
    assert "the reference known-base's" in gate[0].text
    compared = compare(world.context, experiment, "step")
    assert compared.reference == "known-base"
    (wide,) = [row for row in compared.rows if row.variant == "wide"]
    assert {point.invalid for point in wide.points} == {None}
    assert wide.points[4].gap == pytest.approx(-0.2)
    (whole,) = [variant for variant in compared.variants if variant.variant == "wide"]
    assert whole.gap is not None
    assert get_experiment(world.context, experiment).reference == pinned
    assert replay(world.context, experiment).exact


def test_a_spec_may_pin_its_reference_and_no_gate_holds(world: World) -> None:
    earlier = world.submit()
    world.run_to_end(earlier)
    pinned = reference(world, earlier)
    experiment = world.submit(reference=pinned)
    for _ in range(200):
        world.turn()
        for key, worker in world.workers.items():
            ours = worker.assignment.variant == "base" and worker.assignment.run_id != "run_1"
            if ours and worker.exited is None:
                world.end(key, worker, 1)
        world.wait(5)
        if get_experiment(world.context, experiment).status != "running":
            break
    found = get_experiment(world.context, experiment)
    assert (found.status, found.held) == ("succeeded", None)
    assert {"wide", "wider"} & {d.variant for d in decisions_of(world, experiment) if d.kind == "promote"}


def test_a_reference_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(Invalid) as caught:
        world.submit(reference="ref_9")
    assert [error.field for error in caught.value.errors] == ["reference"]


def test_a_budget_is_shown_with_what_is_spent(world: World) -> None:
    experiment = world.submit(budget={"slot_hours": 10})
    world.run_to_end(experiment)
    budget = get_experiment(world.context, experiment).budget
    assert budget is not None
    assert budget.slot_hours == 10
    assert 0 < budget.spent < 1
    kinds = {e.kind for e in list_events(world.context, experiment, after=0, limit=500).items}
    assert "ended" in kinds
