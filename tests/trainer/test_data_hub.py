"""Datasets: folders through the code that reads the hub, the hub's cache, and no network at all."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from trainer_rigs import ROOT, tiny_config

from trainer.config import DataConfig
from trainer.data import open_data
from trainer.facts import check
from trainer.problems import DataProblem
from trainer.text.vocabulary import vocabulary_files

TRAIN = [f"Line {n} says that {n * n} is the square of {n}." for n in range(2000)]
VALIDATION = [f"Line {n} asks for the square of {n}." for n in range(200)]
ASK = """
import json, sys, time
from pathlib import Path
from trainer.config import DataConfig; from trainer.data import open_data
from trainer.problems import DataProblem
import datasets, huggingface_hub; from trainer.text.hub import gpt2_files
def said(what):
    start = time.monotonic()
    try: answer = what()
    except DataProblem as error: answer = str(error)
    return answer, time.monotonic() - start
def text():
    data = open_data(DataConfig(source="wikitext-103"), 16, Path(sys.argv[1]))
    return bytes(data.train.astype("uint8")).decode(), bytes(data.held_out.astype("uint8")).decode()
print(json.dumps([said(text), said(lambda: [str(path) for path in gpt2_files()])]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two splits and a column that is no text."""
    folder = tmp_path_factory.mktemp("squares")
    for split, rows in (("train", TRAIN), ("validation", VALIDATION)):
        table = pa.table({"text": rows, "n": range(len(rows))})
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def opened(folder: Path, cache: Path, **fields: str) -> tuple[str, str]:
    """(training text, held-out text)."""
    config = DataConfig.model_validate({"source": f"hf:{folder}", "evaluation_tokens": 10**6, **fields})
    assert check(tiny_config(data=config.model_dump())).tokens_per_step
    data = open_data(config, 16, cache)
    return bytes(data.train.astype("uint8")).decode(), bytes(data.held_out.astype("uint8")).decode()


def lines(rows: list[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def test_a_folder_is_read_with_its_own_held_out_split(folder: Path, tmp_path: Path) -> None:
    assert opened(folder, tmp_path, held_out_split="validation") == (lines(TRAIN), lines(VALIDATION))
    (made,) = (path for path in (tmp_path / "tokens").iterdir() if path.is_dir())
    assert {path.name for path in made.iterdir()} == {"train.bin", "held_out.bin", "meta.json"}


def test_a_share_of_a_split_is_held_out(folder: Path, tmp_path: Path) -> None:
    train, held_out = opened(folder, tmp_path, split="train[:50%]")
    assert sorted((train + held_out).splitlines()) == sorted(TRAIN[:1000])
    assert len(held_out.splitlines()) == 50


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "nope"}, "data.split: no 'nope' (Unknown split"),
        ({"held_out_split": "nope"}, "data.held_out_split: no 'nope' (Unknown split"),
        ({"subset": "en"}, "data.subset: BuilderConfig 'en' not found. Available: ['default']"),
        (
            {"text_field": "body"},
            "data.text_field: 'squares0' has no 'body': set it to one of its columns: n, text",
        ),
        ({"text_field": "n"}, "data.text_field: 'n' of 'squares0' holds int, not text"),
        ({"held_out_split": "validation[:0]"}, "data.held_out_split: no 'validation[:0]' (Instruction"),
    ],
)
def test_mistakes_about_a_dataset(fields: dict[str, str], message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataProblem) as caught:
        opened(folder, tmp_path, **fields)
    assert str(caught.value).startswith(message)
    assert not [*(tmp_path / "tokens").glob("*/")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.parquet", "x" * 100, "Parquet magic bytes not found"),
        ("train.jsonl", '{"text": "a"}\n' * 2000 + "{torn\n", "JSON parse error"),
        ("README.md", "nothing else", "doesn't contain any data files"),
    ],
)
def test_folders_that_cannot_be_read(name: str, content: str, words: str, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / name).write_text(content)
    with pytest.raises(DataProblem, match=r"data\.source: cannot read the folder 'broken'") as caught:
        opened(folder, tmp_path / "cache")
    assert words in str(caught.value)


def hub_cache(home: Path, folder: Path) -> None:
    """What `datasets` and huggingface_hub leave when they have had wikitext-103 and GPT-2's files once."""
    import datasets

    files = {split: str(next(folder.glob(f"{split}*"))) for split in ("train", "validation")}
    builder = datasets.load_dataset_builder("parquet", "x", data_files=files, cache_dir=str(home / "made"))
    builder.download_and_prepare()
    made = Path(builder.cache_dir)
    cached = home / "datasets" / "Salesforce___wikitext" / "wikitext-103-raw-v1" / "0.0.0" / "b08601e"
    cached.mkdir(parents=True)
    for split in files:
        shutil.copy(made / f"parquet-{split}.arrow", cached / f"wikitext-{split}.arrow")
    info: dict[str, Any] = json.loads((made / "dataset_info.json").read_text())
    info |= {"config_name": "wikitext-103-raw-v1", "dataset_name": "wikitext"}
    (cached / "dataset_info.json").write_text(json.dumps(info))
    model = home / "hub" / "models--openai-community--gpt2"
    (model / "snapshots" / "607a30d").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("607a30d")
    for path, name in zip(vocabulary_files(None), ("vocab.json", "merges.txt"), strict=True):
        shutil.copy(path, model / "snapshots" / "607a30d" / name)


def ask(home: Path, **environment: str) -> list[list[Any]]:
    """[answer, seconds] about wikitext-103 and GPT-2's vocabulary, of a process without a network."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens: every connection is refused
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        answer = subprocess.run(
            [sys.executable, "-c", ASK, str(home / "cache")],
            cwd=ROOT,
            env={**clean, "HF_HOME": str(home), "HF_ENDPOINT": nowhere, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
    both: list[list[Any]] = json.loads(answer.stdout)
    return both


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network_and_no_copy_ends_at_once_with_the_fix(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (text, text_seconds), (vocabulary, vocabulary_seconds) = ask(tmp_path, **environment)
    assert text.startswith(
        "data.source: the hub is out of reach, and 'Salesforce/wikitext' is not in its cache"
    )
    assert "HF_HOME" in text
    assert vocabulary.startswith("data.tokenizer: GPT-2's vocabulary is not here")
    assert "data.tokenizer.path" in vocabulary
    assert max(text_seconds, vocabulary_seconds) < 4


def test_what_was_had_once_needs_no_network(folder: Path, tmp_path: Path) -> None:
    hub_cache(tmp_path, folder)
    (text, _), (vocabulary, _) = ask(tmp_path)
    assert text == [lines(TRAIN), lines(VALIDATION)]
    assert [Path(path).name for path in vocabulary] == ["vocab.json", "merges.txt"]
    meta = next((tmp_path / "cache" / "tokens").glob("*/meta.json"))
    assert json.loads(meta.read_text())["revision"] == "b08601e"
