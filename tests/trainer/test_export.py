"""Exported folders: transformers loads them without this project, and gives the same logits and ids."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from export_rigs import saved
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from trainer_rigs import tiny_config

from trainer.config import Config
from trainer.data import open_data
from trainer.export.folder import export
from trainer.facts import validate
from trainer.models.transformer import LanguageModel
from trainer.text.tokenizer import Bytes, Vocabulary

TEXT = "If x is a list,\n\n  x[0] -- née “élan” 💡\t3.14 <|endoftext|>it's done.  \n"
MOE = {"num_experts": 4, "top_k": 2, "d_ff": 16}
INDEXED = [
    tiny_config("recurrent_indexed", model={"depth_index": index})
    for index in ("embedding", "norm", "router", "ffn")
]
CONFIGS: dict[str, dict[str, Any]] = {
    "dense-tied": tiny_config(model={"tied": True, "n_inner": 24, "norm_eps": 1e-4}),
    "dense-untied": tiny_config(data={"tokenizer": {"kind": "gpt2"}}),
    "shared-moe": tiny_config("recurrent_shared_moe", data={"tokenizer": {"kind": "bpe", "vocab_size": 300}}),
    **{f"indexed-{config['model']['depth_index']}": config for config in INDEXED},
    "indexed-dense": tiny_config("recurrent_indexed", model={"ffn": "dense", "depth_index": "ffn"}),
    "stacked-moe": tiny_config(model={"ffn": "moe", "tied": True}, moe=MOE),
    "bias-balanced": tiny_config("recurrent_shared_moe", moe={"bias_update_rate": 0.5}),
    "capacity": tiny_config("recurrent_shared_moe", moe={"capacity_factor": 0.6, "renormalise": False}),
}
CONFIGS["indexed-dense"].pop("moe")
KINDS = pytest.mark.parametrize("kind", CONFIGS)


@dataclass(frozen=True)
class Exported:
    """An exported model beside what was exported."""

    folder: Path
    config: Config
    model: LanguageModel
    ids: Tensor

    @property
    def out(self) -> dict[str, Tensor]:
        return dict(load_file(f"{self.folder}.out.safetensors"))

    @property
    def said(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(Path(f"{self.folder}.json").read_text())
        return said


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Exported]:
    root = tmp_path_factory.mktemp("exports")
    made = {kind: exported(root, kind, cache) for kind in CONFIGS}
    hidden = ("PYTHONPATH", "ASSAY_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1"}
    script = Path(__file__).with_name("loads_exports.py")
    command = [sys.executable, str(script), TEXT, *(str(e.folder) for e in made.values())]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return made


def exported(root: Path, kind: str, cache: Path) -> Exported:
    config = validate(CONFIGS[kind])
    data = open_data(config.data, config.sequence_length, cache)
    training = saved(config, data, root / "runs" / kind)
    folder = root / kind
    export(root / "runs" / kind, folder, cache)
    ids = torch.randint(config.vocab_size, (3, 16))
    save_file({"ids": ids}, f"{folder}.ids.safetensors")
    return Exported(folder, config, training.model.eval(), ids)


@KINDS
def test_logits_are_the_same_before_and_after(kind: str, exports: dict[str, Exported]) -> None:
    e = exports[kind]
    with torch.no_grad():
        before = e.model(e.ids).logits
    if kind.startswith("dense"):
        assert e.said["class"] == "GPT2LMHeadModel"
        torch.testing.assert_close(e.out["logits"], before, rtol=1e-5, atol=2e-6)
    else:
        assert e.said["class"] == "AssayForCausalLM"
        assert torch.equal(e.out["logits"], before)
    loss = functional.cross_entropy(before[:, :-1].flatten(0, 1), e.ids[:, 1:].flatten())
    torch.testing.assert_close(e.out["loss"], loss)


@KINDS
def test_generation_takes_the_likeliest_token(kind: str, exports: dict[str, Exported]) -> None:
    e = exports[kind]
    ids = e.ids[:1, :4]
    with torch.no_grad():
        for _ in range(3):
            ids = torch.cat((ids, e.model(ids).logits[:, -1:].argmax(-1)), 1)
    assert e.out["generated"].tolist() == ids.tolist()


@pytest.mark.parametrize("kind", ["dense-tied", "dense-untied", "shared-moe"])
def test_the_tokenizer_gives_the_same_ids(kind: str, exports: dict[str, Exported]) -> None:
    e = exports[kind]
    tokenizer = e.config.data.tokenizer.kind
    definition = (e.folder / "tokenizer.json").read_text()
    ours = Bytes() if tokenizer == "bytes" else Vocabulary(tokenizer, definition)
    assert e.said["ids"] == ours.encode([TEXT]).tolist()
    assert e.said["text"] == TEXT
    if tokenizer != "bytes":
        assert ours.name == json.loads((e.folder / "export.json").read_text())["tokenizer"]


def test_what_is_tied_is_written_once(exports: dict[str, Exported]) -> None:
    tied, untied = exports["dense-tied"], exports["dense-untied"]
    assert "lm_head.weight" not in load_file(tied.folder / "model.safetensors")
    assert "lm_head.weight" in load_file(untied.folder / "model.safetensors")
    assert json.loads((tied.folder / "config.json").read_text())["tie_word_embeddings"] is True
    assert json.loads((untied.folder / "generation_config.json").read_text())["eos_token_id"] == 50_256


def test_the_code_imports_nothing_of_this_project(exports: dict[str, Exported]) -> None:
    code = "".join(path.read_text() for path in exports["shared-moe"].folder.glob("*.py"))
    assert "from ." in code
    assert "from trainer" not in code
    assert "import trainer" not in code
    assert not list(exports["dense-tied"].folder.glob("*.py"))
