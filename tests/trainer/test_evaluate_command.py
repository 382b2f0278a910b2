"""`evaluate`: the loss that training saw, of whichever checkpoint is good."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_rigs import evaluations, make_assignment, tiny_config, work_here

from orchestrator.protocol.exit import ExitCode
from trainer.__main__ import main
from trainer.perplexity import perplexity

Run = tuple[Path, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with checkpoints at steps 10 and 20 under bf16, and its token cache."""
    root = tmp_path_factory.mktemp("trained")
    text = root / "text.txt"
    text.write_text("".join(f"Line {n} of the text is as good as any other.\n" for n in range(100)))
    settings = {"data": {"source": str(text)}, "train": {"precision": "bf16"}}
    assignment = make_assignment(
        root / "run", root / "cache", config=tiny_config("recurrent_shared_moe", **settings)
    )
    work_here(assignment)
    return root / "run", root / "cache"


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy to damage."""
    shutil.copytree(trained[0], tmp_path / "run")
    shutil.copytree(trained[1], tmp_path / "cache")
    return tmp_path / "run", tmp_path / "cache"


def evaluate(checkpoint: Path, cache: Path, *options: str) -> int:
    return main(["evaluate", "--checkpoint", str(checkpoint), "--cache", str(cache), "--json", *options])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(0.0, 1.0), (2.6623, 14.329), (5.5452, 256.006), (700.0, float("inf")), (float("inf"), float("inf"))],
)
def test_perplexity(loss: float, expected: float) -> None:
    assert round(perplexity(loss), 3) == expected if expected < 1e300 else perplexity(loss) == expected


def test_it_is_what_training_saw(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run, cache = trained
    seen = evaluations(run)
    for path, step in ((run, 20), (run / "checkpoints" / "step-00000010", 10)):
        assert evaluate(path, cache, "--device", "cpu") == 0
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert result["step"] == step
        assert result["eval_loss"] == pytest.approx(seen[step].eval_loss, abs=1e-6)
        assert result["perplexity"] == pytest.approx(perplexity(result["eval_loss"]))
        assert result["device"] == "cpu"
    assert evaluate(run, cache, "--max-tokens", "50") == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 50


def test_a_damaged_checkpoint(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    newest = run[0] / "checkpoints" / "step-00000020"
    (newest / "model.safetensors").write_bytes(b"")
    assert evaluate(newest, run[1]) == ExitCode.CHECKPOINT_ERROR
    err = capsys.readouterr().err
    assert "model.safetensors" in err
    assert "give another" in err
    assert evaluate(*run) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 10
    (run[0] / "checkpoints" / "step-00000010" / "manifest.json").unlink()
    assert evaluate(*run) == ExitCode.CHECKPOINT_ERROR


@pytest.mark.parametrize(("name", "words"), [("nothing", "does not exist"), ("cache", "is neither")])
def test_no_checkpoint(name: str, words: str, trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(trained[0].parent / name, trained[1]) == ExitCode.CHECKPOINT_ERROR
    assert words in capsys.readouterr().err


def test_the_text_is_gone(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = trained[0].parent / "text.txt"
    source.rename(tmp_path / "text.txt")
    try:
        assert evaluate(trained[0], tmp_path / "empty") == ExitCode.DATA_ERROR
        assert str(source) in capsys.readouterr().err
    finally:
        (tmp_path / "text.txt").rename(source)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*trained, "--device", "cuda") == ExitCode.CONFIG_ERROR
    assert "--device cpu" in capsys.readouterr().err
