"""The protocol at its true size with a tiny model, by the commands that a person types."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STEPS = (1000, 5000, 8000)


@pytest.mark.acceptance
@pytest.mark.timeout(2700)
def test_the_protocol_at_its_true_size() -> None:
    out = ROOT / "acceptance-output"
    spec = ROOT / "configs" / "experiments" / "protocol-tiny.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "demo", "--spec", str(spec), "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["experiment"]["status"] == "succeeded"
    assert [(stage["steps"], stage["status"]) for stage in summary["stages"]] == [
        (s, "closed") for s in STEPS
    ]
    for run in summary["runs"]:
        assert_goes_on_without_a_gap(run)
    furthest = {run["variant"]: run["step"] for run in summary["runs"]}
    assert furthest.pop("aux-0.01") == max(furthest.values()), (
        "the control goes as far as the furthest variant"
    )
    kinds = {decision["kind"] for decision in summary["decisions"]}
    assert kinds & {"promote"}
    assert kinds & {"decline", "stop"}
    for decision in summary["decisions"]:
        assert decision["text"]
        assert decision["evidence"] or decision["kind"] == "fail"


def assert_goes_on_without_a_gap(run: dict[str, Any]) -> None:
    """One evaluation every 500 steps over all attempts: promoted runs go on where the stage before ended."""
    steps = [evaluation["step"] for evaluation in run["evaluations"]]
    assert steps == list(range(500, run["step"] + 1, 500))
    if run["status"] == "succeeded":
        assert run["step"] == 8000
        assert run["last_evaluation"]["eval_loss"] < run["evaluations"][0]["eval_loss"] - 0.5
