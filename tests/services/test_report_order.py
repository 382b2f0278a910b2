"""Any order and repetition of one attempt's reports leaves the same rows and the same decisions."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from worlds import Worker, World

from orchestrator.domain.errors import Conflict, StaleEpoch
from orchestrator.domain.ids import number_of
from orchestrator.domain.lifecycle import RunStatus
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import Heartbeat, PassedOver, Phase, Point, Report
from orchestrator.services.ingest import heartbeat, ingest
from orchestrator.services.reconcile import tick
from orchestrator.store import reports, runs
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from orchestrator.store.records import AttemptRecord, RunRecord
from orchestrator.store.tables import attempts, checkpoints, decisions, evaluations, events, points
from orchestrator.store.tables import reports as stored_reports

TABLES = (attempts, evaluations, points, checkpoints, decisions)
TIMES = {"created_at", "lease_expires_at", "progress_at", "ended_at", "id", "token_hash", "directory"}


def begun(database: Database, folder: Path) -> tuple[World, Worker]:
    """A worker that has been started and has said nothing yet."""
    world = World(database, folder / "home", slots=1)
    world.submit()
    tick(world.context)
    world.adopt()
    return world, next(iter(world.workers.values()))


def told(worker: Worker, sequence: int, step: int, **changes: Any) -> Report:
    body = {"epoch": worker.assignment.epoch, "sequence": sequence, "phase": Phase.TRAINING, "step": step}
    return Report.model_validate(body | changes)


def start_of(worker: Worker) -> Report:
    return told(worker, 1, 0, phase=Phase.STARTING, resumed_from_step=0, identity=worker.identity())


def life(worker: Worker, *, loss: float, end: ExitCode) -> list[Report]:
    """A start, evaluations with points between, a loss of its own at step 60, and an exit."""
    sent = [start_of(worker)]
    for step in (20, 40, 60):
        at = worker.evaluation(step)
        measured = at.model_copy(update={"eval_loss": loss}) if step == 60 else at
        own = tuple(Point(step=s, name="train_loss", value=1 / s) for s in range(step - 19, step + 1))
        sent.append(told(worker, len(sent) + 1, step - 5, points=own[:10]))
        saved = {"step": step, "path": f"/{step}", "manifest_sha256": "0" * 64, "size_bytes": 1}
        parts = {"evaluations": (measured,), "points": own[10:], "checkpoints": (saved,)}
        sent.append(told(worker, len(sent) + 1, step, **parts))
    record = ExitRecord(code=end, message="so it ended", step=60)
    return [*sent, told(worker, len(sent) + 1, 60, phase=Phase.ENDED, exit=record)]


def rows(world: World) -> dict[str, list[Any]]:
    """Every row, but for times and for what a world draws anew."""
    found: dict[str, list[Any]] = {}
    with world.database.read() as connection:
        for table in TABLES:
            columns = [column for column in table.columns if column.name not in TIMES]
            found[table.name] = sorted(map(repr, connection.execute(select(*columns))))
        run = runs.get_run(connection, 1)
    assert run is not None
    found["run"] = [run.status, run.reason, run.step, run.tokens_per_second, run.resume_at_most, run.detail]
    return found


def sent_in(order: Sequence[int], folder: str, loss: float, end: ExitCode) -> dict[str, list[Any]]:
    database = Database(f"sqlite:///{folder}/assay.sqlite3")
    upgrade(database)
    world, worker = begun(database, Path(folder))
    sent = life(worker, loss=loss, end=end)
    for place in order:
        try:
            ingest(world.context, number_of("att", worker.assignment.attempt_id), sent[place])
        except StaleEpoch:
            assert loss != loss  # it diverged, and what it says afterwards is refused
    found = rows(world)
    database.close()
    return found


@cache
def in_order(loss: float, end: ExitCode) -> dict[str, list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return sent_in(range(8), folder, loss, end)


@settings(
    max_examples=5, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(
    order=st.permutations([*range(8), 0, 3, 6, 7]),
    end=st.sampled_from([ExitCode.PREEMPTED, ExitCode.CRASHED]),
)
def test_any_order_and_repetition_leaves_the_same_rows(order: list[int], end: ExitCode) -> None:
    expected = in_order(2.5, end)
    assert [len(expected[name]) for name in ("points", "evaluations", "decisions")] == [60, 3, 3]
    with tempfile.TemporaryDirectory() as folder:
        assert sent_in(order, folder, 2.5, end) == expected


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5, 6, 7, 0), (7, 6, 5, 4, 3, 2, 1, 0), (0, 6, 2, 1, 4, 3, 5)])
def test_a_divergence_is_decided_alike_whenever_the_rest_comes(order: tuple[int, ...]) -> None:
    diverged = in_order(float("nan"), ExitCode.DIVERGED)
    with tempfile.TemporaryDirectory() as folder:
        found = sent_in(order, folder, float("nan"), ExitCode.DIVERGED)
    assert found["decisions"] == diverged["decisions"]
    assert found["run"] == diverged["run"]
    assert len(diverged["decisions"]) == 3


def row_of(world: World, worker: Worker) -> tuple[AttemptRecord, RunRecord]:
    with world.database.read() as connection:
        found = reports.standing(connection, number_of("att", worker.assignment.attempt_id))
    assert found is not None
    return found.attempt, found.run


def test_a_late_start_sets_the_run_back_no_step(database: Database, tmp_path: Path) -> None:
    world, worker = begun(database, tmp_path)
    number = number_of("att", worker.assignment.attempt_id)
    for sequence, step in ((3, 30), (2, 15)):
        assert ingest(world.context, number, told(worker, sequence, step)).acknowledged == 0
    assert ingest(world.context, number, start_of(worker)).acknowledged == 3
    attempt, run = row_of(world, worker)
    assert (attempt.step, run.step, attempt.resumed_from_step, attempt.phase) == (30, 30, 0, "training")
    assert run.status == "running"


def test_an_exit_that_comes_early_is_taken_when_the_gap_is_filled(database: Database, tmp_path: Path) -> None:
    world, worker = begun(database, tmp_path)
    number = number_of("att", worker.assignment.attempt_id)
    ingest(world.context, number, start_of(worker))
    record = ExitRecord(code=ExitCode.CONFIG_ERROR, message="width: too wide", step=0)
    ingest(world.context, number, told(worker, 3, 0, phase=Phase.ENDED, exit=record))
    assert row_of(world, worker)[0].status == "launched"
    ingest(world.context, number, told(worker, 2, 0, notes=("nearly there",)))
    attempt, run = row_of(world, worker)
    assert (attempt.status, attempt.exit_code, attempt.detail) == ("ended", 20, "width: too wide")
    assert (run.status, run.reason) == ("failed", "config_error")


def test_a_report_stored_by_the_version_before_is_known_again(database: Database, tmp_path: Path) -> None:
    world, worker = begun(database, tmp_path)
    number = number_of("att", worker.assignment.attempt_id)
    sent = start_of(worker)
    ingest(world.context, number, sent)
    body = json.loads(sent.model_dump_json())
    assert body.pop("passed_over") == []  # the one field that it did not know
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    with database.write() as connection:
        old = hashlib.sha256(text.encode()).digest()
        connection.execute(stored_reports.update().values(body_sha256=old))
    assert ingest(world.context, number, sent).acknowledged == 1
    passed = PassedOver(step=5, path="/5", problem="torn")
    with pytest.raises(Conflict):
        ingest(world.context, number, sent.model_copy(update={"passed_over": (passed,)}))
    with pytest.raises(Conflict):
        ingest(world.context, number, told(worker, 1, 1))


def test_what_was_passed_over_is_a_decision_once(database: Database, tmp_path: Path) -> None:
    world, worker = begun(database, tmp_path)
    number = number_of("att", worker.assignment.attempt_id)
    passed = PassedOver(step=40, path="/40", problem="its manifest is torn")
    sent = start_of(worker).model_copy(update={"passed_over": (passed,)})
    for _ in range(2):
        ingest(world.context, number, sent)
    with database.read() as connection:
        found = connection.execute(select(decisions.c.kind, decisions.c.text)).all()
    assert [kind for kind, _ in found] == ["fall_back"]
    assert "its manifest is torn" in found[0].text


def test_progress_is_a_step_a_phase_or_a_gate_and_no_mere_heartbeat(either: Database, tmp_path: Path) -> None:
    world, worker = begun(either, tmp_path)
    number, epoch = number_of("att", worker.assignment.attempt_id), worker.assignment.epoch

    def beat(phase: Phase, step: int) -> bool:
        """Whether it counted as progress; the lease is renewed each time."""
        world.wait(10)
        heartbeat(world.context, number, Heartbeat(epoch=epoch, phase=phase, step=step))
        attempt = row_of(world, worker)[0]
        assert attempt.lease_expires_at == world.now + world.context.limits.lease
        return attempt.progress_at == world.now

    said = [(Phase.STARTING, 0), (Phase.STARTING, 0), (Phase.TRAINING, 0), (Phase.TRAINING, 0)]
    assert [beat(*words) for words in said] == [True, False, True, False]
    said = [(Phase.TRAINING, 5), (Phase.TRAINING, 5), (Phase.TRAINING, 4)]
    assert [beat(*words) for words in said] == [True, False, False]
    assert [beat(Phase.AT_GATE, 5) for _ in range(3)] == [True, False, False]  # its run is not at it
    with either.write() as connection:
        run = row_of(world, worker)[1]
        runs.change_run(connection, run, status=RunStatus.AT_GATE)
    assert [beat(Phase.AT_GATE, 5) for _ in range(3)] == [True, True, True]
    with either.write() as connection:
        runs.change_run(connection, row_of(world, worker)[1], status=RunStatus.RUNNING)
    world.wait(10)
    ingest(world.context, number, start_of(worker))
    assert row_of(world, worker)[0].phase == "starting"
    world.wait(10)
    ingest(world.context, number, told(worker, 2, 9))
    again = row_of(world, worker)[0].progress_at
    assert again == world.now
    world.wait(10)
    ingest(world.context, number, told(worker, 3, 9, notes=("still here",)))
    assert row_of(world, worker)[0].progress_at == again


def test_a_report_that_contradicts_the_rows_leaves_no_gap(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path / "home", slots=4)
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    worker = next(iter(world.workers.values()))
    other = worker.evaluation(worker.step).model_copy(update={"eval_loss": 99.0})
    wrong = (Point(step=1, name="train_loss", value=1e9), Point(step=1, name="own", value=2.0))
    for _ in range(2):  # the same again adds nothing, and no second event
        assert worker.report(world.context, points=wrong, evaluations=(other,)).acknowledged == 4
        worker.sequence -= 1
    worker.sequence += 1
    with database.read() as connection:
        told = connection.execute(select(events.c.text).where(events.c.kind == "conflict")).scalars().all()
        own = reports.load_series(connection, 1, "own")
        first = reports.load_series(connection, 1, "train_loss")[0]
    assert [text.split(": ")[0] for text in told] == ["report 4 of attempt 1"] * 2
    assert ["another evaluation of step 40" in text for text in told] == [True, False]
    assert "another value of train_loss is stored for step 1 " in told[1]
    assert own == [(1, 2.0)]
    assert first[1] < 99
    assert world.run_to_end(experiment) == "succeeded"


def test_a_worker_at_a_gate_that_its_run_never_reached_is_ended_and_tried_again(
    either: Database, tmp_path: Path
) -> None:
    """Its report with the evaluation of the gate was refused, and something short came in its place."""
    world, worker = begun(either, tmp_path)
    number = number_of("att", worker.assignment.attempt_id)
    ingest(world.context, number, start_of(worker))
    ingest(world.context, number, told(worker, 2, 100, phase=Phase.AT_GATE, notes=("refused",)))
    beat = Heartbeat(epoch=worker.assignment.epoch, phase=Phase.AT_GATE, step=100)
    told_at = world.now
    while row_of(world, worker)[0].status != "ended":
        assert heartbeat(world.context, number, beat).directive.kind == "continue"
        world.wait(20)
        tick(world.context)
        assert world.now - told_at < 2 * world.context.limits.progress
    assert row_of(world, worker)[0].reason == "stalled"
    assert row_of(world, worker)[1].status == "pending"


def test_what_came_instead_of_a_refused_report_stands_against_the_spool(
    either: Database, tmp_path: Path
) -> None:
    world, worker = begun(either, tmp_path)
    number = number_of("att", worker.assignment.attempt_id)
    sent = [start_of(worker), told(worker, 2, 20, evaluations=(worker.evaluation(20),)), told(worker, 3, 25)]
    for report in (sent[0], sent[1].model_copy(update={"evaluations": ()}), told(worker, 4, 30)):
        ingest(world.context, number, report)  # 2 was cut short; 4 waits for 3
    lines = [report.model_dump_json(exclude_defaults=True) for report in [*sent, told(worker, 4, 31)]]
    (Path(worker.assignment.directory) / "spool.jsonl").write_text("".join(f"{line}\n" for line in lines))
    world.machine.exit(next(iter(world.workers)), -9)
    tick(world.context)
    attempt, _ = row_of(world, worker)
    assert (attempt.status, attempt.acknowledged, attempt.step) == ("ended", 4, 30)
    with either.read() as connection:
        assert connection.execute(select(events.c.kind).where(events.c.kind == "spool")).all() == []
