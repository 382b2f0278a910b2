"""What breaks, and what the rows say afterwards."""

import errno
import math
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select
from worlds import Worker, World, check, falling

from orchestrator.domain.errors import Conflict, StaleEpoch
from orchestrator.domain.ids import number_of
from orchestrator.engines.base import EngineError, Handle, WorkerSpec
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.report import Answer, DirectiveKind, Phase, Report
from orchestrator.protocol.wire import JsonObject
from orchestrator.services import launch, override
from orchestrator.services.ingest import authorize, ingest
from orchestrator.services.query import get_experiment, list_attempts, list_decisions, list_events, list_runs
from orchestrator.services.reconcile import tick
from orchestrator.services.views import RunView
from orchestrator.store import reports
from orchestrator.store.database import Database
from orchestrator.store.tables import events

BETTER = falling({"wide": -0.20, "wider": -0.10, "slow": 0.30})
ALONE = [{"name": "only", "steps": 200, "variants": {"base": {}}}]
Decided = tuple[str, str, int, str, str, str]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home", loss=BETTER)


def runs_of(world: World, experiment: int) -> dict[str, RunView]:
    return {r.variant: r for r in list_runs(world.context, experiment, limit=500, cursor=None).items}


def decided(world: World, experiment: int) -> set[Decided]:
    found = list_decisions(
        world.context, experiment_id=experiment, run_id=None, kinds=(), limit=500, cursor=None
    ).items
    return {(d.variant, d.stage, d.step, d.kind, d.reason, d.text) for d in found}


def first_worker(world: World) -> Worker:
    world.turn()
    return next(iter(world.workers.values()))


@pytest.mark.parametrize("turns", [1, 3, 6, 9, 14, 20])
def test_a_service_that_is_killed_and_started_again_decides_the_same(
    database: Database, tmp_path: Path, turns: int
) -> None:
    calm = World(database, tmp_path / "calm", loss=BETTER)
    undisturbed = calm.submit()
    calm.run_to_end(undisturbed)
    shaken = World(database, tmp_path / "shaken", loss=BETTER)
    experiment = shaken.submit()
    for _ in range(turns):
        shaken.turn()
        shaken.restart()
    shaken.run_to_end(experiment)
    assert decided(shaken, experiment) == decided(calm, undisturbed)


def test_a_killed_worker_goes_on_from_its_checkpoint(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    key, worker = next(iter(world.workers.items()))
    world.end(key, worker, -9)
    assert world.run_to_end(experiment) == "succeeded"
    run = runs_of(world, experiment)["base"]
    attempts = list_attempts(world.context, number_of("run", run.id)).items
    assert attempts[0].reason == "crashed"
    assert attempts[1].resumed_from_step == worker.step > 0


def test_a_worker_that_is_gone_without_a_trace_is_lost_and_resumed(world: World) -> None:
    experiment = world.submit()
    for _ in range(4):
        world.turn()
    world.machine.lose(next(iter(world.workers)))
    assert world.run_to_end(experiment) == "succeeded"
    run = runs_of(world, experiment)["base"]
    assert list_attempts(world.context, number_of("run", run.id)).items[0].reason == "lost"


def test_two_deaths_without_progress_fail_the_run_and_with_all_of_them_the_experiment(world: World) -> None:
    experiment = world.submit()
    for _ in range(60):
        tick(world.context)
        world.adopt()
        for key, worker in world.workers.items():
            if worker.exited is None:
                world.end(key, worker, 1)
        world.wait(10)
        if get_experiment(world.context, experiment).status == "failed":
            break
    found = get_experiment(world.context, experiment)
    assert found.status == "failed"
    assert "control ended before the gate" in (found.conclusion or "")
    runs = runs_of(world, experiment)
    assert {(run.status, run.reason) for run in runs.values()} == {("failed", "crashed")}
    assert "without progress" in (runs["base"].detail or "")
    assert {stage.status for stage in found.stages} == {"closed"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ExitCode.CONFIG_ERROR, "config_error"),
        (ExitCode.DATA_ERROR, "data_error"),
        (ExitCode.OUT_OF_MEMORY, "out_of_memory"),
    ],
)
def test_what_would_end_the_same_way_is_not_tried_again(world: World, code: ExitCode, reason: str) -> None:
    experiment = world.submit()
    world.turn()
    key, worker = next((k, w) for k, w in world.workers.items() if w.assignment.variant == "wide")
    world.leave(key, worker, code, message="the field and the fix")
    assert world.run_to_end(experiment) == "succeeded"
    run = runs_of(world, experiment)["wide"]
    assert (run.status, run.reason, run.attempts) == ("failed", reason, 1)
    assert "the field and the fix" in (run.detail or "")
    kinds = {kind for variant, _, _, kind, _, _ in decided(world, experiment) if variant == "wide"}
    assert kinds == {"fail"}


def test_a_nan_loss_is_retried_once_from_the_last_good_checkpoint_and_then_fails(
    database: Database, tmp_path: Path
) -> None:
    def loss(variant: str, seed: int, step: int) -> float:
        return math.nan if variant == "wide" and step >= 60 else BETTER(variant, seed, step)

    world = World(database, tmp_path / "home", loss=loss)
    experiment = world.submit()
    assert world.run_to_end(experiment) == "succeeded"
    run = runs_of(world, experiment)["wide"]
    assert (run.status, run.reason, run.attempts) == ("failed", "diverged", 2)
    attempts = list_attempts(world.context, number_of("run", run.id)).items
    assert attempts[1].resumed_from_step == 40


def test_a_preempted_worker_is_started_again_at_once(world: World) -> None:
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    key, worker = next(iter(world.workers.items()))
    world.leave(key, worker, ExitCode.PREEMPTED)
    world.turn()
    assert runs_of(world, experiment)[worker.assignment.variant].attempts == 2


def test_a_run_that_was_set_back_and_trained_is_tried_again(world: World) -> None:
    """Lost at 80 without a checkpoint past 20, lost again at 60: 40 steps were trained between."""
    experiment = world.submit(stages=ALONE)
    for _ in range(5):
        world.turn()
    key, worker = next(iter(world.workers.items()))
    assert worker.step == 80
    worker.reported = [20]
    world.end(key, worker, -9)
    for _ in range(20):
        world.turn()
        last = list(world.workers.values())[-1]
        if last is not worker and last.step == 60:
            break
    world.end(list(world.workers)[-1], last, -9)
    assert world.run_to_end(experiment) == "succeeded"
    attempts = list_attempts(world.context, number_of("run", runs_of(world, experiment)["base"].id)).items
    assert [(a.reason, a.resumed_from_step) for a in attempts[:2]] == [("crashed", 0), ("crashed", 20)]


def test_a_worker_that_is_preempted_ten_times_before_its_first_step_goes_on(world: World) -> None:
    experiment = world.submit(stages=ALONE)
    seen = 0
    for _ in range(300):
        tick(world.context)
        world.adopt()
        for key, worker in list(world.workers.items())[seen:]:
            world.leave(key, worker, ExitCode.PREEMPTED)
            seen += 1
        world.wait(5)
        if seen == 10:
            break
    assert seen == 10
    assert world.now - datetime(2026, 1, 1, tzinfo=UTC) > timedelta(minutes=2)
    assert world.run_to_end(experiment, turns=400) == "succeeded"


def test_a_key_that_was_in_use_says_nothing_of_how_the_attempt_before_it_ended(world: World) -> None:
    kind = world.context.trainers["builtin"]

    def with_rows(config: JsonObject) -> ConfigFacts:
        return check(config).model_copy(update={"rows_per_pass": 8})

    trainers = {"builtin": replace(kind, check=with_rows)}
    world.context = replace(world.context, trainers=trainers)
    experiment = world.submit(stages=ALONE, retries={"out_of_memory": "accumulate"})
    worker = first_worker(world)
    folder = Path(worker.assignment.directory)
    (folder.parent / "2").mkdir()
    (folder.parent / "2" / "assignment.json").write_text("{}")
    world.leave(next(iter(world.workers)), worker, ExitCode.OUT_OF_MEMORY)
    assert world.run_to_end(experiment) == "succeeded"
    attempts = list_attempts(world.context, number_of("run", runs_of(world, experiment)["base"].id)).items
    assert [a.reason for a in attempts[:2]] == ["out_of_memory", "stale_epoch"]
    assert {w.assignment.memory_factor for w in list(world.workers.values())[1:]} == {2}


def test_a_report_again_changes_nothing_and_another_under_its_key_is_refused(world: World) -> None:
    world.submit()
    worker = first_worker(world)
    attempt = number_of("att", worker.assignment.attempt_id)
    report = Report(
        epoch=worker.assignment.epoch,
        sequence=2,
        phase=Phase.TRAINING,
        step=20,
        evaluations=(worker.evaluation(20),),
    )
    first = ingest(world.context, attempt, report)
    before = decided(world, 1)
    assert ingest(world.context, attempt, report) == first
    assert decided(world, 1) == before
    with pytest.raises(Conflict, match="sequence 2"):
        ingest(world.context, attempt, report.model_copy(update={"step": 21}))


def test_another_value_for_a_reported_step_is_refused(world: World) -> None:
    world.submit()
    worker = first_worker(world)
    attempt = number_of("att", worker.assignment.attempt_id)
    shared = {"epoch": worker.assignment.epoch, "phase": Phase.TRAINING, "step": 20}
    evaluation = worker.evaluation(20)
    ingest(world.context, attempt, Report(sequence=2, evaluations=(evaluation,), **shared))
    other = evaluation.model_copy(update={"eval_loss": 1.0})
    ingest(world.context, attempt, Report(sequence=3, evaluations=(other,), **shared))
    with world.database.read() as connection:
        kept = reports.stored_evaluation(connection, attempt, 20)
        told = connection.execute(select(events.c.text).where(events.c.kind == "conflict")).scalars().all()
    assert kept == evaluation
    assert len(told) == 1
    assert "another evaluation of step 20" in told[0]


def test_an_attempt_that_lost_its_lease_is_fenced_off(world: World) -> None:
    world.submit()
    worker = first_worker(world)
    attempt = number_of("att", worker.assignment.attempt_id)
    world.machine.lose(next(iter(world.workers)))
    tick(world.context)
    late = Report(epoch=worker.assignment.epoch, sequence=9, phase=Phase.TRAINING, step=5)
    with pytest.raises(StaleEpoch):
        ingest(world.context, attempt, late)


def test_a_wrong_epoch_is_fenced_off(world: World) -> None:
    world.submit()
    worker = first_worker(world)
    attempt = number_of("att", worker.assignment.attempt_id)
    report = Report(epoch=worker.assignment.epoch + 1, sequence=9, phase=Phase.TRAINING, step=5)
    with pytest.raises(StaleEpoch):
        ingest(world.context, attempt, report)


def test_a_silent_worker_is_cancelled_and_resumed(world: World) -> None:
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    key = next(iter(world.workers))
    world.hang(120)
    assert world.machine.workers[key].signals
    assert world.run_to_end(experiment) == "succeeded"


def test_a_long_pause_of_the_service_loses_nobody(world: World) -> None:
    world.submit()
    for _ in range(3):
        world.turn()
    world.wait(3600)
    world.restart()
    tick(world.context)
    assert not any(worker.signals for worker in world.machine.workers.values())


def test_an_engine_that_cannot_tell_is_not_read_as_dead(world: World) -> None:
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    world.machine.hidden = set(world.workers)
    world.hang(600)
    assert {run.attempts for run in runs_of(world, experiment).values()} == {0, 1}


def test_submitted_but_an_error_was_answered_is_still_one_worker(world: World) -> None:
    world.machine.submit_failures = [True]
    experiment = world.submit()
    assert world.run_to_end(experiment) == "succeeded"
    assert len(world.machine.starts) == len(set(world.machine.starts))


def test_an_engine_that_is_away_for_a_moment_delays_the_start(world: World) -> None:
    world.machine.submit_failures = [False, False]
    experiment = world.submit()
    assert world.run_to_end(experiment) == "succeeded"


def test_free_room_that_wavers_around_the_limit_is_said_once(world: World) -> None:
    experiment, least = world.submit(), world.context.limits.min_free_bytes
    for part in (0.99, 1.01, 0.98, 1.09, 1.0):
        world.free_bytes = int(least * part)
        world.turn()
    assert not world.machine.starts
    world.free_bytes = int(least * 1.11)
    world.turn()
    world.free_bytes = int(least * 1.01)
    world.turn()
    said = [
        e.text for e in list_events(world.context, experiment, after=0, limit=99).items if e.kind == "disk"
    ]
    assert [text.rpartition(": ")[2] for text in said] == [
        "no worker is started",
        "workers are started again",
    ]
    assert world.run_to_end(experiment) == "succeeded"


def waited(world: World, experiment: int) -> list[str]:
    found = list_events(world.context, experiment, after=0, limit=500).items
    return [event.text for event in found if event.kind == "outage"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_home_that_takes_no_files_for_an_hour_fails_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No inodes, a quota, a file system that went read-only: the bytes that are free do not tell."""
    experiment, tries = world.submit(), count(1)

    def refused(file: Path, text: str, token: str) -> Path:
        next(tries)
        raise OSError(number, os.strerror(number), str(file))

    with monkeypatch.context() as broken:
        broken.setattr(launch, "_write_private", refused)
        world.hang(3600)
    assert next(tries) < 2 * 80  # of two attempts: once a minute, after the first few
    assert {run.status for run in runs_of(world, experiment).values()} == {"starting", "pending"}
    (said,) = waited(world, experiment)
    assert os.strerror(number) in said
    world.hang(60)
    assert len(world.machine.workers) == 2
    assert world.run_to_end(experiment) == "succeeded"
    assert {key.rpartition("-")[2] for key in list(world.workers)[:4]} == {"1"}


def test_an_engine_that_is_away_for_hours_fails_no_run(world: World) -> None:
    experiment = world.submit()
    world.machine.is_unreachable = True
    world.hang(7200)
    assert {run.status for run in runs_of(world, experiment).values()} == {"starting", "pending"}
    assert {run.attempts for run in runs_of(world, experiment).values()} == {0, 1}
    assert len(waited(world, experiment)) == 1
    world.machine.is_unreachable = False
    assert world.run_to_end(experiment) == "succeeded"


def test_a_lasting_refusal_ends_the_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key: str, spec: WorkerSpec) -> Handle:
        raise EngineError("no such partition", transient=False)

    experiment = world.submit(stages=ALONE)
    monkeypatch.setattr(world.context.engine, "submit", refuse)
    world.hang(30)
    run = runs_of(world, experiment)["base"]
    assert (run.status, run.reason, run.attempts) == ("failed", "engine_error", 2)
    assert "no such partition" in (run.detail or "")


def test_reports_that_were_only_spooled_are_taken_in_before_the_attempt_is_buried(world: World) -> None:
    experiment = world.submit()
    for _ in range(2):
        world.turn()
    key, worker = next(iter(world.workers.items()))
    worker.step += 20
    report = Report(
        epoch=worker.assignment.epoch,
        sequence=worker.sequence + 1,
        phase=Phase.TRAINING,
        step=worker.step,
        evaluations=(worker.evaluation(worker.step),),
    )
    spool = Path(worker.assignment.directory) / "spool.jsonl"
    spool.write_text(report.model_dump_json() + "\n" + '{"epoch": 1, "seq')
    worker.reported.append(worker.step)
    world.end(key, worker, -9)
    tick(world.context)
    run = runs_of(world, experiment)[worker.assignment.variant]
    assert run.step == worker.step
    said = [e.text for e in list_events(world.context, experiment, after=0, limit=100).items]
    assert any("torn" in text for text in said)


def test_the_exit_file_says_why_when_the_last_report_did_not_come(world: World) -> None:
    experiment = world.submit()
    world.turn()
    key, worker = next((k, w) for k, w in world.workers.items() if w.assignment.variant == "wide")
    record = ExitRecord(code=ExitCode.DATA_ERROR, message="the text is empty: name another file", step=0)
    (Path(worker.assignment.directory) / "exit.json").write_text(record.model_dump_json())
    world.end(key, worker, ExitCode.DATA_ERROR)
    tick(world.context)
    run = runs_of(world, experiment)["wide"]
    assert (run.status, run.reason) == ("failed", "data_error")
    assert "name another file" in (run.detail or "")


def test_cancelling_ends_every_run_and_every_worker(world: World) -> None:
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    override.cancel_experiment(world.context, experiment, "user:ada", "wrong data")
    for _ in range(3):
        world.turn()
    assert {run.status for run in runs_of(world, experiment).values()} == {"cancelled"}
    assert all(worker.state.is_over for worker in world.machine.workers.values())
    assert get_experiment(world.context, experiment).conclusion == "cancelled by user:ada: wrong data"


def test_a_paused_experiment_starts_nothing_and_resumes(world: World) -> None:
    experiment = world.submit()
    override.pause_experiment(world.context, experiment, "user:ada", "")
    for _ in range(3):
        world.turn()
    assert not world.machine.workers
    override.resume_experiment(world.context, experiment, "user:ada", "")
    assert world.run_to_end(experiment) == "succeeded"


def test_a_declined_run_can_be_promoted_by_a_person(world: World) -> None:
    experiment = world.submit()
    while runs_of(world, experiment)["slow"].status != "stopped":
        world.turn()
    run = number_of("run", runs_of(world, experiment)["slow"].id)
    override.promote_run(world.context, run, "user:ada", "I want to see it through")
    assert world.run_to_end(experiment) == "succeeded"
    slow = runs_of(world, experiment)["slow"]
    assert slow.step == 200
    attempts = list_attempts(world.context, run).items
    assert attempts[-1].resumed_from_step == 100
    mine = list_decisions(
        world.context, experiment_id=None, run_id=run, kinds=["promote"], limit=9, cursor=None
    ).items
    assert [(d.author, d.text) for d in mine] == [("user:ada", "I want to see it through")]


def test_a_person_stops_a_run(world: World) -> None:
    experiment = world.submit()
    world.turn()
    run = number_of("run", runs_of(world, experiment)["wide"].id)
    override.stop_run(world.context, run, "user:ada", "not interesting")
    assert world.run_to_end(experiment) == "succeeded"
    found = runs_of(world, experiment)["wide"]
    assert (found.status, found.reason) == ("stopped", "user_stopped")


def test_the_token_of_another_attempt_is_refused(world: World) -> None:
    from orchestrator.domain.errors import NotAllowed

    world.submit()
    world.turn()
    one, other = list(world.workers.values())[:2]
    assert one.assignment.service is not None
    assert other.assignment.service is not None
    attempt = number_of("att", one.assignment.attempt_id)
    authorize(world.context, attempt, one.assignment.service.token)
    with pytest.raises(NotAllowed):
        authorize(world.context, attempt, other.assignment.service.token)


def test_a_worker_at_its_gate_waits_while_slots_are_free(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path / "home", slots=8, loss=BETTER)
    world.submit()
    world.turn()
    worker = next(w for w in world.workers.values() if w.assignment.variant == "wide")
    answer: Answer | None = None
    while worker.step < 100:
        worker.advance(world.context)
        answer = worker.answer
    assert answer is not None
    assert answer.directive.kind is DirectiveKind.WAIT
    worker.ask(world.context)
    assert worker.answer is not None
    assert worker.answer.directive.kind is DirectiveKind.WAIT
