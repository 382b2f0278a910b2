"""The token cache: made once even when two start at once, never half made, found again at no cost."""

import errno
import json
import os
import pty
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from trainer_rigs import ROOT, TIMEOUT

from trainer.config import DataConfig, TokenizerConfig
from trainer.data import open_data
from trainer.problems import DataProblem
from trainer.text.columns import Texts
from trainer.text.corpus import write_corpus
from trainer.text.progress import progress

OPEN = (
    "import logging, sys; logging.basicConfig(level='INFO'); from pathlib import Path; "
    "from trainer.data import open_data; from trainer.config import *; "
    "d = open_data(DataConfig.model_validate_json(sys.argv[1]), 16, Path(sys.argv[2])); "
    "heavy = {'datasets', 'tokenizers', 'pyarrow', 'huggingface_hub', 'rich', 'torch'}; "
    "print(d.evaluation_set, len(d.train), *sorted(heavy & set(sys.modules)))"
)
BPE = TokenizerConfig(kind="bpe", vocab_size=300)


def squares(path: Path, count: int = 2000) -> DataConfig:
    rows = [json.dumps({"text": f"Line {n} says that {n * n} is the square of {n}."}) for n in range(count)]
    path.write_text("\n".join(rows))
    return DataConfig(source=str(path), tokenizer=BPE)


def opening(config: DataConfig, cache: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, config.model_dump_json(), str(cache)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(process: "subprocess.Popen[str]") -> tuple[list[str], str]:
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    return out.split(), err


def left_in(cache: Path) -> list[str]:
    """What a build has left but its lock."""
    return [path.name for path in (cache / "tokens").iterdir() if path.suffix != ".lock"]


def test_two_workers_starting_at_once_make_one_cache(tmp_path: Path) -> None:
    config = squares(tmp_path / "squares.jsonl")
    both = [opening(config, tmp_path / "cache") for _ in range(2)]
    answers = [done(process) for process in both]
    first, second = (out for out, _ in answers)
    assert first[:2] == second[:2]
    assert sum(err.count("preparing the text") for _, err in answers) == 1
    assert len(left_in(tmp_path / "cache")) == 1
    # A third start reads it without the libraries that made it.
    assert done(opening(config, tmp_path / "cache"))[0] == first[:2]


def test_the_tokens_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    config = squares(tmp_path / "squares.jsonl", 30_000)
    both = [opening(config, tmp_path / threads, RAYON_NUM_THREADS=threads) for threads in ("1", "4")]
    for process in both:
        done(process)
    for name in ("train.bin", "held_out.bin", "tokenizer.json", "meta.json"):
        one, four = (next((tmp_path / threads).glob(f"tokens/*/{name}")) for threads in ("1", "4"))
        assert one.read_bytes() == four.read_bytes()


def test_a_killed_build_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    config = squares(tmp_path / "squares.jsonl", 30_000)
    process = opening(config, tmp_path)
    deadline = time.monotonic() + TIMEOUT
    while not [*tmp_path.glob("tokens/*.tmp/scratch/text")]:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
    process.kill()
    process.communicate()
    assert [Path(name).suffix for name in left_in(tmp_path)] == [".tmp"]
    small = config.model_copy(update={"tokenizer": TokenizerConfig(kind="bytes")})
    assert len(open_data(small, 16, tmp_path).train) > 500_000
    done(opening(config, tmp_path))
    assert [Path(name).suffix for name in left_in(tmp_path)] == ["", ""]


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    config = squares(tmp_path / "squares.jsonl")
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); "
    )
    command = [sys.executable, "-c", limit + OPEN, config.model_dump_json(), str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27] File too large" in ended.stderr
    assert left_in(tmp_path) == []
    with pytest.raises(OSError, match="No space left") as caught:
        write_corpus(Texts(["text"]), 0.1, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    config = squares(tmp_path / "squares.jsonl")
    whole = open_data(config, 16, tmp_path)
    (folder,) = (path for path in (tmp_path / "tokens").iterdir() if path.is_dir())
    for name, content in (("train.bin", b"1"), ("held_out.bin", None), ("meta.json", b"{}")):
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        again = open_data(config, 16, tmp_path)
        assert np.array_equal(again.train, whole.train)
        assert again.evaluation_set == whole.evaluation_set


def test_another_text_has_another_cache(tmp_path: Path) -> None:
    first = open_data(squares(tmp_path / "text.jsonl"), 16, tmp_path)
    second = open_data(squares(tmp_path / "text.jsonl", 2001), 16, tmp_path)
    assert len(first.train) < len(second.train)
    assert len(left_in(tmp_path)) == 2


def test_a_text_shorter_than_a_sequence_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=r"data\.source: .* lower data\.sequence_length"):
        open_data(squares(tmp_path / "text.jsonl"), 500_000, tmp_path)


def test_a_log_gets_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        with progress("reading", 4_000_000, every=0) as advance:
            advance(1_000_000)
        with progress("reading") as advance:
            advance(1_000_000)
    (line,) = caplog.messages
    assert line.startswith("reading: 1.0 of 4.0 MB, ")


def test_a_terminal_shows_a_bar(tmp_path: Path) -> None:
    config = squares(tmp_path / "squares.jsonl")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", OPEN, config.model_dump_json(), str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how a terminal says that its last writer is gone
        while part := os.read(ours, 65536):
            shown += part
    assert process.wait(TIMEOUT) == 0
    os.close(ours)
    assert "tokenising" in shown.decode()
    assert "━" in shown.decode()
