"""The tokenizer of a checkpoint as `AutoTokenizer` loads it: the same ids for the same text."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from trainer.config import BYTES_VOCABULARY, Config
from trainer.data import open_data
from trainer.problems import DataProblem
from trainer.text.sources import META
from trainer.text.tokenizer import END_OF_TEXT, Bytes, make_tokenizer


def tokenizer_files(config: Config, name: str, cache: Path) -> dict[str, str]:
    """The text of each file by its name, for the tokenizer `name` of a checkpoint. Raises `DataProblem`."""
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.model.n_positions,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    if config.data.tokenizer.kind == "gpt2":
        settings |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    return {
        "tokenizer.json": definition(config, name, cache),
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
    }


def definition(config: Config, name: str, cache: Path) -> str:
    """The tokenizers library's JSON of `name`, out of the token cache or made again. Raises `DataProblem`."""
    if name == Bytes.name:
        return bytes_definition()
    kept = _in_cache(name, cache) or _made_again(config, name, cache)
    if kept is None:
        raise DataProblem(
            f"data.tokenizer: the text gives another tokenizer than the checkpoint's {name}: "
            "give --cache the folder that it was trained with"
        )
    return kept


def bytes_definition() -> str:
    """One token for each byte, its id the byte's value."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocab=_byte_letters(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    text: str = backend.to_str()
    return text


def _byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for 256 and on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(BYTES_VOCABULARY) if byte not in printable]
    letters = {byte: byte for byte in printable} | {byte: 256 + at for at, byte in enumerate(others)}
    return {chr(letters[byte]): byte for byte in range(BYTES_VOCABULARY)}


def _in_cache(name: str, cache: Path) -> str | None:
    """Whatever text it was made from: the name holds the hash of the definition."""
    for meta in sorted((cache / "tokens").glob(f"*/{META}")):
        try:
            if json.loads(meta.read_text())["tokenizer"] == name:
                return (meta.parent / "tokenizer.json").read_text()
        except (OSError, ValueError, KeyError):
            continue
    return None


def _made_again(config: Config, name: str, cache: Path) -> str | None:
    if config.data.tokenizer.kind == "bpe":
        open_data(config.data, config.sequence_length, cache)
        return _in_cache(name, cache)
    tokenizer = make_tokenizer(config.data.tokenizer, [])
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return (Path(folder) / "tokenizer.json").read_text() if tokenizer.name == name else None
