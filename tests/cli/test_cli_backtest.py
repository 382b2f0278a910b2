"""`backtest` and `calibrate`: what is asked of the service, what is read from a table, what is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_rigs import Assay, CannedService
from cli_samples import experiment

ESTIMATE = {"value": 0.0024, "low": 0.001, "high": 0.0057}
SCORE = {
    "policy": "race",
    "cost": {"value": 0.412, "low": 0.4, "high": 0.42},
    "slot_hours": None,
    "regret": ESTIMATE,
    "regret_p90": {"value": 0.0097, "low": None, "high": None},
    "best_kept": 0.61,
    "false_stops": 0.1,
    "no_winner": 0.0,
    "coverage": 0.75,
}
EXAMPLE = {
    "set": 3,
    "config": "muon",
    "run": "r1",
    "step": 125,
    "reason": "outranked",
    "other_step": 2900,
    "other_reason": "finished",
    "final": 3.28,
}
DIFFERENCE = {
    "policy": "race",
    "other": "asha",
    "regret": None,
    "runs": 12,
    "of": 90,
    "at": [{"step": 125, "runs": 8}, {"step": 250, "runs": 4}],
    "configs": [{"config": "muon", "runs": 7}],
    "examples": [EXAMPLE],
}
ANSWER: dict[str, Any] = {
    "configs": 51,
    "runs": 365,
    "stages": [500, 1500, 2900],
    "eval_every": 125,
    "sets": 1000,
    "size": [8, 16],
    "seed": 0,
    "control": None,
    "scores": [SCORE, SCORE | {"policy": "asha", "regret": None}],
    "differences": [DIFFERENCE, DIFFERENCE | {"runs": 0, "examples": []}],
    "notes": ["10 losses were interpolated"],
}
NOISE: dict[str, Any] = {
    "noise": [{"step": 1000, "sigma": 0.00275, "freedom": 314, "configs": 34, "runs": 348}],
    "policy": "stage-gate@1",
    "margins": [
        {"field": "promote.beats_control.margin", "text": "0.05 is 18 sigma of one run at step 1,000"}
    ],
    "notes": [],
}
TABLE = "config,run,horizon_steps,step,eval_loss\na,r0,200,100,3.5\na,r0,200,200,3.25\nb,r0,200,100,3.6\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "curves.csv"
    file.write_text(TABLE)
    return file


def test_a_table_is_read_and_posted_as_curves(assay: Assay, service: CannedService, table: Path) -> None:
    service.routes["POST /v1/backtests"] = ANSWER
    options = ["--stages", "100,200", "--best", "2", "--size", "8:16", "--sets", "50", "--seed", "7"]
    options += ["--horizon-exchange", "4.5e-5", "--control", "a", "--eval-every", "100"]
    said = assay(
        "backtest", "--policy", "race", "--against", "run-all, asha", "--history", str(table), *options
    )
    assert said.code == 0, said.err
    (request,) = service.requests
    assert request.body == {
        "policy": "race",
        "against": ["run-all", "asha"],
        "history": {
            "curves": [
                {"config": "a", "run": "r0", "horizon_steps": 200, "points": [[100, 3.5], [200, 3.25]]},
                {"config": "b", "run": "r0", "horizon_steps": 200, "points": [[100, 3.6]]},
            ],
            "horizon_exchange": 4.5e-5,
        },
        "sets": 50,
        "seed": 7,
        "stages": [100, 200],
        "promote": [{"best": 2, "eligible": "policy"}],
        "size": [8, 16],
        "control": "a",
        "eval_every": 100,
    }


def test_the_answer_is_a_table_and_where_the_policies_differ(
    assay: Assay, service: CannedService, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    service.routes["POST /v1/backtests"] = ANSWER
    said = assay("backtest", "--policy", "race", "--history", str(table), "--stages", "100,200")
    assert "1,000 sets of 8 to 16 of 51 configs (365 runs), stages 500, 1500, 2900" in said.out
    assert "0.412" in said.out
    assert "0.0024 [0.0010, 0.0057]" in said.out
    assert "75%" in said.out
    assert "10 losses were interpolated" in said.out
    assert "race stops 12 of 90 runs earlier than asha does (8 at 125, 4 at 250): muon (7)" in said.out
    assert "muon of set 3: outranked at 125, against finished at 2,900; its final loss is 3.2800" in said.out
    assert "race stops nobody earlier than asha does" in said.out
    assert "slot-hours" not in said.out


def test_experiments_are_asked_for_by_id_or_name_and_policies_by_file(
    assay: Assay, service: CannedService, tmp_path: Path
) -> None:
    policy = tmp_path / "mine.json"
    policy.write_text('{"name": "mine"}')
    service.routes["POST /v1/backtests"] = ANSWER
    service.routes["GET /v1/experiments/exp_1"] = experiment()
    said = assay("backtest", "--policy", str(policy), "--history", "exp_1", "--json")
    assert json.loads(said.out) == ANSWER
    body = service.requests[-1].body
    assert body["policy"] == {"name": "mine"}
    assert body["history"] == {"experiments": ["exp_1"]}


def test_a_calibration_prints_noise_and_margins(assay: Assay, service: CannedService, table: Path) -> None:
    service.routes["POST /v1/calibrations"] = NOISE
    said = assay("calibrate", str(table), "--policy", "stage-gate", "--steps", "1000")
    assert said.code == 0, said.err
    assert service.requests[0].body["steps"] == [1000]
    assert "0.00275" in said.out
    assert "0.05 is 18 sigma of one run at step 1,000" in said.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no column config, step, eval_loss"),
        ("config,step,loss\n", "there is no column eval_loss"),
        ("config,step,eval_loss,horizon\n", "did you mean `horizon_steps`?"),
        ("config,step,eval_loss\n", "holds no row"),
        ("config,step,eval_loss\na,1.5,3\n", "line 2: step `1.5` is no whole number"),
        ("config,step,eval_loss\na,1,much\n", "line 2: eval_loss `much` is no number"),
        ("config,step,eval_loss\na,1,3\na,2,nan\n", "line 3: eval_loss is nan"),
        ("config,step,eval_loss\na,1\n", "line 2: eval_loss `None` is no number"),
        ("config,step,eval_loss,horizon_steps\na,1,3,9\na,2,3,8\n", "line 3: horizon_steps is 8, and 9"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(
    assay: Assay, service: CannedService, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text)
    found = assay("calibrate", str(file))
    assert found.code == 2
    assert said in found.err.replace("\n", " ")
    assert service.requests == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--history", "none.csv"], "no such file"),
        (["--history", "a.csv", "--history", "exp_1"], "a table stands alone"),
        (["--history", "TABLE", "--stages", "1;2"], "no list of whole numbers"),
        (["--history", "TABLE", "--size", "1:2:3"], "no range"),
    ],
)
def test_options_that_mean_nothing_are_bad_usage(
    assay: Assay, service: CannedService, table: Path, options: list[str], said: str
) -> None:
    found = assay("backtest", "--policy", "race", *[str(table) if o == "TABLE" else o for o in options])
    assert found.code == 2
    assert said in found.err.replace("\n", " ")
