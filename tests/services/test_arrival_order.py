"""The order in which reports arrive, arrive twice, or are cut by restarts never changes a decision.

The whole log of the rules' decisions is compared with that of an undisturbed run: who, where, kind, reason,
verdict, sentence, criteria and evidence.
"""

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_builders import Row, best_of, decision_log, decisions, ends, finish, row_of, stage, turns
from worlds import Worker, World, falling

from orchestrator.domain.ids import number_of
from orchestrator.protocol.report import Phase, Report
from orchestrator.services.ingest import ingest
from orchestrator.services.reconcile import tick
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade

LOSS = falling({"wide": -0.3, "wider": -0.2, "slow": 0.3, "next": -0.4, "rate-0.5": -0.5})
FIELD = {"base": {}, "wide": {"width": 8}, "wider": {"width": 16}, "slow": {"rate": 0.1}}
FAST = settings(
    max_examples=4, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def plan(kind: str) -> dict[str, Any]:
    """Specs whose every step of the protocol is short."""
    if kind == "race":
        race = [stage("race", 60, FIELD), stage("long", 120, promote={"best": 2, "eligible": "all"})]
        return {"stages": race, "policy": "race"}
    eager = {"best": 3, "eager": True} if kind == "eager" else {"best": 2}
    return {
        "stages": [
            stage("screen", 40, FIELD | {"next": best_of("wide", "wider", rate=0.25)}),
            stage("confirm", 60, around_winner={"rate": [0.5]}, promote=eager, seeds=[0, 1]),
            stage("long", 80, promote={"best": 1}, seeds=[0]),
        ]
    }


KINDS = ["stage-gate", "eager", "race"]


def fresh(folder: str, slots: int) -> World:
    database = Database(f"sqlite:///{folder}/assay.sqlite3")
    upgrade(database)
    return World(database, Path(folder) / "home", slots=slots, loss=LOSS)


@cache
def undisturbed(kind: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        world = fresh(folder, 8)
        experiment = world.submit(**plan(kind))
        assert finish(world, experiment) == "succeeded"
        log = decision_log(world, experiment)
        world.database.close()
    return log


class Shaken:
    """One experiment in a world that moves its workers as a source of chance says, and breaks them."""

    def __init__(self, world: World, kind: str, chance: random.Random, *, breaks: int) -> None:
        self.world, self.chance, self.breaks = world, chance, breaks
        self.experiment = world.submit(**plan(kind))
        self.broken: dict[str, int] = {}

    def run(self) -> list[Row]:
        for _ in range(2000):
            if row_of(self.world, self.experiment).status.is_terminal:
                return decision_log(self.world, self.experiment)
            self.step()
        raise AssertionError(f"it did not end: {ends(self.world, self.experiment)}")

    def step(self) -> None:
        what = self.chance.random()
        if what < 0.35 or not self.up():
            tick(self.world.context)
            self.world.adopt()
            self.world.wait(1)
        elif what < 0.40:
            self.world.restart()
        elif what < 0.45:
            self.kill(self.chance.choice(self.up()))
        else:
            key = self.chance.choice(self.up())
            self.world.move(key, self.world.workers[key])
            if self.chance.random() < 0.3:
                self.again(self.world.workers[key])

    def up(self) -> list[str]:
        machine = self.world.machine.workers
        return [k for k, w in self.world.workers.items() if w.exited is None and not machine[k].state.is_over]

    def kill(self, key: str) -> None:
        """Once for each run, so that it is tried again whatever its progress."""
        worker = self.world.workers[key]
        run = worker.assignment.run_id
        if self.breaks and worker.reported and not self.broken.get(run):
            self.broken[run], self.breaks = 1, self.breaks - 1
            self.world.end(key, worker, -9)

    def again(self, worker: Worker) -> None:
        """The first report a second time, as after an answer that was lost."""
        if worker.exited is not None or not worker.sequence:
            return
        step = worker.reported[0] - 20 if worker.reported else worker.step
        body = {"epoch": worker.assignment.epoch, "sequence": 1, "phase": Phase.STARTING, "step": step}
        first = Report(**body, resumed_from_step=step, identity=worker.identity())
        ingest(self.world.context, number_of("att", worker.assignment.attempt_id), first)


@pytest.mark.parametrize("kind", KINDS)
@FAST
@given(seed=st.integers(0, 10**6), slots=st.sampled_from([1, 2, 3, 8]))
def test_whatever_order_workers_report_in_the_decisions_are_the_same(
    kind: str, seed: int, slots: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = fresh(folder, slots)
        log = Shaken(world, kind, random.Random(seed), breaks=3).run()  # noqa: S311 - no secret
        world.database.close()
    assert log == undisturbed(kind)


def test_the_undisturbed_logs_hold_what_they_are_compared_for() -> None:
    reasons = {kind: {row[5] for row in undisturbed(kind)} for kind in KINDS}
    assert {"best_of", "around_winner", "seed_done", "promote_criteria_met", "not_promoted"} <= reasons[
        "stage-gate"
    ]
    assert any("is certain" in row[7] for row in undisturbed("eager"))
    assert {"outranked", "in_the_race", "at_point"} <= reasons["race"]


@pytest.mark.parametrize("kind", ["eager", "race"])
def test_the_decisions_are_the_same_on_both_databases(database: Database, tmp_path: Path, kind: str) -> None:
    world = World(database, tmp_path / "home", slots=2, loss=LOSS)
    assert Shaken(world, kind, random.Random(7), breaks=2).run() == undisturbed(kind)  # noqa: S311 - no secret


def test_an_eager_variant_is_on_its_way_before_the_last_has_come(either: Database, tmp_path: Path) -> None:
    stages = [stage("screen", 40, FIELD), stage("long", 80, promote={"best": 3, "eager": True})]
    world = World(either, tmp_path / "home", slots=1, loss=LOSS)
    experiment = world.submit(stages=stages)
    while not any(d.kind == "promote" for _, d in decisions(world, experiment)):
        turns(world, 1)
    found = ends(world, experiment)
    assert {name for name, end in found.items() if end[0] == "pending" and not end[2]} >= {"slow"}
    assert found["wide"][0] in {"pending", "starting", "running"}
    assert finish(world, experiment) == "succeeded"
    calm = World(either, tmp_path / "calm", slots=4, loss=LOSS)
    undisturbed_ = calm.submit(stages=stages)
    assert finish(calm, undisturbed_) == "succeeded"
    assert decision_log(world, experiment) == decision_log(calm, undisturbed_)


def reports_of(worker: Worker, steps: list[int]) -> list[Report]:
    """What a worker reports from its start to the last of these steps, one report for each."""
    epoch = worker.assignment.epoch
    first = Report(
        epoch=epoch,
        sequence=1,
        phase=Phase.STARTING,
        step=0,
        resumed_from_step=0,
        identity=worker.identity(),
    )
    return [first] + [
        Report(epoch=epoch, sequence=n, phase=Phase.TRAINING, step=s, evaluations=(worker.evaluation(s),))
        for n, s in enumerate(steps, 2)
    ]


@FAST
@given(order=st.permutations(range(4)), twice=st.booleans(), kind=st.sampled_from(["stage-gate", "race"]))
def test_one_workers_reports_in_any_order_and_twice_are_judged_alike(
    order: list[int], twice: bool, kind: str
) -> None:
    stages = [
        stage("screen", 60, {"base": {}, "wide": {"width": 8}, "wider": {"width": 9}}),
        stage("long", 120, promote={"best": 1, "eligible": "all"}),
    ]
    if kind == "race":  # its first point is at step 20: nothing is trained past it unasked
        order = [place for place in order if place < 2]
    logs = []
    for shuffled in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            world = fresh(folder, 3)
            experiment = world.submit(stages=stages, policy=kind)
            tick(world.context)
            world.adopt()
            for worker in world.workers.values():
                sent = reports_of(worker, [20, 40, 60][: len(order) - 1])
                for place in order if shuffled else range(len(order)):
                    for _ in range(2 if twice else 1):
                        attempt = number_of("att", worker.assignment.attempt_id)
                        worker.answer = ingest(world.context, attempt, sent[place])
                worker.sequence, worker.step = len(sent), sent[-1].step
                worker.reported = [e.step for report in sent for e in report.evaluations]
            assert finish(world, experiment) == "succeeded"
            logs.append(decision_log(world, experiment))
            world.database.close()
    assert logs[0] == logs[1]
