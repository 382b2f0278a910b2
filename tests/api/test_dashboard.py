"""The page that a browser opens first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_client import LocalClient, sound_spec
from fastapi.testclient import TestClient
from worlds import World

from orchestrator.bootstrap import build_app
from orchestrator.settings import Settings
from orchestrator.store.database import Database


@pytest.fixture
def world(either: Database, tmp_path: Path) -> World:
    return World(either, tmp_path / "home")


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with LocalClient(build_app(Settings(home=world.home), world.context)) as client:
        yield client


def test_an_empty_service_says_what_to_do(client: TestClient) -> None:
    assert "assay submit" in client.get("/").text


def test_an_experiment_is_shown_with_its_report_a_click_away(client: TestClient) -> None:
    experiment = client.post("/v1/experiments", json=sound_spec(question="<b>why</b>")).json()["id"]
    page = client.get("/")
    assert f'href="/v1/experiments/{experiment}/report?format=html"' in page.text
    assert "&lt;b&gt;why" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_older_experiments_are_a_click_away(client: TestClient, world: World) -> None:
    for index in range(51):
        world.submit(name=f"e{index}")
    first = client.get("/").text
    assert "e50" in first
    assert 'href="/?cursor=exp_2"' in first
    assert ">e0<" in client.get("/?cursor=exp_2").text


def test_the_page_needs_the_token_too(world: World) -> None:
    with LocalClient(build_app(Settings(home=world.home, token="secret"), world.context)) as client:
        assert client.get("/").status_code == 401
