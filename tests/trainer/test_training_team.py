"""Several processes train one run: as one process does, exactly resumable, and ended together."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from listening_service import ListeningService
from trainer_rigs import (
    ROOT,
    evaluations,
    exit_record,
    finish,
    make_assignment,
    reports,
    series,
    start_work,
    tiny_config,
    work_here,
)

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.report import Directive, DirectiveKind, Phase
from trainer.config import TrainConfig
from trainer.facts import validate
from trainer.schedules import micro_batches

MODULE = ("-m", "trainer", "work")


def _start_team(
    assignment: Assignment, processes: int, *script: str, **environment: str
) -> "subprocess.Popen[str]":
    """As a person would: torchrun, on gloo; `script` in place of the trainer's command."""
    directory = Path(assignment.directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "assignment.json").write_text(assignment.model_dump_json())
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [
            sys.executable,
            *torchrun,
            *(script or ("-m", "trainer", "work")),
            str(directory / "assignment.json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def _config(kind: str, **groups: dict[str, Any]) -> dict[str, Any]:
    return tiny_config(kind, train={"batch_size": 6, "log_every": 1}, **groups)


@pytest.mark.parametrize(("kind", "accumulation"), [("dense", 1), ("recurrent_shared_moe", 2)])
def test_two_processes_train_as_one(kind: str, accumulation: int, tmp_path: Path, cache: Path) -> None:
    config = _config(kind, model={"dropout": 0.0})
    config["train"]["accumulation"] = accumulation
    one = make_assignment(tmp_path / "one", cache, config=config)
    two = make_assignment(tmp_path / "two", cache, config=config)
    team = _start_team(two, 2)
    work_here(one)
    finish(team)
    for name in ("train_loss", "grad_norm", *(("aux_loss",) if "moe" in config else ())):
        assert series(two.directory, name) == pytest.approx(series(one.directory, name), abs=1e-5)
    for step, evaluation in evaluations(one.directory).items():
        mine = evaluations(two.directory)[step]
        assert mine.eval_loss == pytest.approx(evaluation.eval_loss, abs=1e-5)
        if evaluation.routing and mine.routing:
            assert sum(mine.routing.layer_loads[0]) == pytest.approx(1)
            assert mine.routing.load_max == pytest.approx(evaluation.routing.load_max, abs=0.01)


def test_a_team_resumes_bit_for_bit(tmp_path: Path, cache: Path) -> None:
    """Three of them, with dropout and accumulation: where the order of a sum could differ, it would show."""
    common = {"config": _config("recurrent_shared_moe", moe={"z_loss_coef": 0.001}), "horizon_step": 40}
    common["config"]["train"]["accumulation"] = 2
    whole = make_assignment(tmp_path / "whole", cache, target_step=20, **common)
    first = make_assignment(tmp_path / "first", cache, target_step=10, **common)
    second = make_assignment(
        tmp_path / "second", cache, target_step=20, resume_from=(first.directory,), **common
    )
    running = _start_team(whole, 3)
    finish(_start_team(first, 3))
    finish(_start_team(second, 3))
    finish(running)
    for name in ("train_loss", "grad_norm", "aux_loss"):
        parts = series(first.directory, name) | series(second.directory, name)
        assert parts == series(whole.directory, name)
        assert len(parts) == 20
    assert evaluations(second.directory)[20].eval_loss == evaluations(whole.directory)[20].eval_loss
    assert reports(second.directory)[0].notes == ()


def test_an_assignment_for_two_starts_them_and_a_signal_ends_them(tmp_path: Path, cache: Path) -> None:
    """What the service does for a run with two GPUs, on CPU: the worker's pid becomes torchrun's."""
    ends = {"target_step": 100_000, "horizon_step": 100_000, "eval_every": 100_000}
    long = make_assignment(tmp_path / "long", cache, processes=2, config=_config("dense"), **ends)
    worker = start_work(long)
    spool = tmp_path / "long" / "spool.jsonl"
    while not spool.exists() or '"train_loss"' not in spool.read_text():
        assert worker.poll() is None, worker.communicate()
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert exit_record(long.directory)["code"] == ExitCode.PREEMPTED
    step = exit_record(long.directory)["step"]
    assert reports(long.directory)[-2].checkpoints[0].step == step

    alone = make_assignment(tmp_path / "alone", cache, resume_from=(long.directory,), **{
        "config": _config("dense"), **ends, "target_step": step + 2
    })  # fmt: skip
    work_here(alone)
    assert "1 processes from a checkpoint written with 2" in reports(alone.directory)[0].notes[0]


HUNGRY = """
import os, resource, runpy, sys
if os.environ["RANK"] == os.environ["HUNGRY"]:
    import trainer.training
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 500_000_000, resource.RLIM_INFINITY))
sys.argv = ["trainer", "work", sys.argv[1]]
runpy.run_module("trainer", run_name="__main__")
"""


@pytest.mark.parametrize("hungry", [0, 1])
def test_the_memory_of_any_process_is_accounted_for(hungry: int, tmp_path: Path, cache: Path) -> None:
    """Whose memory runs out ends with the code for it; the broken connection of the other is no news."""
    config = _config("dense", model={"n_inner": 2**20})
    assignment = make_assignment(tmp_path / "run", cache, config=config)
    (tmp_path / "hungry.py").write_text(HUNGRY)
    team = _start_team(assignment, 2, str(tmp_path / "hungry.py"), HUNGRY=str(hungry))
    finish(team, code=1)
    assert exit_record(assignment.directory)["code"] == ExitCode.OUT_OF_MEMORY


def test_a_team_waits_at_its_gate_and_goes_on_together(
    tmp_path: Path, cache: Path, service: ListeningService
) -> None:
    def decide(phase: Phase, step: int) -> Directive:
        if phase is not Phase.AT_GATE or len(service.heartbeats) < 3:
            return Directive(kind=DirectiveKind.WAIT, target_step=10)
        kind = DirectiveKind.STOP if step == 20 else DirectiveKind.CONTINUE
        return Directive(kind=kind, target_step=20, reason="finished")

    service.decide = decide
    assignment = make_assignment(
        tmp_path / "run", cache, config=_config("dense"), target_step=10, service=service.address()
    )
    finish(_start_team(assignment, 2))
    assert exit_record(assignment.directory)["step"] == 20
    assert list(evaluations(assignment.directory)) == [10, 20]


def test_rows_that_cannot_be_shared_end_every_process_with_the_fix(tmp_path: Path, cache: Path) -> None:
    odd = make_assignment(tmp_path / "odd", cache, config=tiny_config(train={"batch_size": 3}))
    finish(_start_team(odd, 2), code=1)  # torchrun's own code
    record = exit_record(odd.directory)
    assert record["code"] == ExitCode.CONFIG_ERROR
    assert "train.batch_size: 2 processes cannot share 3 rows per step" in record["message"]


SHARES = [
    # batch size, accumulation, processes: passes and rows of each
    (8, 1, 1, (1, 8)),
    (8, 4, 1, (4, 8)),
    (8, 4, 4, (4, 2)),
    (8, 1, 4, (1, 2)),
    (3, 4, 2, (2, 3)),
    (3, 4, 4, (1, 3)),
]


@pytest.mark.parametrize(("batch_size", "accumulation", "processes", "expected"), SHARES)
def test_micro_batches(batch_size: int, accumulation: int, processes: int, expected: tuple[int, int]) -> None:
    config = TrainConfig(batch_size=batch_size, accumulation=accumulation)
    assert micro_batches(config, processes) == expected


def test_a_config_is_valid_alone_and_refused_by_too_many() -> None:
    config = validate(tiny_config())
    with pytest.raises(ConfigProblem, match="use a multiple of 5"):
        micro_batches(config.train, 5)
