"""Checkpoints on disk: complete or passed over, pruned but for gates, spool lines recovered."""

import errno
from pathlib import Path

import pytest
import torch

from orchestrator.protocol.report import Phase, Report
from trainer import checkpoint
from trainer.config import OptimizerConfig
from trainer.contract import folders
from trainer.contract.spool import Spool
from trainer.optim import AdamW
from trainer.problems import CheckpointProblem, DataProblem, code_for

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def _write(directory: Path, step: int) -> Path:
    tensor = {"w": torch.arange(6.0)}
    return Path(checkpoint.write(directory, step, tensor, tensor, {"step": step}).path)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    record = checkpoint.write(tmp_path, 7, {"w": torch.ones(3)}, {"first.w": torch.zeros(3)}, {"step": 7})
    assert record.path.endswith("checkpoints/step-00000007")
    assert sorted(p.name for p in Path(record.path).iterdir()) == FILES
    assert record == folders.records([tmp_path], 7)[0]
    saved = checkpoint.load(Path(record.path))
    assert saved.step == 7
    assert torch.equal(saved.model["w"], torch.ones(3))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "torn", "flipped"])
def test_a_damaged_newest_falls_back_to_the_one_before(name: str, damage: str, tmp_path: Path) -> None:
    _write(tmp_path, 10)
    file = _write(tmp_path, 20) / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "torn":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(bytes([content[0] ^ 0xFF]) + content[1:])
    saved, passed_over = checkpoint.newest([tmp_path])
    assert saved is not None
    assert saved.step == 10
    assert [(one.step, Path(one.path)) for one in passed_over] == [(20, file.parent)]


def test_none_that_can_be_read_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert checkpoint.newest([tmp_path, tmp_path / "removed"]) == (None, [])
    (_write(tmp_path, 10) / "manifest.json").unlink()
    with pytest.raises(CheckpointProblem, match="step-00000010"):
        checkpoint.newest([tmp_path])


def test_a_folder_that_was_being_written_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".step-00000030.1.tmp").mkdir(parents=True)
    assert folders.candidates([tmp_path]) == []


def test_the_newest_step_of_all_attempts_wins_within_the_limit(tmp_path: Path) -> None:
    own, other = tmp_path / "2", tmp_path / "1"
    _write(own, 10)
    _write(other, 10)
    _write(other, 20)
    found = [str(p.relative_to(tmp_path)) for p in folders.candidates([own, other])]
    assert [f[0] + f[-3:] for f in found] == ["1020", "2010", "1010"]
    assert [p.name for p in folders.candidates([own, other], at_most=19)] == ["step-00000010"] * 2


def test_the_newest_three_and_those_at_gates_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        _write(tmp_path, step)
    folders.prune(tmp_path, [10])
    assert [int(p.name[5:]) for p in folders.candidates([tmp_path])] == [50, 40, 30, 10]


def test_exit_codes_of_errors() -> None:
    assert code_for(OSError(errno.ENOSPC, "full")).name == "DISK_FULL"
    assert code_for(MemoryError()).name == "OUT_OF_MEMORY"
    assert code_for(RuntimeError("DefaultCPUAllocator: can't allocate memory")).name == "OUT_OF_MEMORY"
    assert code_for(DataProblem("x")).name == "DATA_ERROR"
    assert code_for(ZeroDivisionError()).name == "CRASHED"


def test_the_spool_goes_on_after_a_crash_and_cuts_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = Spool(path)
    for sequence in (1, 2):
        spool.append(Report(epoch=1, sequence=sequence, phase=Phase.TRAINING, step=sequence), durable=True)
    spool.close()
    with path.open("ab") as stream:
        stream.write(b'{"epoch":1,"seq')
    again = Spool(path)
    assert again.last == 2
    again.append(Report(epoch=1, sequence=3, phase=Phase.ENDED, step=3), durable=False)
    assert [Report.model_validate_json(again.read(n)).sequence for n in (1, 2, 3)] == [1, 2, 3]
    again.close()


def test_an_optimizers_state_is_read_in_both_layouts() -> None:
    """One piece for each kind, or a tensor for each parameter, as the first release wrote it."""
    optimizer = AdamW(torch.nn.Linear(3, 2), OptimizerConfig())
    for number, part in enumerate((optimizer.first, optimizer.second, optimizer.steps)):
        for name, tensor in part.items():
            tensor.fill_(number + len(name))
    pieces = optimizer.state()
    assert {kind: piece.numel() for kind, piece in pieces.items()} == {"first": 8, "second": 8, "steps": 2}
    kinds = {"first": optimizer.first, "second": optimizer.second, "steps": optimizer.steps}
    each = {f"{kind}.{name}": t.clone() for kind, part in kinds.items() for name, t in part.items()}
    for layout in (pieces, each):
        other = AdamW(torch.nn.Linear(3, 2), OptimizerConfig())
        other.load(layout)
        assert all(torch.equal(piece, pieces[kind]) for kind, piece in other.state().items())
    with pytest.raises(KeyError):
        other.load({"first": pieces["first"]})
