"""What a worker reports after its run has ended moves no decision, and no replay of one."""

from pathlib import Path
from typing import Any

import pytest
from live_builders import best_of, config_of, decided, ends, finish, runs_of, stage, turns
from sqlalchemy import select, update
from worlds import Worker, World, falling

from orchestrator.services import override
from orchestrator.services.replay import replay
from orchestrator.store import journal
from orchestrator.store.database import Database
from orchestrator.store.tables import gates

STAGES: list[dict[str, Any]] = [
    stage(
        "screen",
        100,
        {
            "base": {},
            "wide": {"width": 8},
            "slow": {"rate": 0.1},
            "next": best_of("wide", "slow", rate=0.5),
        },
    ),
    stage("confirm", 200, promote={"best": 2, "eligible": "all"}),
]


class Slowed(World):
    """Its workers of one variant stand still at a step until they are let go."""

    held: tuple[str, int] | None = None

    def move(self, key: str, worker: Worker) -> None:
        if self.held is None or worker.assignment.variant != self.held[0] or worker.step < self.held[1]:
            super().move(key, worker)


def world_of(database: Database, folder: Path) -> Slowed:
    return Slowed(database, folder / "home", slots=4, loss=falling({"wide": -0.3, "slow": -0.1}))


def stopped_late(world: Slowed) -> int:
    """The others wait at the gate; the last one is stopped before it, and reports its evaluation after."""
    experiment = world.submit(stages=STAGES)
    world.held = ("wide", 80)
    turns(world, 8)
    assert ends(world, experiment)["wide"] == ("running", None, 80)
    override.stop_run(world.context, runs_of(world, experiment)["wide", 0].id, "user:ada", "")
    world.held = None
    assert finish(world, experiment) == "succeeded"
    return experiment


def test_a_replay_sees_a_run_no_further_than_its_gate_did(database: Database, tmp_path: Path) -> None:
    world = world_of(database, tmp_path)
    experiment = stopped_late(world)
    late = [worker for worker in world.workers.values() if worker.assignment.variant == "wide"]
    assert late[0].reported[-1] == 100
    found = replay(world.context, experiment)
    assert (found.differences, found.exact) == ([], True)


def test_what_was_seen_before_its_end_was_kept_is_replayed_whole(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=STAGES)
    assert finish(world, experiment) == "succeeded"
    with world.database.write() as connection:
        for row in journal.gates_of(connection, experiment):
            entrants: Any = row.inputs["entrants"]
            older = [{key: value for key, value in one.items() if key != "upto"} for one in entrants]
            changed = update(gates).where(gates.c.id == row.id)
            connection.execute(changed.values(inputs=row.inputs | {"entrants": older}))
        assert "upto" not in str(connection.execute(select(gates.c.inputs)).all())
    assert replay(world.context, experiment).exact


@pytest.mark.parametrize("held", ["wide", "slow"])
def test_a_source_that_was_stopped_is_no_base_whichever_report_comes_first(
    either: Database, tmp_path: Path, held: str
) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=STAGES)
    turns(world, 5)
    assert ends(world, experiment)["wide"] == ("running", None, 80)
    override.stop_run(world.context, runs_of(world, experiment)["wide", 0].id, "user:ada", "")
    world.held = (held, 0)
    turns(world, 4)
    world.held = None
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "next") == {"width": 4, "rate": 0.5}
    (origin,) = [d for d in decided(world, experiment, "next") if d.reason == "best_of"]
    assert origin.evidence["left_out"] == {"wide": "it ended before step 100"}
    assert replay(world.context, experiment).exact


def test_a_source_that_its_gate_declined_or_that_was_stopped_there_is_still_a_base(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path)
    stages = [
        stage("screen", 100, {"base": {}, "wide": {"width": 8}, "slow": {"rate": 0.1}}),
        stage("confirm", 200, {"late": best_of("wide", "slow", rate=0.5)}, promote={"best": 1}),
    ]
    experiment = world.submit(stages=stages)
    world.held = ("slow", 80)
    turns(world, 8)
    assert ends(world, experiment)["wide"] == ("at_gate", None, 100)
    override.stop_run(world.context, runs_of(world, experiment)["wide", 0].id, "user:ada", "")
    world.held = None
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "late") == {"width": 8, "rate": 0.5}
    (origin,) = [d for d in decided(world, experiment, "late") if d.reason == "best_of"]
    assert origin.evidence["ranked"] == ["wide", "slow"]
    assert replay(world.context, experiment).exact
