"""What the doctor finds in a home, and that it mends what is safe and nothing else."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from stored_checkpoints import rows, write
from worlds import Worker, World

from orchestrator.domain.ids import number_of
from orchestrator.engines.base import WorkerSpec
from orchestrator.protocol.exit import ExitCode
from orchestrator.services.checkpoint_files import manifest_sha256
from orchestrator.services.doctor import examine, is_healthy, repair
from orchestrator.services.doctor_findings import Finding, Patient, Severity
from orchestrator.services.fall_back import GONE
from orchestrator.store import checkpoints, runs
from orchestrator.store.database import Database
from orchestrator.store.migrate import current_revision
from orchestrator.store.tables import checkpoints as table

TWO = {"stages": [{"name": "screen", "steps": 100, "variants": {"base": {}, "wide": {"width": 8}}}]}
PLENTY = 2**40


@pytest.fixture
def world(either: Database, tmp_path: Path) -> World:
    return World(either, tmp_path / "home")


def trained(world: World, steps: int = 60) -> Worker:
    """Two runs on their way; the worker of `base`. Every folder that rows name is there, and whole."""
    world.submit(**TWO)
    while True:
        world.turn()
        for worker in world.workers.values():
            if worker.assignment.variant == "base" and worker.step == steps:
                fill(world)
                return worker


def fill(world: World) -> None:
    """Whole checkpoints for all rows, which know their manifests."""
    for row in rows(world):
        write(Path(row.path))
        with world.database.write() as connection:
            known = manifest_sha256(Path(row.path))
            connection.execute(update(table).where(table.c.id == row.id).values(manifest_sha256=known))


def patient(world: World, **changes: object) -> Patient:
    return replace(Patient(world.home, world.database, world.context.engine, is_served=True), **changes)  # type: ignore[arg-type]


def found(world: World, **changes: object) -> list[Finding]:
    return examine(patient(world, **changes), None, PLENTY, 0)


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(str(f.severity), f.area) for f in findings]


def mended(world: World) -> list[Finding]:
    return repair(patient(world), found(world))


def test_a_home_in_order_is_healthy_while_workers_train_and_when_all_has_ended(world: World) -> None:
    trained(world)
    assert found(world) == []
    assert world.run_to_end(1) == "succeeded"
    fill(world)
    assert found(world) == []
    assert found(world, is_served=False) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [("torn", "model.bin has 3 bytes, not 7"), ("flipped", "SHA-256")],
)
def test_a_damaged_checkpoint_is_found_and_marked(damage: str, said: str, world: World) -> None:
    worker = trained(world)
    path = Path(worker.assignment.directory) / "checkpoints" / "step-00000060"
    (path / "model.bin").write_bytes(b"ten" if damage == "torn" else b"tensorS")
    (finding,) = found(world)
    assert (finding.severity, finding.area, finding.where) == (Severity.ERROR, "checkpoints", str(path))
    assert said in finding.what
    assert [f.area for f in found(world, quick=True)] == ([] if damage == "flipped" else ["checkpoints"])
    (repaired,) = mended(world)
    assert repaired.is_repaired
    assert said in str(next(row.damage for row in rows(world) if row.path == str(path)))
    assert told(found(world)) == [("note", "checkpoints")]  # known from now on
    assert is_healthy(found(world))
    write(path)  # as it was
    assert told(found(world, quick=True)) == [("note", "checkpoints")]  # sizes alone prove nothing
    assert told(found(world)) == [("warning", "checkpoints")]
    assert is_healthy(mended(world))
    assert found(world) == []
    assert [row.damage for row in rows(world) if row.path == str(path)] == [None]


def test_what_is_missing_is_said_and_never_marked(world: World, tmp_path: Path) -> None:
    """Its disk may be away."""
    worker = trained(world)
    path = Path(worker.assignment.directory) / "checkpoints" / "step-00000060"
    path.rename(tmp_path / "away")
    (finding,) = mended(world)
    assert (finding.severity, finding.where, finding.is_repaired) == (Severity.ERROR, str(path), False)
    assert "is missing" in finding.what
    assert "mount its disk" in finding.fix
    assert {row.damage for row in rows(world)} == {None}
    (tmp_path / "away").rename(path)
    assert found(world) == []


def test_what_a_worker_did_not_find_is_still_said_to_be_missing(world: World, tmp_path: Path) -> None:
    """One attempt has gone on from an older one since: whoever mounts the disk has the newest again."""
    worker = trained(world)
    path = Path(worker.assignment.directory) / "checkpoints" / "step-00000060"
    path.rename(tmp_path / "away")
    with world.database.write() as connection:
        connection.execute(update(table).where(table.c.path == str(path)).values(damage=GONE))
    (finding,) = mended(world)
    assert finding.severity is not Severity.NOTE
    assert "mount its disk" in finding.fix


def test_what_a_trainer_keeps_elsewhere_is_its_own_affair(world: World) -> None:
    trained(world)
    with world.database.write() as connection:
        connection.execute(update(table).values(path="s3://bucket/" + table.c.path))
    assert mended(world) == []
    assert {row.damage for row in rows(world)} == {None}


def test_an_older_damaged_one_is_a_warning_and_one_that_its_worker_pruned_is_nothing(world: World) -> None:
    worker = trained(world)
    folder = Path(worker.assignment.directory) / "checkpoints"
    shutil.rmtree(folder / "step-00000020")
    (folder / "step-00000040" / "model.bin").unlink()
    assert told(found(world)) == [("warning", "checkpoints")]


def test_a_manifest_that_was_exchanged_is_damage(world: World) -> None:
    worker = trained(world)
    write(Path(worker.assignment.directory) / "checkpoints" / "step-00000060", b"of another run")
    assert ["its manifest is not the one that was reported" in f.what for f in found(world)] == [True]


def test_a_folder_that_retention_left_is_removed(world: World) -> None:
    trained(world)
    row = rows(world)[0]
    with world.database.write() as connection:
        checkpoints.mark_removed(connection, [row.id], world.now)
    assert told(found(world)) == [("warning", "checkpoints")]
    assert is_healthy(mended(world))
    assert not Path(row.path).exists()
    assert found(world) == []


def test_folders_that_nobody_knows_are_said_and_never_touched(world: World) -> None:
    trained(world)
    stranger = world.home / "runs" / "run_9" / "1"
    write(stranger / "checkpoints" / "step-00000010")
    (finding,) = mended(world)
    assert (finding.severity, finding.area, finding.where) == (Severity.WARNING, "folders", str(stranger))
    assert not finding.is_repaired
    assert (stranger / "checkpoints" / "step-00000010" / "model.bin").exists()


def test_a_live_attempt_without_its_folder_is_an_error(world: World) -> None:
    worker = trained(world)
    shutil.rmtree(worker.assignment.directory)
    assert ("error", "folders") in told(found(world))


def test_what_a_killed_writer_left_is_removed_once_its_attempt_is_over(world: World) -> None:
    worker = trained(world)
    half = Path(worker.assignment.directory) / "checkpoints" / ".step-00000080.tmp"
    write(half)
    assert found(world) == []  # its worker is writing it
    key = next(key for key, w in world.workers.items() if w is worker)
    world.end(key, worker, ExitCode.PREEMPTED)
    world.turn()
    fill(world)
    assert told(found(world)) == [("warning", "unfinished")]
    assert is_healthy(mended(world))
    assert not half.exists()


def test_a_link_is_never_followed(world: World, tmp_path: Path) -> None:
    worker = trained(world)
    key = next(key for key, w in world.workers.items() if w is worker)
    world.end(key, worker, ExitCode.PREEMPTED)
    world.turn()
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere)
    (Path(worker.assignment.directory) / "checkpoints" / ".step-00000080.tmp").symlink_to(elsewhere)
    mended(world)
    assert (elsewhere / "model.bin").exists()


def test_reports_that_were_not_taken_in_are_counted(world: World) -> None:
    worker = trained(world)
    spool = Path(worker.assignment.directory) / "spool.jsonl"
    spool.write_text("{}\n" * (worker.sequence + 2) + '{"torn')
    assert found(world) == []  # its worker is about to send them
    key = next(key for key, w in world.workers.items() if w is worker)
    world.machine.exit(key, ExitCode.CRASHED)
    findings = found(world, is_served=False)
    assert told(findings) == [("note", "workers"), ("warning", "spools")]
    assert "2 reports" in findings[1].what
    assert "start the service" in findings[1].fix


def test_a_worker_that_nothing_asks_for_is_said(world: World, tmp_path: Path) -> None:
    worker = trained(world)
    world.context.engine.submit("run_77-1", WorkerSpec(("sleep",), tmp_path, (world.slots[0],), 1))
    assert told(found(world)) == [("warning", "workers")]
    key = next(key for key, w in world.workers.items() if w is worker)
    with world.database.write() as connection:
        attempt = number_of("att", worker.assignment.attempt_id)
        runs.change_attempt(connection, attempt, status="ended", ended_at=world.now)
    assert [key in f.what for f in found(world) if f.area == "workers"] == [True, False]


def test_tokens_are_their_owners_alone(world: World) -> None:
    worker = trained(world)
    file = Path(worker.assignment.directory) / "assignment.json"
    file.chmod(0o644)
    assert told(found(world)) == [("warning", "permissions")]
    assert is_healthy(mended(world))
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_address_of_nobody_is_removed(world: World) -> None:
    file = world.home / "service.json"
    world.home.mkdir(parents=True, exist_ok=True)
    file.write_text('{"url": "http://127.0.0.1:1", "pid": 1}')
    assert found(world) == []
    findings = found(world, is_served=False)
    assert told(findings) == [("warning", "address")]
    assert "http://127.0.0.1:1" in findings[0].what
    repair(patient(world), findings)
    assert not file.exists()


def test_a_full_disk_and_another_schema_are_errors(world: World) -> None:
    findings = examine(patient(world), None, 2**20, 2**30)
    assert told(findings) == [("error", "disk")]
    assert "0.00 GiB are free, 1.00 are asked for" in findings[0].what
    with world.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    assert current_revision(world.database) == "0001"
    assert told(found(world)) == [("error", "database")]


def test_a_damaged_file_is_an_error_and_its_rows_are_not_asked(world: World, tmp_path: Path) -> None:
    file = tmp_path / "broken.sqlite3"
    file.write_bytes(b"SQLite format 3\x00" + os.urandom(4096))
    findings = examine(patient(world), file, PLENTY, 0)
    assert told(findings) == [("error", "database")]
    assert "damaged" in findings[0].what


def test_a_repair_that_cannot_be_done_is_not_claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = trained(world)
    (Path(worker.assignment.directory) / "assignment.json").chmod(0o644)

    def refuse(_path: Path, _mode: int) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "chmod", refuse)
    findings = mended(world)
    assert [f.is_repaired for f in findings] == [False]
    assert not is_healthy(findings)
