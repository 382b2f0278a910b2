"""The commands as a person types them."""

import json
from pathlib import Path

import pytest
from trainer_rigs import evaluations, exit_record, finish, make_assignment, start, tiny_config, work_here

from orchestrator.protocol.exit import ExitCode
from trainer.__main__ import main


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_config("recurrent_shared_moe")))
    return path


def test_train_resumes_by_itself_and_evaluate_agrees(
    config_file: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--config", str(config_file), "--run-dir", str(run), "--eval-every", "10", "--json"]
    arguments += ["--cache", str(cache), "--set", "optimizer.lr=0.001", "--seed", "3"]
    out, _ = finish(start(*arguments, "--to-step", "20", "--horizon", "40"))
    assert json.loads(out)["step"] == 20
    assert main([*arguments[:-2], "--to-step", "40"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(evaluations(run)) == [10, 20, 30, 40]
    assert exit_record(run)["code"] == 0

    assert main(["evaluate", "--checkpoint", result["checkpoint"], "--cache", str(cache), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["eval_loss"] == pytest.approx(result["eval_loss"], abs=1e-6)
    assert (
        main(["evaluate", "--checkpoint", result["checkpoint"], "--cache", str(cache), "--max-tokens", "50"])
        == 0
    )
    assert "50" in capsys.readouterr().out


def test_another_horizon_is_refused(config_file: Path, tmp_path: Path, cache: Path) -> None:
    arguments = [
        "train",
        "--config",
        str(config_file),
        "--run-dir",
        str(tmp_path / "run"),
        "--cache",
        str(cache),
    ]
    assert main([*arguments, "--to-step", "3"]) == 0
    assert main([*arguments, "--to-step", "5", "--horizon", "5"]) == ExitCode.CONFIG_ERROR
    assert "horizon_step 3" in exit_record(tmp_path / "run")["message"]


def test_describe(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "--config", str(config_file), "--json", "--set", "moe.top_k=1"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["tokens_per_step"] == 32
    assert described["parameters_active"] < described["parameters_total"]
    assert main(["describe", "--config", str(config_file)]) == 0
    assert "parameters_total" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("moe.top_k=9", "moe.top_k"),
        ("moe.topk=1", "did you mean 'moe.top_k'"),
        ("nonsense", "group.name=value"),
    ],
)
def test_a_config_error_names_the_field_and_the_fix(
    override: str, words: str, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["describe", "--config", str(config_file), "--set", override])
    assert code == ExitCode.CONFIG_ERROR
    assert words in capsys.readouterr().err


def test_a_worker_accounts_for_every_end(tmp_path: Path, cache: Path) -> None:
    bad = make_assignment(tmp_path / "config", cache, config=tiny_config(model={"n_head": 3}))
    work_here(bad, ExitCode.CONFIG_ERROR)
    assert "model.n_head" in exit_record(bad.directory)["message"]

    gone = make_assignment(tmp_path / "data", cache, config=tiny_config(data={"source": "/gone/a.txt"}))
    work_here(gone, ExitCode.DATA_ERROR)
    assert "/gone/a.txt" in exit_record(gone.directory)["message"]

    no_device = make_assignment(tmp_path / "crash", cache, device="no-such-device")
    work_here(no_device, ExitCode.CRASHED)
    assert exit_record(no_device.directory)["code"] == ExitCode.CRASHED


def test_an_unreadable_assignment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert main(["work", str(tmp_path / "a.json")]) == ExitCode.CONFIG_ERROR
    assert "assignment" in capsys.readouterr().err
