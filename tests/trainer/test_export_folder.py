"""The folder that `export` writes: whole or not at all, and over nothing but an earlier export."""

import json
from pathlib import Path

import pytest
from export_rigs import saved
from trainer_rigs import tiny_config

from orchestrator.protocol.exit import ExitCode
from trainer.__main__ import main
from trainer.data import open_data
from trainer.facts import validate

BPE = {"kind": "bpe", "vocab_size": 270}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory, its text a file beside it, its token cache `tmp_path/cache`."""
    text = tmp_path / "private" / "novel.txt"
    text.parent.mkdir()
    text.write_text("".join(f"It was day {n} of the voyage, and nothing happened.\n" for n in range(200)))
    config = validate(tiny_config(data={"source": str(text), "tokenizer": BPE, "evaluation_tokens": 64}))
    data = open_data(config.data, config.sequence_length, tmp_path / "cache")
    saved(config, data, tmp_path / "run")
    return tmp_path / "run"


def export(run: Path, out: Path, cache: str = "cache") -> int:
    """Its exit code."""
    return main(
        ["export", "--checkpoint", str(run), "--out", str(out), "--cache", str(run.parent / cache), "--json"]
    )


def test_the_result_and_the_card(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(run, tmp_path / "out") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["class"], result["step"]) == ("GPT2LMHeadModel", 0)
    assert set(result["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForCausalLM.from_pretrained" in card
    assert "novel.txt" in card
    written = "".join(p.read_text() for p in (tmp_path / "out").iterdir() if p.suffix != ".safetensors")
    assert str(tmp_path) not in written


def test_an_earlier_export_is_replaced_and_nothing_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert export(run, out) == 0
    assert export(run, out) == 0
    (out / "notes.txt").write_text("mine")
    assert export(run, out) == ExitCode.CONFIG_ERROR
    assert "--out" in (err := capsys.readouterr().err)
    assert "notes.txt" in err
    assert (out / "notes.txt").read_text() == "mine"
    assert export(run, out / "notes.txt") == ExitCode.CONFIG_ERROR
    assert "new folder" in capsys.readouterr().err


def test_an_export_without_its_tokenizer_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, tmp_path / "again", cache="empty") == 0  # the text is there: it is made again
    (tmp_path / "private" / "novel.txt").unlink()
    assert export(run, tmp_path / "kept") == 0  # the text is gone, its tokenizer is not
    assert export(run, tmp_path / "none", cache="other") == ExitCode.DATA_ERROR
    assert "novel.txt" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"again", "kept", "run", "private", "cache", "empty"}


def test_another_text_is_another_tokenizer(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "private" / "novel.txt").write_text("Quite another story was told here.\n" * 200)
    assert export(run, tmp_path / "out", cache="other") == ExitCode.DATA_ERROR
    assert "--cache" in capsys.readouterr().err


def test_a_damaged_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "checkpoints" / "step-00000000"
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(100)
    assert export(folder, tmp_path / "out") == ExitCode.CHECKPOINT_ERROR
    assert "model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
