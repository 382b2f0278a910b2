"""`assay policies`: the list, one as trees, one added, the schema."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_rigs import Assay, CannedService

RACE = json.loads((Path(__file__).parents[2] / "configs" / "policies" / "race.json").read_text())
CALIBRATED = json.loads((Path(__file__).parents[2] / "configs" / "policies" / "calibrated.json").read_text())


def item(document: dict[str, Any]) -> dict[str, Any]:
    return {"name": document["name"], "version": 1, "hash": "ab" * 32, "document": document}


def test_the_list_says_version_and_hash(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/policies"] = {"items": [item(RACE)], "next_cursor": None}
    out = assay("policies").out
    assert "race" in out
    assert "abababababab" in out
    assert json.loads(assay("policies", "--json").out)["items"] == [item(RACE)]


def test_one_is_shown_as_trees_with_every_number(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/policies/calibrated"] = item(CALIBRATED)
    out = assay("policies", "show", "calibrated").out
    for words in (
        "calibrated@1",
        "plateau  floor 0.002, sigmas 2.0",
        "beats_control  margin 0.01",
        "sigma 0.005",
    ):
        assert words in out
    assert json.loads(assay("policies", "show", "calibrated", "--json").out) == item(CALIBRATED)


def test_a_version_is_asked_for_by_its_sign(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/policies/race"] = item(RACE)
    assert "promote" in assay("policies", "show", "race@1").out
    assert service.requests[-1].query == {"version": "1"}
    refused = assay("policies", "show", "race@one")
    assert (refused.code, "a version is a number, as in `race@1`" in refused.err) == (2, True)


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_file_is_recorded(assay: Assay, service: CannedService, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"mine.{ending}"
    file.write_text(json.dumps(RACE))  # JSON is YAML, too
    service.routes["POST /v1/policies"] = (201, item(RACE))
    assert "race@1 is recorded (abababababab)" in assay("policies", "add", str(file)).out
    assert service.requests[-1].body == RACE
    assert json.loads(assay("policies", "add", str(file), "--json").out) == item(RACE)


def test_what_the_service_refuses_is_told(assay: Assay, service: CannedService, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(RACE))
    problem = {"title": "That contradicts", "status": 409, "detail": "race version 1: raise `version`"}
    service.routes["POST /v1/policies"] = (409, problem)
    said = assay("policies", "add", str(file))
    assert (said.code, "raise `version`" in said.err) == (1, True)


def test_the_schema_is_printed_as_json(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/policies/schema"] = {"title": "Policy"}
    assert json.loads(assay("policies", "--schema").out) == {"title": "Policy"}


@pytest.mark.parametrize(
    "words",
    [
        ("--url", "URL", "policies", "show", "race"),
        ("policies", "--url", "URL", "show", "race"),
        ("policies", "show", "race", "--url", "URL"),
    ],
)
def test_the_address_may_stand_anywhere(
    assay: Assay, service: CannedService, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ASSAY_URL", "http://127.0.0.1:1")
    service.routes["GET /v1/policies/race"] = item(RACE)
    said = assay(*[service.url if word == "URL" else word for word in words])
    assert said.code == 0, said.err
