"""Policies over HTTP: the list, versions, the schema, and what is refused."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from api_client import LocalClient, sound_spec
from fastapi.testclient import TestClient
from worlds import World

from orchestrator.api.app import create_app
from orchestrator.store.database import Database


@pytest.fixture
def client(either: Database, tmp_path: Path) -> Iterator[TestClient]:
    world = World(either, tmp_path / "home")
    with LocalClient(create_app(world.context), raise_server_exceptions=False) as client:
        yield client


def document(client: TestClient, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/policies/race").json()["document"]
    return copy.deepcopy(found) | changes


def test_the_shipped_ones_are_listed_with_their_version_and_hash(client: TestClient) -> None:
    items = client.get("/v1/policies").json()["items"]
    assert [item["name"] for item in items] == [
        "asha",
        "calibrated",
        "median-stop",
        "percentile-stop",
        "race",
        "run-all",
        "short-screen",
        "stage-gate",
        "successive-halving",
    ]
    assert {item["version"] for item in items} == {1}
    assert all(len(item["hash"]) == 64 for item in items)


def test_a_new_version_is_created_once(client: TestClient) -> None:
    body = document(client, version=2, stop={"criterion": "outside_race", "f0": 0.04})
    first = client.post("/v1/policies", json=body)
    again = client.post("/v1/policies", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.headers["location"] == "/v1/policies/race?version=2"
    assert client.get(first.headers["location"]).json() == first.json()
    assert client.get("/v1/policies/race").json()["version"] == 2
    assert client.get("/v1/policies/race?version=1").json()["version"] == 1
    plan = client.post("/v1/plans", json=sound_spec(policy="race@2")).json()
    assert plan["policy"] == {"name": "race", "hash": first.json()["hash"]}


def test_another_document_under_a_taken_version_is_a_conflict(client: TestClient) -> None:
    assert client.post("/v1/policies", json=document(client, name="mine")).status_code == 201
    refused = client.post("/v1/policies", json=document(client, name="mine", sigma=0.1))
    assert refused.status_code == 409
    assert "raise `version`" in refused.json()["detail"]


def test_a_wrong_document_is_refused_with_its_fields(client: TestClient) -> None:
    body = document(client, stop={"any": [{"criterion": "outside_race", "strt": 0.1}]}, sgma=1)
    refused = client.post("/v1/policies", json=body)
    assert refused.status_code == 422
    assert {error["field"]: error["message"] for error in refused.json()["errors"]} == {
        "stop.any[0].strt": "there is no such field; did you mean `start`?",
        "sgma": "there is no such field; did you mean `sigma`?",
    }


@pytest.mark.parametrize("path", ["/v1/policies/rase", "/v1/policies/race?version=3"])
def test_what_is_not_there_is_missing(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("version", ["0", "-1", "x", str(2**63)])
def test_a_version_is_a_number_from_one(client: TestClient, version: str) -> None:
    assert client.get(f"/v1/policies/race?version={version}").status_code == 422


def test_every_policy_that_is_listed_is_valid_under_the_schema_that_is_served(client: TestClient) -> None:
    schema = client.get("/v1/policies/schema").json()
    validator = jsonschema.Draft202012Validator(schema)
    for item in client.get("/v1/policies").json()["items"]:
        validator.validate(item["document"])
    assert not validator.is_valid(document(client, sgma=1))
