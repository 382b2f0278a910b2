"""The token cache: made once even when two start at once, found again at no cost, drawn from by step."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trainer_rigs import ROOT

from trainer.config import DataConfig, TokenizerConfig
from trainer.data import open_data
from trainer.prepare import split
from trainer.problems import DataProblem

OPEN = (
    "import sys; from pathlib import Path; from trainer.data import open_data; from trainer.config import *; "
    "d = open_data(DataConfig.model_validate_json(sys.argv[1]), 16, Path(sys.argv[2])); "
    "print(d.evaluation_set, len(d.train), 'datasets' in sys.modules, 'torch' in sys.modules)"
)


def _write_lines(path: Path) -> Path:
    rows = [json.dumps({"text": f"Line {n} says that {n * n} is the square of {n}."}) for n in range(2000)]
    path.write_text("\n".join(rows))
    return path


def test_two_workers_starting_at_once_make_one_cache(tmp_path: Path) -> None:
    source = _write_lines(tmp_path / "squares.jsonl")
    config = DataConfig(source=str(source), tokenizer=TokenizerConfig(kind="bpe", vocab_size=300))
    command = [sys.executable, "-c", OPEN, config.model_dump_json(), str(tmp_path / "cache")]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=90) for process in both]
    assert [p.returncode for p in both] == [0, 0], answers
    first, second = (out.split() for out, _ in answers)
    assert first[:2] == second[:2]
    folders = [p for p in (tmp_path / "cache" / "tokens").iterdir() if p.is_dir()]
    assert len(folders) == 1
    # A third start reads it without the libraries that made it.
    third = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert third == [*first[:2], "False", "False"]


def test_a_batch_is_a_function_of_seed_and_step(cache: Path) -> None:
    data = open_data(DataConfig(source="pydoc"), 16, cache)
    again = data.batch(3, 1000, 4, 16)
    assert np.array_equal(data.batch(3, 1000, 4, 16), again)
    assert not np.array_equal(data.batch(3, 1001, 4, 16), again)
    assert not np.array_equal(data.batch(4, 1000, 4, 16), again)
    assert again.shape == (4, 17)


@pytest.mark.parametrize("length", [5, 16, 64, 1000])
def test_every_held_out_token_is_predicted_once_at_any_length(length: int, cache: Path) -> None:
    data = open_data(DataConfig(source="pydoc", evaluation_tokens=100), 16, cache)
    targets = np.concatenate([w[:, 1:].ravel() for w in data.evaluation_windows(length)])
    assert np.array_equal(targets, data.held_out[1:].astype(np.int64))


def test_held_out_documents_are_not_trained_on() -> None:
    documents = [f"{n}\n" for n in range(5000)]
    parts = split(documents, 0.05)
    assert sorted([*parts.train, *parts.held_out], key=int) == documents
    assert len(parts.held_out) == pytest.approx(250, abs=2)
    few = split(["abcdefghij" * 10], 0.1)
    assert (len(few.train[0]), len(few.held_out[0])) == (90, 10)


def test_a_damaged_cache_and_a_short_text_are_named(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text("All work and no play.\n" * 600)
    config = DataConfig(source=str(source))
    with pytest.raises(DataProblem, match=r"lower data\.sequence_length"):
        open_data(config, 50_000, tmp_path / "cache")
    next((tmp_path / "cache" / "tokens").glob("*/train.bin")).write_bytes(b"1")
    with pytest.raises(DataProblem, match="delete the folder"):
        open_data(config, 16, tmp_path / "cache")


def test_wikitext_without_network_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_args: object, **_options: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataProblem, match="HF_HOME"):
        open_data(DataConfig(source="wikitext-103"), 16, tmp_path)
