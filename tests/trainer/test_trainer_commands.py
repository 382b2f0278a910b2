"""The commands as a person types them."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
from trainer_rigs import evaluations, exit_record, finish, make_assignment, start, tiny_config, work_here

from orchestrator.protocol.exit import ExitCode
from trainer.__main__ import main
from trainer.config import DataConfig
from trainer.contract.only_one import LOCK, only_one
from trainer.data import cache_key
from trainer.facts import check
from trainer.text.sources import locate


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
    assert main([*arguments, "--to-step", "4"]) == 0  # the refused horizon is not remembered


def test_a_run_past_its_target_is_left_as_it_is(
    config_file: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--config", str(config_file), "--run-dir", str(run), "--cache", str(cache)]
    assert main([*arguments, "--to-step", "4"]) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    assert main([*arguments, "--to-step", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["step"], result["status"]) == (
        4, "already at step 4, past --to-step 2: nothing was trained"
    )  # fmt: skip
    assert before == {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}


def test_one_process_at_a_time_in_a_run_directory(
    config_file: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--config", str(config_file), "--run-dir", str(run), "--cache", str(cache)]
    with only_one(run):
        assert main([*arguments, "--to-step", "2"]) == ExitCode.CONFIG_ERROR
        assert [path.name for path in run.iterdir()] == [LOCK]
    err = capsys.readouterr().err
    assert "--run-dir" in err
    assert str(os.getpid()) in err
    assert main([*arguments, "--to-step", "2"]) == 0


def test_sigterm_while_the_text_is_prepared(config_file: Path, tmp_path: Path) -> None:
    """The token cache is locked, as by another worker that prepares it: this one waits for it."""
    config = json.loads(config_file.read_text())
    cache = tmp_path / "cache"
    data = check(config).config["data"]
    folder = key_folder(data, cache)
    folder.parent.mkdir(parents=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments = ["--config", str(config_file), "--run-dir", str(tmp_path / "run"), "--to-step", "2"]
        process = start("train", *arguments, "--cache", str(cache))
        assert process.stderr is not None
        while "waiting for it" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        finish(process, ExitCode.PREEMPTED)
    assert exit_record(tmp_path / "run")["code"] == ExitCode.PREEMPTED
    assert "before the first step" in exit_record(tmp_path / "run")["message"]


def key_folder(data: Any, cache: Path) -> Path:
    """Where the tokens of `data` would be."""
    config = DataConfig.model_validate(data)
    return cache / "tokens" / cache_key(config, locate(config), cache)


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


def test_train_says_when_a_target_loss_was_reached(
    config_file: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--config", str(config_file), "--run-dir", str(tmp_path / "run"), "--to-step", "20"]
    arguments += ["--eval-every", "10", "--cache", str(cache), "--set", "train.target_losses=[9.0, 0.1]"]
    assert main([*arguments, "--json"]) == 0
    reached = json.loads(capsys.readouterr().out)["reached"]
    assert list(reached) == ["9.0"]
    assert reached["9.0"]["step"] == 10
    assert reached["9.0"]["wall_seconds"] > 0
    assert main(arguments) == 0
    assert "9.0" in capsys.readouterr().out
