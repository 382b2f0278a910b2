"""What the simulation found, each as small as it gets."""

from pathlib import Path

from services.worlds import World

from orchestrator.domain.ids import number_of
from orchestrator.services.query import list_attempts, list_runs
from orchestrator.services.reconcile import tick
from orchestrator.store.database import Database


def test_what_a_worker_saved_after_it_lost_its_lease_is_not_resumed_from(
    sqlite: Database, tmp_path: Path
) -> None:
    world = World(sqlite, tmp_path / "home")
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    key, worker = next(iter(world.workers.items()))
    known = worker.step
    world.machine.lose(key)
    tick(world.context)
    worker.reported.append(known + 20)  # it trains on, saves, and is refused
    assert world.run_to_end(experiment) == "succeeded"
    runs = list_runs(world.context, experiment, limit=500, cursor=None).items
    run = next(run for run in runs if run.variant == worker.assignment.variant)
    attempts = list_attempts(world.context, number_of("run", run.id)).items
    assert attempts[1].resumed_from_step == known
