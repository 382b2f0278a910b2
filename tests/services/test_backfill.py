"""What a worker spooled and could not deliver: long spools, slices, services that die between two."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection
from worlds import Worker, World

from orchestrator.domain.errors import Busy
from orchestrator.domain.ids import number_of
from orchestrator.protocol.report import Phase, Point, Report
from orchestrator.services import backfill, ingest
from orchestrator.services.query import list_attempts, list_events
from orchestrator.services.reconcile import tick
from orchestrator.services.views import AttemptView
from orchestrator.store import runs
from orchestrator.store.database import Database
from orchestrator.store.records import AttemptRecord


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home")


def spooled(worker: Worker, sequences: range) -> list[str]:
    """One report each, as the trainer writes them."""
    points = [Point(step=worker.step, name="grad_norm", value=1.0)]
    reports = [
        Report(
            epoch=worker.assignment.epoch,
            sequence=number,
            phase=Phase.TRAINING,
            step=worker.step,
            points=tuple(points),
        )
        for number in sequences
    ]
    return [report.model_dump_json(exclude_defaults=True) + "\n" for report in reports]


def left(world: World, lines: int, torn: str = "") -> tuple[int, str, Worker]:
    """An experiment with a worker that was killed with so many lines above what was acknowledged."""
    experiment = world.submit()
    for _ in range(3):
        world.turn()
    key, worker = next(iter(world.workers.items()))
    told = ['{"epoch":1,"sequence":1,"of":"an acknowledged report nothing is read but its head"}\n']
    later = spooled(worker, range(worker.sequence + 1, worker.sequence + 1 + lines))
    spool = Path(worker.assignment.directory) / "spool.jsonl"
    spool.write_text("".join([*told, *later, torn]))
    world.end(key, worker, -9)
    return experiment, key, worker


def row(world: World, worker: Worker) -> AttemptRecord:
    with world.database.read() as connection:
        found = runs.get_attempt(connection, number_of("att", worker.assignment.attempt_id))
    assert found is not None
    return found


def first_attempt(world: World, worker: Worker) -> AttemptView:
    return list_attempts(world.context, number_of("run", worker.assignment.run_id)).items[0]


def events(world: World, experiment: int) -> list[str]:
    found = list_events(world.context, experiment, after=0, limit=500).items
    return [event.text for event in found if event.kind == "spool"]


def test_nothing_is_parsed_inside_a_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer falls silent while a line is parsed, and PostgreSQL ends a silent writer."""
    _, _, worker = left(world, 30)
    writing: list[bool] = []
    parsed: list[bool] = []
    write, parse = Database.write, backfill._parse

    @contextmanager
    def watched(self: Database) -> Iterator[Connection]:
        with write(self) as connection:
            writing.append(True)
            try:
                yield connection
            finally:
                writing.pop()

    def noted(line: bytes) -> Report | None:
        parsed.append(bool(writing))
        return parse(line)

    monkeypatch.setattr(Database, "write", watched)
    monkeypatch.setattr(backfill, "_parse", noted)
    tick(world.context)
    assert parsed == [False] * 30  # and the acknowledged line not at all
    assert row(world, worker).acknowledged == worker.sequence + 30


def test_a_long_spool_is_taken_in_by_slices_and_the_attempt_ends_after_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away after the first slice: the next tick goes on there."""
    monkeypatch.setattr(backfill, "AT_ONCE", 10)
    experiment, _, worker = left(world, 25, torn='{"epoch":1,"sequence":9')
    taken, calls = ingest.take_in, []

    def away(*given: object) -> None:
        calls.append(given)
        if len(calls) == 14:
            raise Busy("the database is away")
        taken(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(backfill, "take_in", away)
    with pytest.raises(Busy):
        tick(world.context)
    assert row(world, worker).acknowledged == worker.sequence + 10
    assert first_attempt(world, worker).status == "launched"
    tick(world.context)
    assert len(calls) == 14 + 15
    assert row(world, worker).acknowledged == worker.sequence + 25
    assert first_attempt(world, worker).status == "ended"
    assert events(world, experiment) == ["1 torn lines in the spool were passed over"]


def test_a_line_with_its_fields_in_another_order_is_known_by_its_whole(world: World) -> None:
    _, _, worker = left(world, 0)
    spool = Path(worker.assignment.directory) / "spool.jsonl"
    (line,) = spooled(worker, range(worker.sequence + 1, worker.sequence + 2))
    told = Report.model_validate_json(line).model_dump_json(exclude={"epoch"})
    spool.write_text(told.removesuffix("}") + f',"epoch":{worker.assignment.epoch}}}\n')
    tick(world.context)
    assert row(world, worker).acknowledged == worker.sequence + 1


def test_a_spool_that_cannot_be_read_holds_up_no_end(world: World) -> None:
    _, _, worker = left(world, 3)
    spool = Path(worker.assignment.directory) / "spool.jsonl"
    spool.unlink()
    spool.mkdir()
    tick(world.context)
    assert first_attempt(world, worker).status == "ended"
