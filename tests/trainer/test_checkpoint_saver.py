"""Checkpoints written beside the training: from a copy, reported once on disk, and never silently missing."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trainer_rigs import ROOT, evaluations, exit_record, make_assignment, reports, tiny_config, work_here

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode
from trainer import checkpoint
from trainer.saver import Saver


def test_what_is_written_is_the_moment_it_began(tmp_path: Path) -> None:
    weights = torch.zeros(300_000)
    with Saver(tmp_path, ()) as saver:
        saver.start(1, {"w": weights}, {}, {"step": 1})
        weights += 1  # training goes on at once
        record = saver.take(wait=True)
        assert saver.take(wait=True) is None  # once
    assert record is not None
    assert checkpoint.load(Path(record.path)).model["w"].abs().max() == 0


def test_what_goes_wrong_is_raised_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with Saver(tmp_path, ()) as saver:
        saver.start(1, {"w": torch.zeros(3)}, {}, {"step": 1})
        with pytest.raises(OSError, match="checkpoints") as caught:
            saver.take(wait=True)
    assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)


def test_every_evaluation_is_told_before_its_checkpoint_and_every_checkpoint_once(
    tmp_path: Path, cache: Path
) -> None:
    assignment = make_assignment(tmp_path / "run", cache, target_step=50)
    work_here(assignment)
    told = [
        (kind, item.step)
        for report in reports(assignment.directory)
        for kind, items in (("evaluation", report.evaluations), ("checkpoint", report.checkpoints))
        for item in items
    ]
    steps = [10, 20, 30, 40, 50]
    assert [step for kind, step in told if kind == "evaluation"] == steps
    assert [step for kind, step in told if kind == "checkpoint"] == steps
    assert all(told.index(("evaluation", s)) < told.index(("checkpoint", s)) for s in steps)
    records = {c.step: c for report in reports(assignment.directory) for c in report.checkpoints}
    for step, evaluation in evaluations(assignment.directory).items():
        assert records[step].eval_loss == evaluation.eval_loss


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / ".step-00000030.1.tmp"
    left.mkdir(parents=True)
    with Saver(tmp_path, ()):
        assert not left.exists()


LIMITED = """
import resource, sys
from pathlib import Path
from orchestrator.protocol.assignment import Assignment
from trainer.worker import work
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
sys.exit(work(Assignment.model_validate_json(Path(sys.argv[1]).read_text()), lambda: False).code)
"""


def _run_limited(assignment: Assignment) -> "subprocess.CompletedProcess[str]":
    """A worker that cannot write more than 20 kB to a file: its checkpoints do not fit."""
    directory = Path(assignment.directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "assignment.json").write_text(assignment.model_dump_json())
    command = [sys.executable, "-c", LIMITED, str(directory / "assignment.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_a_checkpoint_that_does_not_fit_ends_the_attempt_and_overwrites_nothing(
    tmp_path: Path, cache: Path
) -> None:
    first = make_assignment(tmp_path / "run", cache, target_step=10)
    work_here(first)
    again = first.model_copy(update={"target_step": 30})
    ended = _run_limited(again)
    assert ended.returncode == ExitCode.DISK_FULL, ended.stderr
    assert exit_record(first.directory)["code"] == ExitCode.DISK_FULL
    folders = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert folders == ["step-00000010"]
    work_here(again)  # and goes on from it once there is room
    assert evaluations(first.directory)[30].step == 30


def test_out_of_memory_has_its_own_code(tmp_path: Path, cache: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    config = tiny_config(model={"n_inner": 2**31 - 1})
    assignment = make_assignment(tmp_path / "run", cache, config=config)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, hard))
    try:
        work_here(assignment, ExitCode.OUT_OF_MEMORY)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
