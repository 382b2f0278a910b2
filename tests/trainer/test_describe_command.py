"""`describe`: counts, costs, schedules and warnings, at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_rigs import ROOT, tiny_config

from trainer.__main__ import main
from trainer.commands.describe import describe
from trainer.facts import flops_per_token, validate


def moe(**settings: Any) -> dict[str, Any]:
    return tiny_config("recurrent_shared_moe", moe=settings)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(moe()))
    assert main(["describe", "--config", str(file), "--json", "--set", "moe.top_k=1"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["tokens_per_step"] == 32
    assert described["parameters_active"] < described["parameters_total"]
    assert described["warnings"]
    assert main(["describe", "--config", str(file), "--horizon", "1000"]) == 0
    said = capsys.readouterr().out
    assert "parameters_total" in said
    assert "flops_per_token             " in said
    assert ".0000" not in said
    assert "1,000 steps: rises to 0.003 in 20 steps, then falls to 0.0003" in said


def test_numbers_add_up() -> None:
    config = moe(aux_loss_coef=0.03, aux_loss_coef_end=0.01, aux_warmup_frac=0.05)
    d: Any = describe(config, horizon=100)
    forward = flops_per_token(validate(config)) + d["attention_flops_per_token"]
    assert sum(d["parameters"].values()) == d["parameters_total"]
    assert sum(d["memory"].values()) == d["memory_bytes"]
    assert d["training_flops_per_step"] == 3 * forward * 32
    assert d["training_flops"] == 100 * d["training_flops_per_step"]
    assert (d["horizon_steps"], d["training_tokens"]) == (100, 3200)
    assert d["balance_coefficient"] == {"start": 0.03, "end": 0.01}
    assert "balance_coefficient" not in describe(tiny_config())


@pytest.mark.parametrize(
    ("schedule", "horizon", "line"),
    [
        ({}, None, "cosine over the horizon: rises to 0.003 in the first 0.02 of it, then falls to 0.0003"),
        ({"family": "constant", "warmup_steps": 7}, None,
         "constant over the horizon: rises to 0.003 in 7 steps, then holds"),
        ({"family": "wsd", "horizon_steps": 500}, None,
         "wsd over 500 steps: rises to 0.003 in 10 steps, holds, and falls to 0.0003 over the last 20%"),
        ({"family": "linear", "horizon_steps": 500}, 50,
         "linear over 50 steps: rises to 0.003 in 1 steps, then falls to 0.0003"),
    ],
)  # fmt: skip
def test_the_schedule_in_a_line(schedule: dict[str, Any], horizon: int | None, line: str) -> None:
    assert describe(tiny_config(schedule=schedule), horizon)["schedule"] == line


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (moe(top_k=1), ["learns from the balance loss alone"]),
        (moe(top_k=1, renormalise=False), []),
        (moe(top_k=1, aux_loss_coef=0.0, z_loss_coef=0.1), ["from the z-loss alone", "nothing balances"]),
        (moe(top_k=1, aux_loss_coef=0.0), ["the router never learns", "nothing balances"]),
        (moe(top_k=1, aux_loss_coef=0.0, aux_loss_coef_end=0.1), ["learns from the balance loss alone"]),
        (moe(aux_loss_coef=0.0), ["nothing balances"]),
        (moe(aux_loss_coef=0.0, bias_update_rate=0.001), []),
        (moe(capacity_factor=0.5), ["drops 50%"]),
        (moe(capacity_factor=1.0), []),
        (tiny_config(), []),
        (tiny_config(data={"sequence_length": 8}), ["the last 8 of 16 positions are never trained"]),
        (tiny_config(schedule={"warmup_steps": 100}), ["still rises at the horizon"]),
        (tiny_config(model={"n_positions": 1024}, train={"batch_size": 8},
                     data={"tokenizer": {"kind": "gpt2"}}), ["1.6 GB"]),
        (tiny_config(model={"n_positions": 1024}, train={"batch_size": 4},
                     data={"tokenizer": {"kind": "gpt2"}}), []),
    ],
)  # fmt: skip
def test_warnings(config: dict[str, Any], words: list[str]) -> None:
    warnings: Any = describe(config, horizon=60)["warnings"]
    assert len(warnings) == len(words), warnings
    assert [word for word, said in zip(words, warnings, strict=True) if word not in said] == []


def test_no_tensor_library_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(tiny_config()))
    code = f"import sys; from trainer.__main__ import main; main(['describe', '--config', {str(file)!r}]); "
    code += "print(sorted({'torch', 'numpy', 'transformers', 'safetensors'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
