"""Tiny configs, assignments and worker processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitRecord
from orchestrator.protocol.report import Evaluation, Report
from trainer.worker import work

ROOT = Path(__file__).parents[2]
TIMEOUT = 90


def tiny_config(kind: str = "dense", **groups: dict[str, Any]) -> dict[str, Any]:
    """A model of some thousand parameters on the standard library's help texts. Dropout on."""
    config: dict[str, Any] = {
        "model": {"kind": kind, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "dropout": 0.1},
        "data": {"source": "pydoc", "evaluation_tokens": 256},
        "optimizer": {"lr": 3e-3},
        "train": {"batch_size": 2, "log_every": 1, "threads": 1},
    }
    if kind != "dense":
        config["moe"] = {"num_experts": 4, "top_k": 2, "d_ff": 16, "aux_loss_coef": 0.01}
    for name, settings in groups.items():
        config[name] = {**config.get(name, {}), **settings}
    return config


def make_assignment(directory: Path, cache: Path, **changes: Any) -> Assignment:
    """An assignment without a service, unless `changes` names one."""
    fields: dict[str, Any] = {
        "experiment_id": "exp_1",
        "run_id": "run_1",
        "attempt_id": "att_1",
        "attempt": 1,
        "epoch": 1,
        "variant": "control",
        "seed": 0,
        "config": tiny_config(),
        "target_step": 20,
        "horizon_step": 40,
        "eval_every": 10,
        "directory": str(directory),
        "cache_directory": str(cache),
        "threads": 1,
        "device": "cpu",
        "gate_poll_seconds": 0.05,
        "heartbeat_seconds": 0.2,
    }
    return Assignment.model_validate({**fields, **changes})


def start(*arguments: str, cache: Path | None = None) -> "subprocess.Popen[str]":
    """`python -m trainer ...` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | ({"ASSAY_CACHE": str(cache)} if cache else {})
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def start_work(assignment: Assignment) -> "subprocess.Popen[str]":
    """A worker process on `assignment`."""
    directory = Path(assignment.directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "assignment.json").write_text(assignment.model_dump_json())
    return start("work", str(directory / "assignment.json"))


def work_here(assignment: Assignment, code: int = 0) -> ExitRecord:
    """The same worker without a process of its own: it has ended with `code`."""
    record = work(assignment, lambda: False)
    assert record.code == code, record.message
    return record


def finish(process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
    """Its output, once it has ended with `code`."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, err
    return out, err


def reports(directory: Path | str) -> list[Report]:
    """The spool of an attempt."""
    lines = (Path(directory) / "spool.jsonl").read_text().splitlines()
    return [Report.model_validate_json(line) for line in lines]


def evaluations(directory: Path | str) -> dict[int, Evaluation]:
    return {e.step: e for report in reports(directory) for e in report.evaluations}


def series(directory: Path | str, name: str) -> dict[int, float]:
    return {p.step: p.value for report in reports(directory) for p in report.points if p.name == name}


def exit_record(directory: Path | str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((Path(directory) / "exit.json").read_text())
    return record
