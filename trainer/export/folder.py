"""A checkpoint as a folder that transformers loads, with its tokenizer and, where need be, its code."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from orchestrator.protocol.exit import ExitCode
from trainer.checkpoint import Saved
from trainer.commands.saved import evaluated, load_model, open_checkpoint
from trainer.config import Config
from trainer.export.card import model_card
from trainer.export.gpt2 import gpt2_config, gpt2_tensors, is_gpt2
from trainer.export.sources import model_sources
from trainer.export.tokenizer import tokenizer_files
from trainer.facts import parameters_total
from trainer.models.transformer import LanguageModel
from trainer.problems import WorkerProblem

RECORD = "export.json"
"""Marks an export, and names its files: one that holds nothing else may be replaced."""
GPT2_END = 50_256
PREFIX = "model."  # of the wrapper's tensors


class Occupied(WorkerProblem):
    """The folder to write has something in it that is no export."""

    code = ExitCode.CONFIG_ERROR


def export(checkpoint: Path, out: Path, cache: Path) -> dict[str, object]:
    """Writes the folder `out`, whole or not at all; what is in it.

    `checkpoint` is a step folder or a run directory. An earlier export at `out` is replaced. Raises
    `CheckpointProblem`, `DataProblem` (the tokenizer is not to be had) and `Occupied`.
    """
    check_out(out)
    saved = open_checkpoint(checkpoint)
    config, model = load_model(saved)
    texts = _texts(config, saved, cache)
    files = sorted([*texts, "model.safetensors", RECORD])
    record = _record(config, saved) | {"files": files}
    building = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.tmp")
    building.mkdir(parents=True)
    try:
        for name, text in (texts | {RECORD: _json(record)}).items():
            (building / name).write_text(text, encoding="utf-8")
        _save_tensors(config, model, building / "model.safetensors")
        _put(building, out.absolute())
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return {"out": str(out), "parameters_total": parameters_total(config), **record}


def check_out(out: Path) -> None:
    """Raises `Occupied` unless `out` is free, empty, or an export to which nothing was added."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise Occupied(f"--out {out}: it is a file: give a new folder")
    there = {path.name for path in out.iterdir()}
    if foreign := sorted(there - _exported(out)):
        raise Occupied(
            f"--out {out}: it holds {foreign[0]}, which is of no earlier export: "
            "give a new folder, or empty this one"
        )


def _exported(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / RECORD).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _texts(config: Config, saved: Saved, cache: Path) -> dict[str, str]:
    """Every file but the tensors and the record."""
    gpt2 = is_gpt2(config)
    hub_config = gpt2_config(config) if gpt2 else _own_config(config)
    end = GPT2_END if config.data.tokenizer.kind == "gpt2" else None
    ends: dict[str, object] = {"bos_token_id": end, "eos_token_id": end}
    generation = ends | {"pad_token_id": end} | ({} if gpt2 else {"use_cache": False})
    return {
        **({} if gpt2 else model_sources()),
        **tokenizer_files(config, str(saved.state["tokenizer"]), cache),
        "config.json": _json(hub_config | ends | {"dtype": "float32"}),
        "generation_config.json": _json(generation),
        "README.md": model_card(config, saved.step, evaluated(saved), gpt2=gpt2),
    }


def _own_config(config: Config) -> dict[str, object]:
    m = config.model
    return {
        "model_type": "assay",
        "architectures": ["AssayForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_assay.AssayConfig",
            "AutoModelForCausalLM": "modeling_assay.AssayForCausalLM",
        },
        "vocab_size": config.vocab_size,
        "hidden_size": m.n_embd,
        "num_hidden_layers": m.n_layer,
        "num_attention_heads": m.n_head,
        "max_position_embeddings": m.n_positions,
        "tie_word_embeddings": False,  # a tied head is the embedding itself, not a tensor to tie
        "use_cache": False,
        "assay": _settings(config),
    }


def _settings(config: Config) -> dict[str, Any]:
    """What the model's code may read of a config: its groups, and what it works out itself."""
    worked_out = [name for name, value in vars(Config).items() if isinstance(value, property)]
    return {
        **config.model_dump(mode="json", include={"model", "moe", "train"}),
        **{name: getattr(config, name) for name in worked_out},
    }


def _record(config: Config, saved: Saved) -> dict[str, object]:
    kind = "GPT2LMHeadModel" if is_gpt2(config) else "AssayForCausalLM"
    names = ("tokenizer", "evaluation_set", "config_hash", "seed")
    return {
        "class": kind,
        "step": saved.step,
        **{name: value for name, value in evaluated(saved).items() if name != "step"},
        **{name: saved.state[name] for name in names},
    }


def _save_tensors(config: Config, model: LanguageModel, file: Path) -> None:
    state = dict(model.state_dict())
    named = gpt2_tensors(state) if is_gpt2(config) else {PREFIX + name: t for name, t in state.items()}
    save_file({name: t.contiguous() for name, t in named.items()}, file, metadata={"format": "pt"})
    shutil.copymode(file.with_name("config.json"), file)  # safetensors writes for its owner alone


def _put(building: Path, out: Path) -> None:
    """Renames `building` to `out`, in place of an earlier export or an empty folder."""
    if not out.exists():
        building.rename(out)
        return
    check_out(out)  # it may have changed since
    before = out.with_name(f"{building.name}.before")
    out.rename(before)
    building.rename(out)
    shutil.rmtree(before)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
