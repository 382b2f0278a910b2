"""Checkpoints of a hand-written loop: verified, passed over when damaged, kept where a gate needs them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from attempt_rigs import Toy, assign
from pydantic import BaseModel, ConfigDict, Field
from trainer_rigs import exit_record, reports

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.report import CheckpointRecord
from trainer.contract import folders
from trainer.kind import parsed


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The directory of an attempt with checkpoints at 10 and 20."""
    assert Toy().run(assign(tmp_path / "1")) == 0
    return tmp_path / "1"


def at(directory: Path, step: int) -> Path:
    return directory / "checkpoints" / f"step-{step:08d}"


def again(before: Path, **changes: Any) -> tuple[int, Toy, Path]:
    """(exit code, loop, directory) of the next attempt, which trains to step 40."""
    directory, toy = before.parent / "2", Toy()
    fields = {"attempt": 2, "epoch": 2, "target_step": 40, "resume_from": (str(before),), **changes}
    return toy.run(assign(directory, **fields)), toy, directory


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["manifest.json", "attempt.json", "state/total.json"])
def test_a_damaged_checkpoint_is_passed_over_and_reported(
    damage: Callable[[Path], None], name: str, before: Path
) -> None:
    if name == "manifest.json" and damage is flip:
        name = "state/total.json"  # a manifest with other braces is no JSON: the case of truncation
    damage(at(before, 20) / name)
    code, toy, directory = again(before)
    assert code == 0
    assert toy.trained == list(range(11, 41))
    assert toy.total == sum(range(1, 41))
    first = reports(directory)[0]
    assert first.resumed_from_step == 10
    assert [(one.step, one.path) for one in first.passed_over] == [(20, str(at(before, 20)))]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew(before: Path) -> None:
    for step in (10, 20):
        truncate(at(before, step) / "state" / "total.json")
    code, toy, directory = again(before)
    assert (code, toy.trained) == (ExitCode.CHECKPOINT_ERROR, [])
    assert exit_record(directory)["code"] == ExitCode.CHECKPOINT_ERROR


def test_what_a_crash_left_half_written_is_no_checkpoint(before: Path) -> None:
    half = folders.building(before, 30)
    (half / "model").write_text("half")
    assert folders.newest([before], None, folders.verified)[0] == at(before, 20)
    assert list(folders.building(before, 30).iterdir()) == []


def test_a_retry_after_divergence_goes_back_further(before: Path) -> None:
    assert again(before, resume_at_most=19)[1].trained[0] == 11
    assert again(before, resume_at_most=9)[1].trained[0] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed"),
        ({"horizon_step": 80}, "horizon_step"),
        ({"config": {"rate": 2}}, "config_hash"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(changes: dict[str, Any], words: str, before: Path) -> None:
    code, toy, directory = again(before, **changes)
    assert (code, toy.trained) == (ExitCode.CONFIG_ERROR, [])
    assert words in exit_record(directory)["message"]


def test_the_newest_and_those_at_gates_are_kept(tmp_path: Path) -> None:
    assert Toy().run(assign(tmp_path, target_step=80, horizon_step=80, eval_every=10)) == 0
    kept = [folders.step_of(path) for path in folders.candidates([tmp_path])]
    assert kept == [80, 70, 60, 40, 20]


def test_the_layout_is_that_of_the_built_in_trainer(before: Path) -> None:
    folders.verify(at(before, 20))
    manifest = json.loads((at(before, 20) / "manifest.json").read_text())
    assert manifest["files"].keys() == {"attempt.json", "state/total.json"}
    assert manifest["step"] == 20


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    lr: Annotated[float, Field(gt=0)]
    width: int = 4


def test_a_kinds_config_is_refused_with_every_field_and_its_fix() -> None:
    assert parsed(Settings, {"lr": 1}) == Settings(lr=1.0, width=4)
    with pytest.raises(ConfigProblem) as refused:
        parsed(Settings, {"widht": 3, "width": "much"})
    problems = dict(refused.value.problems)
    assert problems.keys() == {"lr", "widht", "width"}
    assert "known are lr, width" in problems["widht"]
    assert "missing" in problems["lr"]


def test_a_kill_right_after_a_checkpoint_leaves_no_loss_untold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the spool holds at the moment when each checkpoint gets its name: nothing later may be needed."""
    told: dict[int, tuple[set[int], set[int]]] = {}
    seal = folders.seal

    def noting(folder: Path, directory: Path, step: int) -> CheckpointRecord:
        spooled = reports(directory)
        losses = {p.step for report in spooled for p in report.points if p.name == "train_loss"}
        told[step] = losses, {e.step for report in spooled for e in report.evaluations}
        return seal(folder, directory, step)

    monkeypatch.setattr(folders, "seal", noting)
    toy = Toy()
    toy.interrupt_at = 17
    assert toy.run(assign(tmp_path)) == ExitCode.PREEMPTED
    assert told == {10: (set(range(1, 11)), {10}), 17: (set(range(1, 18)), {10})}
