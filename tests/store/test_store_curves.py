"""Stored curves on both databases: found by id, name and content, listed newest first."""

import math
from typing import Any

from sqlalchemy import Connection
from store_rows import NOW

from orchestrator.store import curves
from orchestrator.store.database import Database


def add(connection: Connection, name: str = "dense", **changes: Any) -> int:
    values: dict[str, Any] = {
        "description": "",
        "source": {"kind": "import"},
        "identity": {"tokenizer": "gpt2"},
        "evaluations": [{"step": 500, "eval_loss": 4.0}, {"step": 1000, "eval_loss": math.nan}],
        "train_loss": [[10, 5.0], [20, math.inf]],
        "notes": ["a note"],
        "content_hash": "a" * 64,
        "created_at": NOW,
    }
    return curves.add_curve(connection, name=name, **(values | changes))


def test_a_row_comes_back_as_it_went_in(database: Database) -> None:
    with database.write() as connection:
        id_ = add(connection)
    with database.read() as connection:
        row = curves.get_curve(connection, id_)
        assert curves.get_curve(connection, id_ + 1) is None
    assert row is not None
    assert (row.id, row.name, row.created_at, row.notes) == (id_, "dense", NOW, ["a note"])
    assert row.evaluations == [{"step": 500, "eval_loss": 4.0}, {"step": 1000, "eval_loss": "NaN"}]
    assert row.train_loss == [[10, 5.0], [20, "Infinity"]]


def test_a_name_means_the_newest(database: Database) -> None:
    with database.write() as connection:
        add(connection)
        newest = add(connection, content_hash="b" * 64)
        add(connection, "other")
        named = curves.named_curve(connection, "dense")
        assert named is not None
        assert named.id == newest
        assert curves.named_curve(connection, "Dense") is None
        assert curves.curve_names(connection) == ["dense", "other"]


def test_the_same_content_is_found_under_its_own_name_alone(database: Database) -> None:
    with database.write() as connection:
        first = add(connection)
        add(connection)
        other = add(connection, "other")
        assert curves.same_curve(connection, "dense", "a" * 64) == first
        assert curves.same_curve(connection, "other", "a" * 64) == other
        assert curves.same_curve(connection, "dense", "b" * 64) is None


def test_lists_are_newest_first_in_pages_and_by_name(database: Database) -> None:
    with database.write() as connection:
        ids = [add(connection, name) for name in ("a", "b", "a")]
        listed = curves.list_curves(connection, limit=2)
        assert [head.id for head in listed] == [ids[2], ids[1]]
        assert [head.id for head in curves.list_curves(connection, before=ids[1])] == [ids[0]]
        assert [head.id for head in curves.list_curves(connection, name="a")] == [ids[2], ids[0]]
        assert not hasattr(listed[0], "train_loss")


def test_an_identity_may_be_missing(database: Database) -> None:
    with database.write() as connection:
        row = curves.get_curve(connection, add(connection, identity=None))
    assert row is not None
    assert row.identity is None
