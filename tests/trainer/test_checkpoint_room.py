"""A disk without room: seen before a checkpoint is written, older ones go first, nothing whole is lost."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from attempt_rigs import Toy, assign
from listening_service import ListeningService
from trainer_rigs import evaluations, exit_record, make_assignment, reports, tiny_config, work_here

from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import Phase, Report
from trainer import checkpoint
from trainer.contract import ending, folders
from trainer.contract.room import MARGIN_BYTES, room
from trainer.contract.spool import Spool
from trainer.problems import DiskFull, code_for


def fill(directory: Path, steps: tuple[int, ...]) -> list[Path]:
    tensor = {"w": torch.arange(60.0)}
    return [Path(checkpoint.write(directory, s, tensor, {}, {"step": s}).path) for s in steps]


def steps(directory: Path) -> list[int]:
    return [folders.step_of(path) for path in folders.candidates([directory])]


def room_for(there: int, per_checkpoint: int) -> Callable[[Path], int]:
    """A disk of which `there` bytes are free with three checkpoints on it, each of which takes so many."""
    return lambda directory: there + (4 - len(steps(directory))) * per_checkpoint


def test_where_there_is_room_nothing_goes(tmp_path: Path) -> None:
    fill(tmp_path, (10, 20, 30, 40))
    with room(tmp_path, 50, 1000, ()):
        pass
    assert steps(tmp_path) == [40, 30, 20, 10]


def test_older_checkpoints_go_oldest_first_until_it_fits_but_never_a_gates(tmp_path: Path) -> None:
    fill(tmp_path, (10, 20, 30, 40))
    needed = 1000 + 50 + MARGIN_BYTES
    with room(tmp_path, 50, 1000, {10}, room_for(needed - 100, 100)):
        assert steps(tmp_path) == [40, 30, 10]


def test_the_newest_whole_one_stays_and_the_problem_says_what_is_lacking(tmp_path: Path) -> None:
    newest = fill(tmp_path, (10, 20, 30, 40))[-1]
    (newest / "state.json").write_text("damaged")
    with pytest.raises(DiskFull) as caught, room(tmp_path, 50, 2**21, {10}, room_for(0, 100)):
        raise AssertionError("it was written")
    assert steps(tmp_path) == [40, 30, 10]  # 40 is damaged: 30 is what the run can go on from
    assert code_for(caught.value) is ExitCode.DISK_FULL
    text = str(caught.value)
    assert str(tmp_path) in text
    assert "3.1 MiB are needed" in text
    assert "0.0 are free" in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_meanwhile_is_the_same_problem(number: int, tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="step 50 could not be written"), room(tmp_path, 50, 0, ()):
        raise OSError(number, os.strerror(number))
    with pytest.raises(OSError, match="Input/output"), room(tmp_path, 50, 0, ()):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_checkpoint_goes_by_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the middle of a removal leaves nothing that looks like a checkpoint."""
    path = fill(tmp_path, (10,))[0]

    def crash(doomed: Path, **_: object) -> None:
        if doomed.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", crash)
        with pytest.raises(KeyboardInterrupt):
            folders.remove(path)
    assert steps(tmp_path) == []
    folders.remove_unfinished(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def report(sequence: int) -> Report:
    return Report(epoch=1, sequence=sequence, phase=Phase.TRAINING, step=sequence)


class Full(Spool):
    """On a disk that takes the first part of a line and no more, while `is_full`."""

    is_full = True

    def _write(self, line: bytes, *, durable: bool) -> None:
        if not self.is_full:
            return super()._write(line, durable=durable)
        stream = self._stream

        class Stream:
            def write(self, data: memoryview) -> int:
                if len(data) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return stream.write(data[:7]) or 0

            def fileno(self) -> int:
                return stream.fileno()

        self._stream = Stream()  # type: ignore[assignment]
        try:
            return super()._write(line, durable=durable)
        finally:
            self._stream = stream


def test_a_report_that_does_not_fit_tears_nothing_and_follows_when_there_is_room(tmp_path: Path) -> None:
    spool = Full(tmp_path / "spool.jsonl")
    spool.is_full = False
    spool.append(report(1), durable=True)
    before = (tmp_path / "spool.jsonl").read_bytes()
    spool.is_full = True
    for sequence in (2, 3):
        spool.append(report(sequence), durable=True)
    assert (tmp_path / "spool.jsonl").read_bytes() == before
    assert spool.full is not None
    assert [json.loads(spool.read(n))["sequence"] for n in range(1, spool.last + 1)] == [1, 2, 3]
    spool.is_full = False
    spool.append(report(4), durable=True)
    assert spool.full is None
    spool.close()
    again = Spool(tmp_path / "spool.jsonl")
    assert [json.loads(again.read(n))["sequence"] for n in range(1, again.last + 1)] == [1, 2, 3, 4]
    again.close()


def test_what_cannot_be_spooled_is_told_all_the_same_and_ends_the_attempt(
    tmp_path: Path, service: ListeningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    monkeypatch.setattr("trainer.contract.reporter.Spool", Full)
    code = Toy().run(assign(directory, target_step=40, service=service.address()))
    assert code == ExitCode.DISK_FULL
    assert (directory / "spool.jsonl").read_bytes() == b""
    told = [Report.model_validate(body) for _, body in sorted(service.reports.items())]
    assert [r.sequence for r in told] == list(range(1, len(told) + 1))
    assert told[-1].exit is not None
    assert told[-1].exit.code == ExitCode.DISK_FULL
    assert str(directory) in told[-1].exit.message
    assert exit_record(directory) == told[-1].exit.model_dump()


def test_a_loop_whose_checkpoint_does_not_fit_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: Toy, folder: Path) -> None:
        (folder / "part").write_text("half of it")
        if self.trained[-1] > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        (folder / "state").mkdir()
        (folder / "state" / "total.json").write_text(json.dumps(self.total))

    monkeypatch.setattr(Toy, "save", save)
    assignment = assign(tmp_path / "run")
    assert Toy().run(assignment) == ExitCode.DISK_FULL
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["step-00000010"]
    folders.verify(tmp_path / "run" / "checkpoints" / left[0])
    evaluated = [e.step for r in reports(assignment.directory) for e in r.evaluations]
    assert evaluated == [10]
    assert "step 20 could not be written" in exit_record(assignment.directory)["message"]


def test_the_exit_record_takes_the_room_of_what_was_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = folders.building(tmp_path, 10)
    write = Path.write_text

    def full(path: Path, *arguments: str) -> int:
        if unfinished.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *arguments)

    monkeypatch.setattr(Path, "write_text", full)
    ending.write_exit(tmp_path, ExitRecord(code=ExitCode.DISK_FULL, step=10))
    assert exit_record(tmp_path)["code"] == ExitCode.DISK_FULL


# --- a disk that is really full ---------------------------------------------------------------------------

WIDE = {"config": tiny_config(model={"n_inner": 3072})}
"""A model whose checkpoint has 2.3 MiB: of an eight, two fit beside the one that is written."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight mebibytes of memory as a disk; skipped where nobody may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("a small disk needs the program `mount`, which is not here")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a small disk needs leave to mount a tmpfs: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_small_disk_older_checkpoints_make_room_for_new_ones(small_disk: Path, cache: Path) -> None:
    assignment = make_assignment(small_disk / "run", cache, target_step=50, **WIDE)
    work_here(assignment)
    left = steps(small_disk / "run")
    assert left[0] == 50
    assert len(left) < folders.KEPT
    assert list(evaluations(assignment.directory)) == [10, 20, 30, 40, 50]
    for path in folders.candidates([small_disk / "run"]):
        folders.verify(path)


@pytest.mark.parametrize("seen", [True, False])
def test_a_full_disk_ends_the_attempt_and_once_there_is_room_it_goes_on(
    seen: bool, small_disk: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is seen before the checkpoint is written, or only by what writing it says."""
    first = make_assignment(small_disk / "run", cache, target_step=10, **WIDE)
    work_here(first)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**20))
    again = first.model_copy(update={"target_step": 20})
    with monkeypatch.context() as patched:
        if not seen:
            plenty = SimpleNamespace(free=2**40)
            patched.setattr("trainer.contract.room.shutil.disk_usage", lambda _path: plenty)
        record = work_here(again, ExitCode.DISK_FULL)
    assert "step 20 " + ("does not fit" if seen else "could not be written") in record.message
    assert exit_record(first.directory) == record.model_dump()
    assert sorted(p.name for p in (small_disk / "run" / "checkpoints").iterdir()) == ["step-00000010"]
    told = reports(first.directory)
    assert told[-1].exit == record
    assert [e.step for r in told for e in r.evaluations] == [10, 20]
    filler.unlink()
    work_here(again)
    assert steps(small_disk / "run") == [20, 10]


def test_a_disk_without_a_byte_left_tears_no_report(small_disk: Path, cache: Path) -> None:
    directory = small_disk / "run"
    directory.mkdir()
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        while shutil.disk_usage(small_disk).free:
            filler.write(bytes(4096))
        assert Toy().run(assign(directory)) == ExitCode.DISK_FULL
        assert (directory / "spool.jsonl").read_bytes() == b""
        assert not (directory / "checkpoints").is_dir() or steps(directory) == []
