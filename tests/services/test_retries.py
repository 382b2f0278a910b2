"""What follows an attempt that ended, through the services: delays, memory, disks, and what raises."""

from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import worlds
from worlds import Worker, World

from orchestrator.domain.errors import Busy
from orchestrator.domain.ids import number_of
from orchestrator.engines.base import EngineError, Handle, WorkerSpec
from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.wire import JsonObject
from orchestrator.services import disk, settle
from orchestrator.services.query import get_experiment, list_attempts, list_events, list_runs
from orchestrator.services.reconcile import tick
from orchestrator.services.views import RunView
from orchestrator.store import runs
from orchestrator.store.database import Database
from orchestrator.store.records import RunRecord


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home", slots=4, loss=worlds.falling({"wide": -0.2}))


def events(world: World, experiment: int, kind: str) -> list[str]:
    found = list_events(world.context, experiment, after=0, limit=500).items
    return [event.text for event in found if event.kind == kind]


def run_of(world: World, experiment: int, variant: str = "wide") -> RunView:
    found = list_runs(world.context, experiment, limit=500, cursor=None).items
    return next(run for run in found if run.variant == variant)


def row_of(world: World, experiment: int, variant: str = "wide") -> RunRecord:
    with world.database.read() as connection:
        found = runs.get_run(connection, number_of("run", run_of(world, experiment, variant).id))
    assert found is not None
    return found


def worker_of(world: World, variant: str = "wide") -> tuple[str, Worker]:
    """The newest of the variant."""
    return [(k, w) for k, w in world.workers.items() if w.assignment.variant == variant][-1]


def leave(world: World, code: ExitCode, turns: int = 3) -> None:
    """The newest worker of `wide` trains for some turns and ends so."""
    for _ in range(turns):
        world.turn()
    key, worker = worker_of(world)
    assert worker.exited is None
    world.leave(key, worker, code, message="as it is")


def crash_at(world: World, step: int) -> None:
    """The newest worker of `wide` crashes once it has come to the step."""
    for _ in range(100):
        world.turn()
        key, worker = worker_of(world)
        if worker.exited is None and worker.step >= step:
            world.end(key, worker, 1)
            tick(world.context)
            return
    raise AssertionError(f"no worker came to step {step}")


def test_the_event_says_why_it_ended_what_follows_and_when(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    key, worker = worker_of(world)
    world.end(key, worker, -9)
    tick(world.context)
    (said,) = events(world, experiment, "retry")
    assert "(crashed: the worker was killed: ended by SIGKILL) at step 60" in said
    assert "another follows from the newest checkpoint, not before 00:00:06 UTC" in said


def test_a_run_that_comes_far_enough_may_break_more_often(world: World) -> None:
    """A window over steps: the spec allows one restart in 20 of them."""
    experiment = world.submit(retries={"restarts": 1, "within_steps": 20})
    for step in (20, 60, 140, 180, 240, 280):
        crash_at(world, step)
    assert world.run_to_end(experiment) == "succeeded"
    run = run_of(world, experiment)
    assert run.status == "succeeded"
    assert run.attempts >= 7


def test_one_break_too_many_in_the_window_ends_the_run(world: World) -> None:
    experiment = world.submit(retries={"restarts": 1, "within_steps": 50})
    crash_at(world, 20)
    crash_at(world, 60)
    run = run_of(world, experiment)
    assert (run.status, run.reason) == ("failed", "crashed")
    assert "2 broken attempts in 50 steps; at most 1 are restarted" in (run.detail or "")


def with_rows(monkeypatch: pytest.MonkeyPatch, world: World, rows: int | None) -> None:
    """The trainer kind says how many rows its passes have."""
    kind = world.context.trainers["builtin"]

    def check(config: JsonObject) -> Any:
        return worlds.check(config).model_copy(update={"rows_per_pass": rows})

    world.context = replace(world.context, trainers={"builtin": replace(kind, check=check)})


def test_an_out_of_memory_is_tried_once_more_in_more_passes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rows(monkeypatch, world, 8)
    experiment = world.submit(retries={"out_of_memory": "accumulate"})
    leave(world, ExitCode.OUT_OF_MEMORY)
    assert row_of(world, experiment).memory_factor == 2
    assert "each step in 2 times as many passes, at once" in events(world, experiment, "retry")[0]
    for _ in range(3):
        world.turn()
    key, worker = worker_of(world)
    assert worker.assignment.memory_factor == 2
    world.leave(key, worker, ExitCode.OUT_OF_MEMORY)
    run = run_of(world, experiment)
    assert (run.status, run.reason, run.attempts) == ("failed", "out_of_memory", 2)


@pytest.mark.parametrize("rows", [None, 1])
def test_what_cannot_be_divided_is_not_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, rows: int | None
) -> None:
    with_rows(monkeypatch, world, rows)
    experiment = world.submit(retries={"out_of_memory": "accumulate"})
    leave(world, ExitCode.OUT_OF_MEMORY)
    run = run_of(world, experiment)
    assert (run.status, run.reason, run.attempts) == ("failed", "out_of_memory", 1)
    assert "cannot be divided any further" in (run.detail or "")


def test_a_full_disk_is_tried_again_a_minute_later(world: World) -> None:
    experiment = world.submit()
    leave(world, ExitCode.DISK_FULL)
    due = row_of(world, experiment).not_before
    assert due == world.now + timedelta(minutes=1)
    assert world.run_to_end(experiment) == "succeeded"
    assert run_of(world, experiment).attempts >= 2


def test_nothing_is_started_while_the_disk_is_full_and_it_is_said_once(world: World) -> None:
    world.free_bytes = 2**20
    experiment = world.submit()
    for _ in range(20):
        world.turn()
    assert not world.machine.starts
    assert {r.status for r in list_runs(world.context, experiment, limit=9, cursor=None).items} == {"pending"}
    world.free_bytes = 2**40
    assert world.run_to_end(experiment) == "succeeded"
    short, room = events(world, experiment, "disk")
    assert "0.00 GiB free" in short
    assert "no worker is started" in short
    assert "started again" in room


def test_what_could_not_be_told_of_the_disk_is_told_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may lie on the same disk."""
    experiment = world.submit()
    world.free_bytes = 2**20
    tell_all, failures = disk.tell_all, [1, 2]

    def full(context: Any, kind: str, text: str) -> None:
        if failures:
            failures.pop()
            raise Busy("the disk of the database is full")
        tell_all(context, kind, text)

    monkeypatch.setattr(disk, "tell_all", full)
    for _ in range(2):
        with pytest.raises(Busy):
            tick(world.context)
    tick(world.context)
    assert not world.machine.starts
    assert len(events(world, experiment, "disk")) == 1


def test_an_intent_outlives_a_disk_that_fills_up(world: World) -> None:
    world.machine.is_unreachable = True
    experiment = world.submit()
    tick(world.context)
    world.free_bytes = 0
    world.hang(300)
    world.machine.is_unreachable = False
    world.hang(30)
    assert not world.machine.starts
    world.free_bytes = 2**40
    assert world.run_to_end(experiment) == "succeeded"
    first = list_attempts(world.context, number_of("run", run_of(world, experiment, "base").id)).items[0]
    assert first.reason != "engine_error"


def test_a_disk_that_does_not_answer_has_no_room(world: World) -> None:
    def broken() -> int:
        raise OSError("stale file handle")

    world.context = replace(world.context, free_bytes=broken)
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    assert not world.machine.starts
    assert "does not answer" in events(world, experiment, "disk")[0]


@pytest.mark.parametrize("where", ["_apply", "load", "due_actions"])
def test_an_experiment_that_raises_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    poisoned = world.submit(name="poisoned")
    healthy = world.submit(name="healthy", base={"width": 6})

    if where == "_apply":
        inner = settle._apply

        def apply(connection: Any, context: Any, action: Any) -> None:
            inner(connection, context, action)
            if action.experiment_id == poisoned:
                raise RuntimeError("a bug of its own")

        monkeypatch.setattr(settle, "_apply", apply)
    elif where == "load":
        from orchestrator.services import snapshot

        view = snapshot._view

        def broken_view(connection: Any, experiment: Any, *rest: Any) -> Any:
            if experiment.id == poisoned:
                raise RuntimeError("a bug of its own")
            return view(connection, experiment, *rest)

        monkeypatch.setattr(snapshot, "_view", broken_view)
    else:
        from orchestrator.rules import plan

        settling = plan.plan_settling

        def broken_plan(found: Any) -> Any:
            if found.id == poisoned:
                raise RuntimeError("a bug of its own")
            return settling(found)

        monkeypatch.setattr(plan, "plan_settling", broken_plan)
        monkeypatch.setattr(settle, "plan_settling", broken_plan)
    assert world.run_to_end(healthy) == "succeeded"
    assert get_experiment(world.context, poisoned).status == "running"
    (said,) = events(world, poisoned, "poison")
    assert "RuntimeError: a bug of its own" in said
    assert not events(world, healthy, "poison")
    monkeypatch.undo()
    assert world.run_to_end(poisoned) == "succeeded"


def test_a_spooled_report_that_raises_does_not_hold_up_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.protocol.report import Phase, Report
    from orchestrator.services import backfill

    experiment = world.submit()
    for _ in range(3):
        world.turn()
    key, worker = worker_of(world)
    report = Report(
        epoch=worker.assignment.epoch, sequence=worker.sequence + 1, phase=Phase.TRAINING, step=40
    )
    (Path(worker.assignment.directory) / "spool.jsonl").write_text(report.model_dump_json() + "\n")

    def broken(*_: object) -> None:
        raise RuntimeError("a bug of its own")

    monkeypatch.setattr(backfill, "take_in", broken)
    world.end(key, worker, -9)
    tick(world.context)
    assert list_attempts(world.context, number_of("run", worker.assignment.run_id)).items[0].status == "ended"
    assert any("RuntimeError: a bug of its own" in text for text in events(world, experiment, "spool"))


@pytest.mark.parametrize("where", ["its spool", "the retry rule"])
def test_an_attempt_whose_end_raises_is_told_once_and_parked_after_a_lease(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from orchestrator.services import backfill, ending, reap

    experiment = world.submit()
    for _ in range(3):
        world.turn()
    key, worker = worker_of(world)
    raised = count(1)
    bad = row_of(world, experiment).id
    take_in, history = backfill.backfill, ending.history_of

    def broken_spool(context: Any, attempt: Any) -> None:
        if attempt.key == key:
            raise RuntimeError(f"a bug of its own, with another text each time: {next(raised)}")
        take_in(context, attempt)

    def broken_rule(run: Any, tried: Any) -> Any:
        if run.id == bad:
            raise RuntimeError("a bug of its own")
        return history(run, tried)

    if where == "its spool":
        monkeypatch.setattr(reap, "backfill", broken_spool)
    else:
        monkeypatch.setattr(ending, "history_of", broken_rule)
    world.end(key, worker, 1)
    world.hang(60)
    assert run_of(world, experiment).status == "running"
    assert world.run_to_end(experiment) in {"succeeded", "failed"}
    (said,) = events(world, experiment, "poison")
    assert "RuntimeError: a bug of its own" in said
    found = list_attempts(world.context, number_of("run", worker.assignment.run_id)).items
    assert (found[0].status, found[0].reason) == ("ended", "engine_error")
    assert "a bug of its own" in (found[0].detail or "")
    if where == "its spool":
        assert len(found) > 1
    else:
        assert (run_of(world, experiment).status, len(found)) == ("failed", 1)
    tick(world.context)
    with world.database.read() as connection:
        assert not [a for a in runs.unseen_ends(connection) if a.key == key]  # its slots are free again


def test_nobody_is_woken_before_the_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def refuse(key: str, spec: WorkerSpec) -> Handle:
        raise EngineError("no such partition", transient=False)

    def look() -> None:
        with world.database.read() as connection:
            seen.append(all(a.reason for a in runs.attempts_of(connection, 1)))

    monkeypatch.setattr(world.context.engine, "submit", refuse)
    world.submit()
    world.context = replace(world.context, wake=look)
    world.hang(100)
    assert seen
    assert all(seen)


def test_a_report_that_ends_an_attempt_wakes_after_its_commit(world: World) -> None:
    world.submit()
    for _ in range(3):
        world.turn()
    key, worker = worker_of(world)
    seen: list[str | None] = []

    def look() -> None:
        with world.database.read() as connection:
            attempt = runs.get_attempt(connection, number_of("att", worker.assignment.attempt_id))
        seen.append(None if attempt is None else attempt.reason)

    world.context = replace(world.context, wake=look)
    world.leave(key, worker, ExitCode.PREEMPTED)
    assert seen == ["preempted"]
