"""Checkpoints of ended attempts go when nothing can ask for them, and nothing else is ever touched."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from live_builders import runs_of
from stored_checkpoints import materialise, rows, steps_on_disk, steps_on_record
from worlds import Worker, World, falling

from orchestrator.domain.ids import number_of, spell
from orchestrator.protocol.exit import ExitCode
from orchestrator.services import retention
from orchestrator.services.query import list_events
from orchestrator.services.reconcile import tick
from orchestrator.services.retention import retain
from orchestrator.store import checkpoints, links
from orchestrator.store.database import Database

SHORT = {
    "stages": [
        {
            "name": "screen",
            "steps": 100,
            "variants": {"base": {}, "wide": {"width": 8}, "slow": {"rate": 0.1}},
        },
        {"name": "confirm", "steps": 200, "promote": {"best": 1}},
    ]
}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home", loss=falling({"wide": -0.2, "slow": 0.1}))


def sweep(world: World) -> None:
    """Retention at once, whenever it was last."""
    world.context.watch.retained = None
    retain(world.context)


def until(world: World, step: int, variant: str = "base", attempt: int = 1) -> tuple[str, Worker]:
    """The worker of an attempt when it has got to a step."""
    for _ in range(200):
        for key, worker in world.workers.items():
            is_it = (worker.assignment.variant, worker.assignment.attempt) == (variant, attempt)
            if is_it and worker.step >= step:
                return key, worker
        world.turn()
    raise AssertionError("it did not come so far")


def killed_at(world: World, step: int, **which: object) -> int:
    """The run whose worker was killed at a step, and went on in another that has reported."""
    key, worker = until(world, step, **which)  # type: ignore[arg-type]
    world.end(key, worker, ExitCode.PREEMPTED)
    until(world, step, worker.assignment.variant, worker.assignment.attempt + 1)
    return number_of("run", worker.assignment.run_id)


def test_an_ended_attempt_keeps_the_spare_and_what_open_gates_need(
    database: Database, tmp_path: Path
) -> None:
    world = World(database, tmp_path / "home")
    experiment = world.submit()
    run = killed_at(world, 80)
    materialise(world)
    assert steps_on_disk(world, run)[1] == [20, 40, 60, 80]
    sweep(world)
    assert steps_on_disk(world, run) == {1: [60, 80]}
    assert steps_on_record(world, run) == [60, 80]
    told = [
        e.text
        for e in list_events(world.context, experiment, after=0, limit=500).items
        if e.kind == "retention" and e.run_id == spell("run", run)
    ]
    assert told == [
        "checkpoints that no gate and no retry can need any more were removed (0.0 MiB): of attempt 1: 20, 40"
    ]
    sweep(world)
    assert len(rows(world)) >= 4  # rows stay: what was there, and when it went


def test_a_live_attempts_directory_is_its_workers_own(world: World) -> None:
    world.submit()
    _, worker = until(world, 80)
    run = number_of("run", worker.assignment.run_id)
    materialise(world)
    sweep(world)
    assert steps_on_disk(world, run) == {1: [20, 40, 60, 80]}


def test_what_its_worker_pruned_is_marked_and_what_is_missing_is_not(world: World) -> None:
    world.submit()
    _, worker = until(world, 80)
    run = number_of("run", worker.assignment.run_id)
    materialise(world)
    folder = Path(worker.assignment.directory) / "checkpoints"
    shutil.rmtree(folder / "step-00000040")
    shutil.rmtree(folder / "step-00000080")  # no worker removes its newest: that is for the doctor to say
    sweep(world)
    assert steps_on_record(world, run) == [20, 60, 80]


def test_nothing_goes_while_a_worker_may_be_reading_it(world: World) -> None:
    world.submit()
    key, worker = until(world, 80)
    world.end(key, worker, ExitCode.PREEMPTED)
    for _ in range(3):
        tick(world.context)  # starts the next attempt, whose worker has not said from where it goes on
    materialise(world)
    run = number_of("run", worker.assignment.run_id)
    assert runs_of(world, 1)["base", 0].status == "starting"
    sweep(world)
    assert steps_on_disk(world, run) == {1: [20, 40, 60, 80]}


def test_damaged_ones_are_no_spare(world: World) -> None:
    world.submit()
    run = killed_at(world, 80)
    paths = materialise(world)
    newest = next(path for path in paths if f"/run_{run}/1/" in str(path) and path.name.endswith("80"))
    (newest / "model.bin").write_bytes(b"torn")  # seen by its size
    with world.database.write() as connection:
        checkpoints.mark_damaged(connection, [run], str(newest).replace("80", "60"), "flipped")
    sweep(world)
    assert steps_on_disk(world, run) == {1: [20, 40, 60, 80]}


def test_an_ended_experiment_keeps_the_newest_and_what_the_last_decision_names(world: World) -> None:
    experiment = world.submit(**SHORT)
    assert world.run_to_end(experiment) == "succeeded"
    materialise(world)
    sweep(world)
    for run in runs_of(world, experiment).values():
        left = [step for steps in steps_on_disk(world, run.id).values() for step in steps]
        assert left == [run.step - 20, run.step]
    world.restart()
    sweep(world)
    assert sum(row.removed_at is None for row in rows(world)) == 2 * len(runs_of(world, experiment))


def test_the_whole_experiment_decides_the_same_with_retention_all_along(world: World, tmp_path: Path) -> None:
    experiment = world.submit(**SHORT)
    killed_at(world, 60)
    for _ in range(8):
        materialise(world)
        sweep(world)
        for _ in range(3):
            world.turn()
    assert world.run_to_end(experiment) == "succeeded"
    ends = {name: (run.status, run.reason, run.step) for (name, _), run in runs_of(world, experiment).items()}
    calm = World(world.database, tmp_path / "calm", loss=world.loss)
    other = calm.submit(**SHORT)
    calm.run_to_end(other)
    assert ends == {
        name: (run.status, run.reason, run.step) for (name, _), run in runs_of(calm, other).items()
    }


def test_a_linked_run_finds_what_it_goes_on_from(world: World) -> None:
    first = world.submit(**SHORT)
    world.run_to_end(first)
    materialise(world)
    short = world.submit(**SHORT, name="again", same_config="link")
    source = runs_of(world, first)["wide", 0]
    taker = runs_of(world, short)["wide", 0]
    assert taker.linked_run_id == source.id
    sweep(world)
    assert steps_on_record(world, source.id) == [100, 180, 200]  # the gate of the other one, still open
    with world.database.read() as connection:
        assert links.newest_checkpoint(connection, source.id, 179) == 100
    assert world.run_to_end(short) == "succeeded"


def test_a_checkpoint_that_was_removed_is_not_linked_to(world: World) -> None:
    first = world.submit(**SHORT)
    world.run_to_end(first)
    run = runs_of(world, first)["wide", 0].id
    with world.database.write() as connection:
        assert links.newest_checkpoint(connection, run, 100) == 100
        every = checkpoints.on_disk(connection, [run])[run]
        checkpoints.mark_removed(connection, [row.id for row in every if row.step in {80, 100}], world.now)
        assert links.newest_checkpoint(connection, run, 100) == 60


def test_only_folders_of_the_home_are_removed_and_no_link_is_followed(world: World, tmp_path: Path) -> None:
    world.submit()
    run = killed_at(world, 80)
    materialise(world)
    elsewhere = tmp_path / "elsewhere"
    first = Path(next(row.path for row in rows(world) if row.run_id == run)).parents[1]
    shutil.move(first, elsewhere)
    first.symlink_to(elsewhere)
    sweep(world)
    left = sorted(path.name for path in (elsewhere / "checkpoints").iterdir())
    assert left == [f"step-000000{step}" for step in (20, 40, 60, 80)]


def test_a_crash_between_mark_and_removal_leaves_a_folder_too_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit()
    run = killed_at(world, 80)
    materialise(world)

    def crash(_home: Path, _path: Path) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(retention, "remove", crash)
        with pytest.raises(KeyboardInterrupt):
            sweep(world)
    assert steps_on_record(world, run) == [60, 80]  # what rows promise is there
    assert steps_on_disk(world, run)[1] == [20, 40, 60, 80]


def test_it_looks_about_once_a_minute_and_at_some_runs_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = world.submit(**SHORT)
    world.run_to_end(experiment)
    materialise(world)
    monkeypatch.setattr(retention, "RUNS_AT_ONCE", 2)
    now = [0.0]
    context = replace(world.context, monotonic=lambda: now[0])
    counts = []
    for seconds in (0, 1, 6, 30, 67):
        now[0] = seconds
        context.watch.retained = context.watch.retained if seconds else None
        retain(context)
        counts.append(len({row.run_id for row in rows(world) if row.removed_at is not None}))
    assert counts == [2, 2, 3, 3, 3]
