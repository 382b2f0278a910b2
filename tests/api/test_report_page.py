"""The report as a page: every section and figure, for experiments of every kind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_client import LocalClient
from fastapi.testclient import TestClient
from report_pages import figures_of, packed_of, read_page
from report_worlds import HALF, MoeWorld, half_as_good, nan_from
from worlds import World, falling

from orchestrator.api.app import create_app
from orchestrator.domain.ids import spell
from orchestrator.store.database import Database

Ask = Callable[..., str]
EVERYWHERE = {"learning-curves", "gaps", "loss-by-cost", "speed", "grad-norm"}
OF_EXPERTS = {
    "entropy",
    "worst-entropy",
    "largest-load",
    "smallest-load",
    "dead-experts",
    "aux-loss",
    "loads",
}


@pytest.fixture
def world(either: Database, tmp_path: Path) -> World:
    return World(either, tmp_path / "home", loss=falling({"wide": -0.2, "wider": -0.1, "slow": 0.3}))


@pytest.fixture
def moe(either: Database, tmp_path: Path) -> World:
    return MoeWorld(either, tmp_path / "home", loss=falling({"wide": -0.2, "slow": 0.3}))


@pytest.fixture
def ask() -> Iterator[Ask]:
    """The report of an experiment in one of its forms, as text."""
    opened: list[TestClient] = []

    def get(world: World, experiment: int, **params: str) -> str:
        client = LocalClient(create_app(world.context), raise_server_exceptions=True)
        opened.append(client)
        url = f"/v1/experiments/{spell('exp', experiment)}/report"
        response = client.get(url, params={"format": "html"} | params)
        assert response.status_code == 200, response.text
        return response.text

    yield get
    for client in opened:
        client.close()


def test_every_figure_of_a_dense_experiment_is_drawn(world: World, ask: Ask) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    page = ask(world, experiment)
    figures = figures_of(page)
    assert figures.keys() == EVERYWHERE
    curves = {trace["name"]: trace for trace in figures["learning-curves"]}
    assert curves["wide"]["x"] == list(range(20, 401, 20))
    assert len(curves["wide"]["y"]) == 20
    assert {"base (control)", "wide", "wider", "slow", "promote", "decline"} <= curves.keys()
    gaps = {trace["name"]: trace["y"] for trace in figures["gaps"]}
    assert gaps["wide"] == pytest.approx([-0.2] * 20, abs=1e-5)
    assert "mixtures of experts" not in read_page(page).text


def test_the_experts_of_a_mixture_are_drawn_by_layer(moe: World, ask: Ask) -> None:
    experiment = moe.submit()
    moe.run_to_end(experiment)
    page = ask(moe, experiment)
    figures = figures_of(page)
    assert figures.keys() == EVERYWHERE | OF_EXPERTS
    assert len(figures["loads"]) == 4
    shown = figures["loads"][0]["z"]
    assert (len(shown), len(shown[0])) == (3, 4)
    assert sum(shown[0]) == pytest.approx(4, abs=1e-3)
    assert [trace["visible"] for trace in figures["loads"]] == [True, False, False, False]


def test_the_page_is_whole(moe: World, ask: Ask) -> None:
    experiment = moe.submit(question="Is <b>wide</b> & 'deep' better?")
    moe.run_to_end(experiment)
    page = ask(moe, experiment)
    read = read_page(page)
    assert read.loads == []
    assert "<b>wide</b>" not in page
    assert "Is <b>wide</b> & 'deep' better?" in read.text
    ids = [id_ for id_ in read.ids if id_]
    assert len(ids) == len(set(ids))
    for section in ("plan", "verdicts", "gaps", "learning", "routing", "runs", "decisions", "again"):
        assert section in ids
    assert "assay submit spec.json --watch" in read.text
    assert page.count("plotly.js v") == 1


def test_every_decision_is_on_the_page_with_its_evidence(world: World, ask: Ask) -> None:
    experiment = world.submit()
    world.run_to_end(experiment)
    page = ask(world, experiment)
    with LocalClient(create_app(world.context)) as client:
        decisions = client.get("/v1/decisions", params={"limit": 500}).json()["items"]
    ids, packed = set(read_page(page).ids), packed_of(page)
    assert {d["id"] for d in decisions} <= ids
    kept = {d["id"]: d for d in decisions if d["kind"] in {"continue", "hold"}}
    assert packed.keys() == kept.keys()
    one = next(iter(kept))
    assert packed[one] == {"criteria": kept[one]["criteria"], "evidence": kept[one]["evidence"]}


def test_an_experiment_that_has_not_begun_has_a_page(world: World, ask: Ask) -> None:
    page = ask(world, world.submit())
    text = read_page(page).text
    assert figures_of(page) == {}
    assert "No run has an evaluation yet" in text
    assert "wide has no evaluation yet" in text
    assert "No run has said yet what it runs on" in text


def test_a_run_alone_has_a_page(world: World, ask: Ask) -> None:
    stages = [{"name": "only", "steps": 40, "variants": {"base": {}}}]
    experiment = world.submit(stages=stages)
    world.run_to_end(experiment)
    figures = figures_of(ask(world, experiment))
    assert figures.keys() == EVERYWHERE - {"gaps"}


def test_a_run_that_diverged_is_invalid_and_its_page_stands(
    either: Database, tmp_path: Path, ask: Ask
) -> None:
    world = World(either, tmp_path / "home", loss=nan_from(60, "wide"))
    experiment = world.submit()
    world.run_to_end(experiment)
    page = ask(world, experiment)
    curves = {trace["name"]: trace["y"] for trace in figures_of(page)["learning-curves"]}
    assert curves["wide"][2] is None
    text = read_page(page).text
    assert "wide diverged at step" in text
    assert "invalid" in text


def test_seeds_are_told_apart_and_the_band_is_shown(either: Database, tmp_path: Path, ask: Ask) -> None:
    world = World(either, tmp_path / "home", loss=half_as_good({0: 0.10, 1: 0.14, 2: 0.12}))
    experiment = world.submit(**HALF, seeds=[0, 1, 2])
    world.run_to_end(experiment)
    page = ask(world, experiment)
    names = {trace["name"] for trace in figures_of(page)["learning-curves"]}
    assert {"base/0 (control)", "half/0", "half/1", "half/2"} <= names
    (gap,) = [trace for trace in figures_of(page)["gaps"] if trace["name"] == "half"]
    assert gap["error_y"]["array"][-1] == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-3)
    assert "+0.120 [+0.070, +0.170]" in read_page(page).text
    assert 'class="excellent">excellent' in page


def test_a_variant_that_a_result_makes_is_told_of(world: World, ask: Ask) -> None:
    first = {"base": {}, "wide": {"width": 8}, "slow": {"rate": 0.1}}
    made = {"from": {"best_of": ["wide", "slow"]}, "set": {"rate": 0.5}}
    stages = [
        {"name": "screen", "steps": 40, "variants": first | {"made": made}},
        {"name": "long", "steps": 80, "promote": {"best": 1}},
    ]
    experiment = world.submit(stages=stages, shadow="short-screen")
    waiting = read_page(ask(world, experiment)).text
    assert "Variants that a result makes" in waiting
    assert "best of wide, slow" in waiting
    world.run_to_end(experiment)
    page = ask(world, experiment)
    assert "made" in {trace["name"] for trace in figures_of(page)["learning-curves"]}
    assert "What the shadow policy short-screen would have decided" in read_page(page).text
