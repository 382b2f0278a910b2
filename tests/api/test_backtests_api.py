"""Backtests and calibrations over HTTP: shapes, refusals, and that nothing is written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_client import LocalClient
from fastapi.testclient import TestClient
from worlds import World

from orchestrator.api.app import create_app
from orchestrator.store.database import Database

CURVES = [
    {
        "config": f"c{i}",
        "run": str(r),
        "points": [[s, 3 + i / 10 + r / 100 + 9 / s] for s in (10, 20, 30, 40)],
    }
    for i in range(6)
    for r in range(2)
]
QUESTION = {
    "policy": "race",
    "against": ["run-all", "asha"],
    "history": {"curves": CURVES},
    "stages": [20, 40],
    "sets": 10,
    "size": [3, 5],
}


@pytest.fixture
def client(either: Database, tmp_path: Path) -> Iterator[TestClient]:
    world = World(either, tmp_path / "home")
    with LocalClient(create_app(world.context), raise_server_exceptions=False) as client:
        yield client


def test_a_backtest_answers_with_a_score_for_each_policy(client: TestClient) -> None:
    body = client.post("/v1/backtests", json=QUESTION).json()
    assert [score["policy"] for score in body["scores"]] == ["race", "run-all", "asha"]
    assert body["scores"][1]["cost"]["value"] == 1
    assert {"value", "low", "high"} == body["scores"][0]["regret"].keys()
    assert [(d["policy"], d["other"]) for d in body["differences"]] == [
        ("race", "run-all"),
        ("run-all", "race"),
        ("race", "asha"),
        ("asha", "race"),
    ]
    assert client.post("/v1/backtests", json=QUESTION).json() == body


def test_a_calibration_answers_with_noise_and_margins(client: TestClient) -> None:
    asked = {"history": {"curves": CURVES}, "policy": "stage-gate"}
    body = client.post("/v1/calibrations", json=asked).json()
    assert [found["step"] for found in body["noise"]] == [10, 20, 30, 40]
    assert body["noise"][0]["sigma"] == pytest.approx(0.01 / 2**0.5)
    assert {margin["of"] for margin in body["margins"]} == {"difference of two runs", "one run"}


@pytest.mark.parametrize("path", ["/v1/backtests", "/v1/calibrations"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"policy": "rase"}, "policy"),
        ({"history": {"experiments": []}}, "history"),
        ({"history": {"curves": [{"config": "a", "points": [[1, 1.0], [2, "much"]]}]}}, None),
        ({"colour": 1}, "colour"),
    ],
)
def test_bad_input_is_a_problem_that_names_the_field(
    client: TestClient, path: str, change: dict[str, Any], field: str | None
) -> None:
    asked = QUESTION if path.endswith("backtests") else {"history": QUESTION["history"], "policy": "race"}
    response = client.post(path, json=asked | change)
    assert response.status_code == 422, response.text
    errors = {error["field"] for error in response.json()["errors"]}
    assert (field or "history.curves[0].points[1][1]") in errors


def test_a_loss_that_is_no_number_in_json_is_refused(client: TestClient) -> None:
    curves = [{"config": "a", "points": [[1, 1.0], [2, float("nan")]]}]
    text = json.dumps(QUESTION | {"history": {"curves": curves}})
    response = client.post("/v1/backtests", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert "finite" in response.text


def test_an_experiment_that_is_not_there_is_a_404(client: TestClient) -> None:
    response = client.post("/v1/backtests", json=QUESTION | {"history": {"experiments": ["exp_7"]}})
    assert response.status_code == 404
