"""The report as JSON, CSV, LaTeX and Plotly's JSON: the same numbers in each."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_client import LocalClient
from fastapi.testclient import TestClient
from report_pages import figures_of
from report_worlds import HALF, MoeWorld, half_as_good
from worlds import World

from orchestrator.api.app import create_app
from orchestrator.api.report_latex import escape
from orchestrator.api.report_tables import _csv
from orchestrator.services.report import changes
from orchestrator.services.views_report import ReportView
from orchestrator.store.database import Database


@pytest.fixture
def world(either: Database, tmp_path: Path) -> World:
    """A half-parameter study at two seeds, over."""
    world = MoeWorld(either, tmp_path / "home", loss=half_as_good({0: 0.10, 7: 0.14}))
    world.run_to_end(world.submit(**HALF, seeds=[0, 7]))
    return world


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with LocalClient(create_app(world.context)) as client:
        yield client


def report(client: TestClient, **params: str) -> Any:
    return client.get("/v1/experiments/exp_1/report", params=params)


def rows(client: TestClient, table: str) -> list[dict[str, str]]:
    response = report(client, format="csv", table=table)
    assert response.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(response.text)))


def test_the_json_is_the_whole_report(client: TestClient) -> None:
    body = report(client).text
    view = ReportView.model_validate_json(body)
    assert view.model_dump_json() == body
    assert view.policy.document["name"] == "stage-gate"
    assert view.service.version
    half = next(v for v in view.variants if v.name == "half")
    assert [(c.field, c.control, c.variant) for c in half.changes] == [("width", 8, 4)]
    assert {run.identity.device for run in view.runs if run.identity} == {"cpu"}


def test_a_csv_holds_the_numbers_of_the_json(client: TestClient) -> None:
    data = report(client).json()
    table = rows(client, "evaluations")
    assert len(table) == sum(len(run["evaluations"]) for run in data["runs"])
    for run in data["runs"]:
        mine = [row for row in table if row["run_id"] == run["id"]]
        assert [float(row["eval_loss"]) for row in mine] == [e["eval_loss"] for e in run["evaluations"]]
        assert [float(row["entropy"]) for row in mine] == [
            e["routing"]["entropy"] for e in run["evaluations"]
        ]
        points = next(row["points"] for row in data["compare"]["rows"] if row["run_id"] == run["id"])
        assert [float(row["gap"]) for row in mine] == [point["gap"] for point in points]


def test_a_csv_has_a_row_for_each_run(client: TestClient) -> None:
    table = {(row["variant"], row["seed"]): row for row in rows(client, "runs")}
    assert table.keys() == {("base", "0"), ("base", "7"), ("half", "0"), ("half", "7")}
    assert float(table["half", "7"]["gap"]) == pytest.approx(0.14)
    assert table["half", "0"]["band"] == "excellent"
    assert table["base", "0"]["is_control"] == "true"
    assert table["half", "0"]["evaluation_set"] == "e" * 8


def test_a_cell_is_no_formula_and_what_is_not_known_is_empty() -> None:
    text = _csv([{"a": "=HYPERLINK(1)", "b": None, "c": float("nan"), "d": -0.5, "e": 'x, "y"\nz'}])
    (row,) = csv.DictReader(io.StringIO(text))
    assert row == {"a": "'=HYPERLINK(1)", "b": "", "c": "nan", "d": "-0.5", "e": 'x, "y"\nz'}


def test_the_latex_table_is_balanced_and_of_one_width(client: TestClient) -> None:
    text = report(client, format="latex").text
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    assert lines[0].startswith(r"\begin{tabular}{lrr")
    assert lines[-1] == r"\end{tabular}"
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    columns = len(re.findall("[lr]", lines[0].partition("}")[2]))
    cells = [re.sub(r"\\&", "", line).count("&") + 1 for line in lines if line.endswith(r"\\")]
    assert cells == [columns] * 3
    assert sum(line.count("$") % 2 for line in lines) == 0
    (half,) = [line for line in lines if line.startswith("half")]
    assert "$+0.120$ $[-0.134, +0.374]$" in half  # 12.706 * 0.02828 / sqrt(2) = 0.254
    assert r"\," in half
    assert "excellent" in half


def test_what_latex_reads_is_written_out() -> None:
    assert escape("a_b & 50% #1 {x} $y$ ~^\\") == (
        r"a\_b \& 50\% \#1 \{x\} \$y\$ \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escape("– é") == "-- ?"


def test_the_figures_are_those_of_the_page(client: TestClient) -> None:
    figures = client.get("/v1/experiments/exp_1/figures").json()
    page = figures_of(report(client, format="html").text)
    assert figures.keys() == page.keys()
    assert {name: len(figure["data"]) for name, figure in figures.items()} == {
        name: len(traces) for name, traces in page.items()
    }
    assert len(figures["learning-curves"]["layout"]["updatemenus"][0]["buttons"]) == 3


def test_another_form_is_refused(client: TestClient) -> None:
    assert report(client, format="pdf").status_code == 422
    assert report(client, format="csv", table="secrets").status_code == 422
    assert client.get("/v1/experiments/exp_9/report?format=csv").status_code == 404
    assert client.get("/v1/experiments/exp_9/figures").status_code == 404


def test_configs_are_compared_field_by_field() -> None:
    found = changes({"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"b": 2, "c": [1, 2]}, "e": None})
    assert [(c.field, c.control, c.variant) for c in found] == [("a.b", 1, 2), ("d", 3, None)]
