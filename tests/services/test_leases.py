"""Leases and deadlines, clocks that step, an engine that cannot tell, workers that nobody asked for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from worlds import Worker, World

from orchestrator.domain.ids import number_of
from orchestrator.engines.base import EngineError, Handle, WorkerSpec
from orchestrator.engines.claims import Claims
from orchestrator.engines.fake import FakeEngine
from orchestrator.engines.local import LocalEngine
from orchestrator.engines.processes import boot_id
from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.report import Heartbeat, Phase
from orchestrator.services import reap as reaping
from orchestrator.services.context import Limits, Trainer
from orchestrator.services.ingest import heartbeat
from orchestrator.services.query import get_experiment, list_attempts, list_events, list_runs
from orchestrator.services.reap import reap
from orchestrator.services.reconcile import tick
from orchestrator.services.views import AttemptView
from orchestrator.store import runs
from orchestrator.store.database import Database


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home")


def eventually(is_true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_true():
            return
        Event().wait(0.02)
    raise AssertionError("it did not happen in time")


def events(world: World, experiment: int, kind: str) -> list[str]:
    found = list_events(world.context, experiment, after=0, limit=500).items
    return [event.text for event in found if event.kind == kind]


def limit(world: World, **limits: Any) -> None:
    world.context = replace(world.context, limits=replace(Limits(), **limits))


def first(world: World) -> tuple[str, Worker]:
    return next(iter(world.workers.items()))


def attempts(world: World, worker: Worker) -> list[AttemptView]:
    return list_attempts(world.context, number_of("run", worker.assignment.run_id)).items


def beat(world: World, worker: Worker, phase: Phase = Phase.TRAINING) -> None:
    """The worker's heartbeat thread lives."""
    said = Heartbeat(epoch=worker.assignment.epoch, phase=phase, step=worker.step)
    heartbeat(world.context, number_of("att", worker.assignment.attempt_id), said)


def hang(world: World, seconds: float, phase: Phase = Phase.TRAINING) -> None:
    """Every worker that is up sends heartbeats, and none comes further."""
    for _ in range(int(seconds / 25)):
        world.wait(25)
        for key, worker in world.workers.items():
            if not world.machine.workers[key].state.is_over:
                beat(world, worker, phase)
        tick(world.context)


def test_a_worker_that_is_heard_and_comes_no_further_is_stalled_and_resumed(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    _, worker = first(world)
    hang(world, 800)
    assert attempts(world, worker)[0].status == "launched"
    hang(world, 200)
    ended = attempts(world, worker)[0]
    assert (ended.status, ended.reason) == ("ended", "stalled")
    assert f"no further than step {worker.step}" in (ended.detail or "")
    assert any("no further" in text for text in events(world, experiment, "stalled"))
    assert world.run_to_end(experiment) == "succeeded"
    assert attempts(world, worker)[1].resumed_from_step == worker.step > 0


def test_a_stalled_worker_that_says_it_was_preempted_is_stalled_all_the_same(world: World) -> None:
    """Even when another service saw that it was than sees it end; and its end counts as a break."""
    world.submit()
    for _ in range(4):
        world.turn()
    key, worker = first(world)
    world.machine.workers[key].on_term = None
    hang(world, 1000)
    assert attempts(world, worker)[0].reason == "stalled"
    world.restart()
    world.turn()
    world.leave(key, worker, ExitCode.PREEMPTED)
    ended = attempts(world, worker)[0]
    assert (ended.status, ended.reason, ended.exit_code) == ("ended", "stalled", 12)


def test_a_verdict_is_carried_out_by_the_next_service(world: World) -> None:
    world.submit()
    for _ in range(4):
        world.turn()
    key, _ = first(world)
    world.machine.is_unreachable = True
    world.hang(70)  # the engine is away as the lease runs out: nothing is known, nothing is done
    world.machine.is_unreachable = False
    world.machine.workers[key].on_term = None
    tick(world.context)
    told = len(world.machine.workers[key].signals)
    world.restart()
    tick(world.context)
    assert told == 1
    assert world.machine.workers[key].kill_at is not None


def test_nobody_stalls_at_its_gate(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path / "home", slots=8)
    world.submit()
    world.turn()
    worker = next(w for w in world.workers.values() if w.assignment.variant == "wide")
    while worker.step < 100:
        worker.advance(world.context)
    for _ in range(40):
        world.wait(25)
        beat(world, worker, Phase.AT_GATE)
        tick(world.context)
    assert not world.machine.workers[key_of(worker)].signals


def key_of(worker: Worker) -> str:
    return f"{worker.assignment.run_id}-{worker.assignment.attempt}"


def test_a_start_has_a_deadline_of_its_own(world: World) -> None:
    limit(world, start=timedelta(minutes=10), progress=timedelta(minutes=2))
    world.submit()
    tick(world.context)
    world.adopt()
    _, worker = first(world)
    worker.begin(world.context)
    hang(world, 500, Phase.STARTING)
    assert attempts(world, worker)[0].status == "launched"
    hang(world, 200, Phase.STARTING)
    assert attempts(world, worker)[0].reason == "stalled"


def step_forward(world: World) -> None:
    world.now += timedelta(hours=2)


def step_back(world: World) -> None:
    world.now -= timedelta(hours=2)


def suspend(world: World) -> None:
    world.wait(7200)


@pytest.mark.parametrize("disturb", [step_forward, step_back, suspend])
def test_a_clock_step_or_a_suspend_ends_nobody(world: World, disturb: Callable[[World], None]) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    disturb(world)
    world.hang(50)
    assert not any(worker.signals for worker in world.machine.workers.values())
    with world.database.read() as connection:
        leases = [a.lease_expires_at for a in runs.live_attempts(connection)]
    assert {lease - world.now for lease in leases} == {timedelta(seconds=20)}
    assert len(events(world, experiment, "leases")) == 1
    world.hang(30)
    assert all(worker.signals for worker in world.machine.workers.values())


@pytest.mark.parametrize("hours", [1, -1])
def test_a_worker_heard_by_a_service_that_lags_behind_a_clock_step_lives_on(
    postgres: Database, tmp_path: Path, hours: int
) -> None:
    world = World(postgres, tmp_path / "home", slots=4)
    world.submit()
    for _ in range(3):
        world.turn()
    behind = timedelta(hours=hours)
    lagging = replace(world.context, clock=lambda: world.now - behind)
    world.now += behind
    for _ in range(7):
        tick(world.context)
        world.wait(1)
        for worker in world.workers.values():  # its phase is another, and that is progress
            worker.ask(lagging)
        reap(world.context)
    for _ in range(6):  # the other has looked at the clock by now
        tick(world.context)
        world.wait(1)
        for worker in world.workers.values():
            worker.ask(world.context)
    assert [a.status for w in world.workers.values() for a in attempts(world, w)] == ["launched"] * 4
    with postgres.read() as connection:
        leases = {a.lease_expires_at - world.now for a in runs.live_attempts(connection)}
    assert leases == {timedelta(seconds=60)}  # nor is any too long


def test_a_retry_does_not_wait_for_a_clock_that_was_set_back(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    key, worker = first(world)
    world.end(key, worker, 1)
    tick(world.context)
    step_back(world)
    with world.database.read() as connection:
        due = runs.runs_of(connection, [experiment])[0].not_before
    assert due is not None
    assert due > world.now + timedelta(hours=1)
    tick(world.context)
    with world.database.read() as connection:
        due = runs.runs_of(connection, [experiment])[0].not_before
    assert due is not None
    assert due <= world.now + timedelta(minutes=5)


@pytest.mark.parametrize("seconds", [25, 65])
def test_a_burial_that_takes_long_condemns_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Two workers were heard 50 s before the tick; it lasts for longer than the rest of their leases."""
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    (key, worker), (other, _) = list(world.workers.items())[:2]
    world.wait(20)
    tick(world.context)
    world.wait(27)
    world.end(key, worker, -9)

    def slow(*_: object) -> None:
        world.wait(seconds)

    monkeypatch.setattr(reaping, "backfill", slow)
    tick(world.context)
    assert attempts(world, worker)[0].status == "ended"
    assert not world.machine.workers[other].signals
    assert not events(world, experiment, "silent")
    monkeypatch.undo()
    world.hang(90)
    assert world.machine.workers[other].signals  # it was silent indeed


def test_a_clock_that_is_set_back_within_a_tick_condemns_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that comes after the step renews its lease to a time before the tick looked."""
    world.submit()
    for _ in range(4):
        world.turn()
    (key, worker), (other, heard) = list(world.workers.items())[:2]
    world.wait(20)
    tick(world.context)
    world.wait(25)
    tick(world.context)
    world.wait(20)  # the lease of the other is over as the tick looks
    world.end(key, worker, -9)

    def step(*_: object) -> None:
        step_back(world)
        beat(world, heard)

    monkeypatch.setattr(reaping, "backfill", step)
    tick(world.context)
    assert attempts(world, worker)[0].status == "ended"
    assert not world.machine.workers[other].signals


def test_a_database_that_was_away_ends_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit()
    for _ in range(4):
        world.turn()
    from orchestrator.domain.errors import Busy

    def away(self: Database) -> None:
        raise Busy("the database is away")

    for method in ("read", "write"):
        monkeypatch.setattr(Database, method, away)
    for _ in range(20):
        world.wait(10)
        with pytest.raises(Busy):
            tick(world.context)
    monkeypatch.undo()
    world.hang(50)
    assert not any(worker.signals for worker in world.machine.workers.values())


def progress(world: World) -> set[timedelta]:
    with world.database.read() as connection:
        return {world.now - a.progress_at for a in runs.live_attempts(connection) if a.progress_at}


def test_ticks_that_keep_failing_say_so_once_and_put_progress_off_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.domain.errors import Busy
    from orchestrator.services import reconcile

    experiment = world.submit()
    for _ in range(4):
        world.turn()

    def away(*_: object) -> None:
        raise Busy("the database is away")

    monkeypatch.setattr(reconcile, "reap", away)
    for _ in range(20):
        world.wait(10)
        with pytest.raises(Busy):
            tick(world.context)
    assert len(events(world, experiment, "leases")) == 1
    assert progress(world) == {timedelta(seconds=180)}  # the first failed, and nobody was heard since
    world.wait(100)  # the database is away altogether
    with pytest.raises(Busy):
        tick(world.context)
    assert progress(world) == {timedelta(0)}
    assert len(events(world, experiment, "leases")) == 1
    monkeypatch.undo()
    world.hang(20)
    monkeypatch.setattr(reconcile, "reap", away)
    for _ in range(3):
        world.wait(10)
        with pytest.raises(Busy):
            tick(world.context)
    assert len(events(world, experiment, "leases")) == 2  # another outage
    assert not any(worker.signals for worker in world.machine.workers.values())


def test_the_first_tick_of_a_service_gives_everybody_a_whole_lease(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    world.wait(55)
    world.restart()
    world.hang(50)
    assert not any(worker.signals for worker in world.machine.workers.values())
    assert len(events(world, experiment, "leases")) == 1


def test_an_attempt_that_stays_unknown_is_lost_in_the_end_and_its_slots_stay_taken(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    key, worker = first(world)
    limit(world, unknown=timedelta(minutes=5))
    world.machine.hidden = {key}
    for other, silent in world.workers.items():
        if other != key:
            world.end(other, silent, 0)
    world.hang(340)
    assert attempts(world, worker)[0].status == "launched"
    world.hang(30)
    lost = attempts(world, worker)[0]
    assert (lost.status, lost.reason) == ("ended", "lost")
    assert len(events(world, experiment, "lost")) == 1
    held = set(lost.slots)
    later = attempts(world, worker)[1:]
    assert not held & {slot for attempt in later for slot in attempt.slots}
    world.machine.hidden = set()
    world.machine.lose(key)
    world.hang(20)
    with world.database.read() as connection:
        assert not [a for a in runs.unseen_ends(connection) if a.key == key]


def test_an_engine_that_is_away_for_long_is_no_death_either(world: World) -> None:
    world.submit()
    for _ in range(4):
        world.turn()
    _, worker = first(world)
    limit(world, unknown=timedelta(minutes=5))
    world.machine.is_unreachable = True
    world.hang(340)
    assert attempts(world, worker)[0].status == "launched"
    world.hang(100)
    assert attempts(world, worker)[0].reason == "lost"


def test_a_key_that_another_worker_has_is_not_taken_over(world: World) -> None:
    """The database was restored from a backup: the machine knows workers that no row knows of."""
    world.machine.is_unreachable = True
    experiment = world.submit()
    tick(world.context)
    world.machine.is_unreachable = False
    run = list_runs(world.context, experiment, limit=9, cursor=None).items[0]
    taken = [f"{run.id}-{number}" for number in range(1, 8)]
    for key in taken:
        FakeEngine(slots=world.slots, world=world.machine).submit(
            key, WorkerSpec(("stranger",), world.home / key)
        )
    for _ in range(len(taken) + 2):
        world.wait(1)
        tick(world.context)
    assert all(world.machine.workers[key].state.is_over for key in taken)
    found = list_attempts(world.context, number_of("run", run.id)).items
    assert [a.reason for a in found] == ["stale_epoch"] * 7 + [None]
    world.machine.forgotten |= set(taken)
    for key in taken:
        del world.machine.workers[key]
    world.adopt()
    assert not any("/7" in folder for folder in world.workers[f"{run.id}-8"].assignment.resume_from)
    assert world.run_to_end(experiment) == "succeeded"


def test_what_lies_where_an_attempt_has_not_been_is_not_its_own(world: World) -> None:
    world.machine.is_unreachable = True
    experiment = world.submit()
    tick(world.context)
    run = list_runs(world.context, experiment, limit=9, cursor=None).items[0]
    left = world.home / "runs" / run.id / "1"
    left.mkdir(parents=True)
    (left / "exit.json").write_text('{"code": 21, "message": "of another time", "step": 0}')
    world.machine.is_unreachable = False
    assert world.run_to_end(experiment) == "succeeded"
    found = list_attempts(world.context, number_of("run", run.id)).items
    assert found[0].reason == "stale_epoch"
    assert "restoring an older database" in (found[0].detail or "")


def test_a_start_of_which_nothing_is_known_keeps_its_slots(world: World) -> None:
    """Submitted, an error answered, and the engine away beyond the lease: the worker may be there."""
    world.machine.submit_failures = [True]
    experiment = world.submit()
    tick(world.context)
    (key,) = [k for k in world.machine.starts if k.endswith("-1")][:1]
    world.machine.is_unreachable = True
    world.hang(700)
    with world.database.read() as connection:
        (waiting,) = [a for a in runs.intents(connection) if a.key == key]
        held, _ = runs.held_slots(connection)
    assert waiting.lease_expires_at > world.now
    assert held[waiting.run_id] == waiting.slots
    world.machine.is_unreachable = False
    world.hang(70)
    assert not world.machine.workers[key].signals
    assert world.machine.starts.count(key) == 1
    assert world.run_to_end(experiment) == "succeeded"


def test_a_late_worker_of_an_earlier_try_has_the_token_that_counts(world: World) -> None:
    world.machine.submit_failures = [False, False]
    world.submit()
    tick(world.context)
    with world.database.read() as connection:
        before = {a.key: a.token_hash for a in runs.intents(connection)}
    tick(world.context)
    with world.database.read() as connection:
        after = {a.key: a.token_hash for a in runs.live_attempts(connection)}
    assert any(before.values())
    assert all(after[key] == token for key, token in before.items() if token)


def test_an_orphan_is_ended_and_said_once(world: World) -> None:
    experiment = world.submit()
    world.turn()
    engine = FakeEngine(slots=world.slots, world=world.machine)
    engine.submit("run_99-1", WorkerSpec(("stranger",), world.home / "x"))
    world.machine.workers["run_99-1"].on_term = None
    for _ in range(200):
        world.wait(1)
        tick(world.context)
    assert world.machine.workers["run_99-1"].signals == [15]
    assert world.machine.workers["run_99-1"].kill_at is not None
    with world.database.read() as connection:
        from sqlalchemy import select

        from orchestrator.store.tables import events as table

        said = connection.execute(select(table.c.text).where(table.c.kind == "orphan")).scalars().all()
    assert len(said) == 1
    assert get_experiment(world.context, experiment).status == "running"


def test_a_worker_that_told_its_end_and_does_not_go_is_ended(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    key, worker = first(world)
    world.end = lambda *_: None  # type: ignore[method-assign]  # it says that it ends, and stays
    world.leave(key, worker, ExitCode.PREEMPTED)
    world.hang(10)
    assert not world.machine.workers[key].signals
    world.hang(100)
    assert world.machine.workers[key].state.is_over
    assert len(events(world, experiment, "orphan")) == 1


def test_records_of_attempts_that_are_over_are_dropped(world: World) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    world.hang(120)
    assert world.context.engine.list_owned() == []


def test_records_are_listed_once_a_minute_and_not_at_each_tick(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []

    def list_owned(self: FakeEngine) -> list[Handle]:
        listed.append(world.passed)
        return []

    monkeypatch.setattr(FakeEngine, "list_owned", list_owned)
    for _ in range(130):
        world.wait(1)
        tick(world.context)
    assert listed == [1, 61, 121]


def test_an_attempt_that_raises_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that keeps raising until its lease is over is parked with its error."""
    submit = FakeEngine.submit

    def broken(self: FakeEngine, key: str, spec: WorkerSpec) -> object:
        if "wide" in (spec.directory / "assignment.json").read_text().split('"variant"')[1][:12]:
            raise RuntimeError("no such thing")
        return submit(self, key, spec)

    monkeypatch.setattr(FakeEngine, "submit", broken)
    experiment = world.submit()
    assert world.run_to_end(experiment) == "succeeded"
    found = {r.variant: r for r in list_runs(world.context, experiment, limit=99, cursor=None).items}
    assert (found["wide"].status, found["wide"].reason) == ("failed", "engine_error")
    assert "RuntimeError: no such thing" in (found["wide"].detail or "")


def test_a_pending_worker_waits_for_its_start_without_a_deadline(world: World) -> None:
    world.machine.starts_pending = True
    limit(world, start=timedelta(minutes=5))
    world.submit()
    tick(world.context)
    world.adopt()
    key, worker = first(world)
    world.hang(600)
    world.machine.start(key)
    world.hang(20)
    assert not world.machine.workers[key].signals
    assert attempts(world, worker)[0].status == "launched"


def test_after_a_reboot_the_attempt_is_lost_and_the_run_goes_on(world: World) -> None:
    """With real processes: another boot id in the claim is what a restarted machine finds."""
    engine = LocalEngine(world.home / "engine", 4, False, lambda: 0.0)
    sleeper = Trainer(
        ("/bin/sh", "-c", "echo {assignment}; exec sleep 1000"), world.context.trainers["builtin"].check
    )
    world.context = replace(world.context, engine=engine, trainers={"builtin": sleeper})
    experiment = world.submit()
    tick(world.context)
    handle = engine.list_owned()[0]
    claim = Claims(world.home / "engine").claim_path(handle.key)
    text = claim.read_text()
    try:
        claim.write_text(text.replace(boot_id(), "0d4e2e0c-0000-4000-8000-000000000000"))
        fresh = LocalEngine(world.home / "engine", 4, False, lambda: 0.0)
        world.context = replace(world.context, engine=fresh)
        tick(world.context)
        run = handle.key.rpartition("-")[0]
        (lost,) = list_attempts(world.context, number_of("run", run)).items
        assert (lost.status, lost.reason) == ("ended", "lost")
        world.wait(3)
        tick(world.context)
        assert len(list_attempts(world.context, number_of("run", run)).items) == 2
        assert get_experiment(world.context, experiment).status == "running"
    finally:
        claim.write_text(text)
        for handle in engine.list_owned():
            engine.cancel(handle, 0)
        eventually(lambda: all(s.is_over for s in engine.poll(engine.list_owned()).values()))


def test_an_engine_that_fails_to_cancel_says_so_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()

    def refuse(*_: object) -> None:
        raise EngineError("not now")

    monkeypatch.setattr(FakeEngine, "cancel", refuse)
    world.hang(120)
    assert sorted({text.rpartition(": ")[2] for text in events(world, experiment, "engine")}) == ["not now"]
    assert len(events(world, experiment, "engine")) == len(world.workers)
