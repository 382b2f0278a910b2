"""Each wrong submission is refused with 422, the field and the fix; the real trainer's config is checked."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_client import LocalClient
from fastapi.testclient import TestClient
from worlds import World

from orchestrator.api.app import create_app
from orchestrator.bootstrap import load_trainer
from orchestrator.settings import BUILTIN
from orchestrator.store.database import Database

SOUND: dict[str, Any] = {
    "name": "sound",
    "base": {
        "model": {"kind": "recurrent_shared_moe", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32},
        "moe": {"num_experts": 4, "top_k": 1, "d_ff": 32},
        "data": {"source": "pydoc", "tokenizer": {"kind": "bytes"}, "evaluation_tokens": 512},
        "train": {"batch_size": 2},
    },
    "control": "control",
    "eval_every": 10,
    "stages": [
        {"name": "screen", "steps": 20, "variants": {"control": {}, "top2": {"moe.top_k": 2}}},
        {"name": "long", "steps": 40, "promote": {"best": 1}},
    ],
}


@pytest.fixture
def client(either: Database, tmp_path: Path) -> Iterator[TestClient]:
    world = World(either, tmp_path / "home")
    context = replace(world.context, trainers={"builtin": load_trainer(BUILTIN)})
    with LocalClient(create_app(context)) as client:
        yield client


def changed(path: str, value: Any) -> dict[str, Any]:
    """The sound spec with one place changed; `stages.0.variants` is a place."""
    document = copy.deepcopy(SOUND)
    *parents, last = path.split("/")
    place: Any = document
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return document


def test_the_sound_spec_is_accepted(client: TestClient) -> None:
    assert client.post("/v1/plans", json=SOUND).status_code == 200
    assert client.post("/v1/experiments", json=SOUND).status_code == 201


CASES = [
    ("unknown key", "nmae", "x", "nmae", "did you mean `name`"),
    ("unknown key in a stage", "stages/0/stpes", 10, "stages[0].stpes", "did you mean `steps`"),
    ("wrong type", "eval_every", "ten", "eval_every", "integer"),
    ("a truth value for a number", "eval_every", True, "eval_every", "integer"),
    ("no control", "control", "contrl", "control", "did you mean `control`"),
    ("steps that do not increase", "stages/1/steps", 20, "stages[1].steps", "above the stage before"),
    ("steps off the grid", "stages/1/steps", 45, "stages[1].steps", "multiple of eval_every"),
    (
        "a name twice",
        "stages/1/variants",
        {"top2": {"moe.top_k": 3}},
        "stages[1].variants.top2",
        "already a variant",
    ),
    (
        "a config twice",
        "stages/0/variants/twin",
        {"moe.top_k": 1},
        "stages[0].variants.twin",
        "same config as `control`",
    ),
    ("heads that do not divide", "base/model/n_head", 3, "base.model.n_head", "divi"),
    (
        "more choices than experts",
        "stages/0/variants/top2",
        {"moe.top_k": 5},
        "stages[0].variants.top2.moe.top_k",
        "num_experts",
    ),
    (
        "a misspelt axis",
        "stages/0/variants/top2",
        {"moe.topk": 2},
        "stages[0].variants.top2.moe.topk",
        "did you mean",
    ),
    ("an axis through a number", "stages/0/variants/top2", {"train.batch_size.x": 2}, None, "not an object"),
    ("too many slots", "resources", {"slots": 64}, "resources.slots", "at most 2"),
    ("an unknown policy", "policy", "stage-gat", "policy", "did you mean `stage-gate`"),
    ("an unknown trainer", "trainer", "bultin", "trainer", "did you mean `builtin`"),
    ("no stages", "stages", [], "stages", "at least 1"),
    ("a seed twice", "seeds", [1, 1], "seeds", "twice"),
    ("a name with a space", "name", "two words", "name", "letters, digits"),
    ("promotion into the first stage", "stages/0/promote", {"best": 1}, "stages[0].promote", "first stage"),
]


@pytest.mark.parametrize(
    ("path", "value", "field", "fix"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_wrong_spec_names_the_field_and_the_fix(
    client: TestClient, path: str, value: Any, field: str | None, fix: str
) -> None:
    for url in ("/v1/plans", "/v1/experiments"):
        response = client.post(url, json=changed(path, value))
        assert response.status_code == 422, response.text
        assert response.headers["content-type"] == "application/problem+json"
        errors = response.json()["errors"]
        assert any((field is None or e["field"] == field) and fix in e["message"] for e in errors), errors
    assert client.get("/v1/experiments").json()["items"] == []


def test_an_empty_text_is_refused(client: TestClient, tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("")
    response = client.post("/v1/experiments", json=changed("base/data/source", str(file)))
    assert response.status_code == 422
    (error,) = [e for e in response.json()["errors"] if e["field"].startswith("base.data")]
    assert "empty" in error["message"]


def test_every_wrong_field_is_named_at_once(client: TestClient) -> None:
    document = changed("eval_every", 0) | {"control": 3, "extra": 1}
    fields = {e["field"] for e in client.post("/v1/plans", json=document).json()["errors"]}
    assert fields == {"eval_every", "control", "extra"}


def test_nan_is_no_number_of_a_config(client: TestClient) -> None:
    body = '{"name": "x", "base": {"optimizer": {"lr": NaN}}, "control": "c", "stages": []}'
    response = client.post("/v1/plans", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
