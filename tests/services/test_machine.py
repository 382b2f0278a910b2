"""Whatever breaks, in whatever order: the rows stay sound and the gate decides as if nothing had."""

import tempfile
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select
from worlds import Worker, World, falling

from orchestrator.domain.errors import StaleEpoch
from orchestrator.domain.ids import number_of
from orchestrator.domain.lifecycle import RunStatus
from orchestrator.protocol.report import Phase, Report
from orchestrator.services import override
from orchestrator.services.ingest import ingest
from orchestrator.services.reconcile import tick
from orchestrator.store import runs
from orchestrator.store.database import Database
from orchestrator.store.journal import list_decisions
from orchestrator.store.migrate import upgrade
from orchestrator.store.tables import evaluations

LOSS = falling({"wide": -0.20, "slow": 0.30})
STAGES = [
    {"name": "screen", "steps": 40, "variants": {"base": {}, "wide": {"width": 8}, "slow": {"rate": 0.1}}},
    {"name": "long", "steps": 60, "promote": {"best": 1}},
]
MOST_BREAKS = 3
"""Of one worker's run: after a fourth the run would rightly fail."""
Gate = set[tuple[str, str, str]]


def new_world(folder: Path) -> World:
    database = Database(f"sqlite:///{folder / 'assay.sqlite3'}")
    upgrade(database)
    return World(database, folder / "home", loss=LOSS)


def gate_decisions(world: World, experiment: int) -> Gate:
    with world.database.read() as connection:
        names = {run.id: run.variant for run in runs.runs_of(connection, [experiment])}
        found = list_decisions(connection, experiment_id=experiment, limit=1000)
    return {(names[d.run_id], d.stage, d.kind) for d in found if d.kind in {"promote", "decline", "fail"}}


@cache
def undisturbed() -> Gate:
    with tempfile.TemporaryDirectory() as folder:
        world = new_world(Path(folder))
        experiment = world.submit(stages=STAGES)
        assert world.run_to_end(experiment) == "succeeded"
        found = gate_decisions(world, experiment)
        world.database.close()
        return found


class Disturbed(RuleBasedStateMachine):
    """One experiment of a gate and three variants, and everything that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = new_world(Path(self.folder.name))
        self.experiment = self.world.submit(stages=STAGES)
        self.ended: dict[int, RunStatus] = {}
        self.acknowledged: set[tuple[int, int, float]] = set()
        self.last: list[tuple[int, Report]] = []
        self.breaks: dict[str, int] = {}

    def up(self) -> list[str]:
        """Workers that still run, by key."""
        self.world.adopt()
        machine = self.world.machine.workers
        return [k for k, w in self.world.workers.items() if w.exited is None and not machine[k].state.is_over]

    def pick(self, place: int) -> tuple[str, Worker] | None:
        keys = self.up()
        return (keys[place % len(keys)], self.world.workers[keys[place % len(keys)]]) if keys else None

    def breakable(self, place: int) -> tuple[str, Worker] | None:
        """A worker whose run may break once more: one that has come further since its last break."""
        found = self.pick(place)
        if found is None:
            return None
        worker = found[1]
        run = worker.assignment.run_id
        times = self.breaks.get(run, 0)
        with self.world.database.read() as connection:
            history = runs.attempts_of(connection, number_of("run", run))
        before = max((a.step for a in history[:-1] if a.reason in {"crashed", "lost"}), default=-1)
        if times >= MOST_BREAKS or worker.sequence == 0 or worker.step <= before:
            return None
        self.breaks[run] = times + 1
        return found

    @rule()
    def tick(self) -> None:
        tick(self.world.context)
        self.world.wait(1)

    @rule(place=st.integers(0, 3))
    def move(self, place: int) -> None:
        found = self.pick(place)
        if found is not None:
            self.world.move(*found)
            _, worker = found
            self.acknowledged |= {
                (number_of("att", worker.assignment.attempt_id), step, worker.evaluation(step).eval_loss)
                for step in worker.reported
            }

    @rule()
    def turn(self) -> None:
        self.world.turn()

    @rule(place=st.integers(0, 3))
    def kill(self, place: int) -> None:
        found = self.breakable(place)
        if found is not None:
            self.world.end(*found, -9)

    @rule(place=st.integers(0, 3), late=st.booleans())
    def lose(self, place: int, late: bool) -> None:
        """The engine says that it is gone; a report of it may still come, and is fenced off."""
        found = self.breakable(place)
        if found is None:
            return
        key, worker = found
        self.world.machine.lose(key)
        if late:
            tick(self.world.context)  # after an ambiguous submit this one only records the handle,
            tick(self.world.context)  # and the next one asks the engine about it
            self.fenced(worker)
        worker.exited = -1

    def fenced(self, worker: Worker) -> None:
        report = Report(
            epoch=worker.assignment.epoch, sequence=10_000, phase=Phase.TRAINING, step=worker.step + 20
        )
        try:
            ingest(self.world.context, number_of("att", worker.assignment.attempt_id), report)
        except StaleEpoch:
            return
        raise AssertionError("a report of a lost attempt was taken in")

    @rule(place=st.integers(0, 3))
    def repeat(self, place: int) -> None:
        """A first report again, as after an answer that did not come through."""
        found = self.pick(place)
        if found is None or found[1].sequence == 0:
            return
        worker = found[1]
        step = worker.reported[0] - 20 if worker.reported else worker.step
        report = Report(
            epoch=worker.assignment.epoch,
            sequence=1,
            phase=Phase.STARTING,
            step=step,
            resumed_from_step=step,
            identity=worker.identity(),
        )
        ingest(self.world.context, number_of("att", worker.assignment.attempt_id), report)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(seconds=st.sampled_from([30, 3600]))
    def pause(self, seconds: int) -> None:
        self.world.wait(seconds)
        self.world.restart()

    @precondition(lambda self: not self.world.machine.submit_failures)
    @rule(done=st.booleans())
    def fail_next_submit(self, done: bool) -> None:
        self.world.machine.submit_failures = [done]

    @invariant()
    def rows_are_sound(self) -> None:
        with self.world.database.read() as connection:
            live = runs.live_attempts(connection)
            every = runs.runs_of(connection, [self.experiment])
            stored = connection.execute(
                select(evaluations.c.attempt_id, evaluations.c.step, evaluations.c.eval_loss)
            ).all()
            decisions = list_decisions(connection, experiment_id=self.experiment, limit=1000)
        held = [slot for attempt in live for slot in attempt.slots]
        assert len({attempt.run_id for attempt in live}) == len(live), "two live attempts of a run"
        assert len(held) == len(set(held)), "a slot is held twice"
        for run in every:
            assert (
                self.ended.setdefault(run.id, run.status) == run.status or not self.ended[run.id].is_terminal
            )
            self.ended[run.id] = run.status
        assert self.acknowledged <= {(row[0], row[1], row[2]) for row in stored}
        explained = {
            d.run_id for d in decisions if d.evidence and d.criteria and d.kind in {"promote", "decline"}
        }
        moved = {
            run.id for run in every if not run.is_control and (run.stage > 0 or run.reason == "not_promoted")
        }
        assert moved <= explained, "a run was promoted or declined without evidence"

    @invariant()
    def no_slot_has_two_workers(self) -> None:
        busy = [w.spec.slots for w in self.world.machine.workers.values() if not w.state.is_over]
        held = [slot for slots in busy for slot in slots]
        assert len(held) == len(set(held))

    def teardown(self) -> None:
        try:
            assert self.world.run_to_end(self.experiment) == "succeeded"
            assert gate_decisions(self.world, self.experiment) == undisturbed()
            self.rows_are_sound()
        finally:
            self.world.database.close()
            self.folder.cleanup()


TestDisturbed = Disturbed.TestCase
TestDisturbed.settings = settings(
    max_examples=5,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_a_run_promoted_before_its_worker_heard_of_the_stop_goes_on_in_it(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    experiment = world.submit(stages=STAGES)
    world.turn()
    key, worker = next((k, w) for k, w in world.workers.items() if w.assignment.variant == "wide")
    run = number_of("run", worker.assignment.run_id)
    override.stop_run(world.context, run, "user:ada", "")
    override.promote_run(world.context, run, "user:ada", "")
    for _ in range(3):
        world.move(key, worker)
    assert worker.reported == [20, 40]
    assert world.run_to_end(experiment) == "succeeded"
    world.database.close()


def test_a_left_behind_worker_is_not_forgotten_while_the_engine_is_away(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    world.submit(stages=STAGES)
    world.turn()
    with world.database.write() as connection:
        for attempt in runs.live_attempts(connection):
            runs.change_attempt(connection, attempt.id, status="ended", reason="diverged")
    left = list(world.workers)
    world.machine.is_unreachable = True
    tick(world.context)
    world.machine.is_unreachable = False
    tick(world.context)
    assert all(world.machine.workers[key].signals for key in left)
    world.database.close()
