"""The files of a report, its figures as images, and the verdicts of `compare`."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cli_rigs import Assay, CannedService, Request
from plotly.graph_objects import Figure

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = [
    what
    for what, there in (
        ("the package kaleido", find_spec("kaleido") is not None),
        ("a Chrome or Chromium", any(map(shutil.which, BROWSERS))),
    )
    if not there
]


def forms(request: Request) -> Any:
    """What the service would answer in each form."""
    asked = request.query
    return {"a": 1} if asked["format"] == "json" else f"{asked['format']} {asked.get('table', '')}".strip()


@pytest.fixture
def reporting(service: CannedService) -> CannedService:
    figure = Figure().add_scatter(x=[1, 2], y=[3, 4]).update_layout(height=300)
    service.routes["GET /v1/experiments/exp_1/report"] = forms
    service.routes["GET /v1/experiments/exp_1/figures"] = {"gaps": json.loads(figure.to_json())}
    return service


def test_report_writes_every_file(assay: Assay, reporting: CannedService, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    said = assay("report", "exp_1", "--out", str(folder))
    assert said.code == 0
    written = {file.name: file.read_text() for file in folder.iterdir()}
    assert json.loads(written.pop("report.json")) == {"a": 1}
    assert written == {
        "report.html": "html",
        "runs.csv": "csv runs",
        "evaluations.csv": "csv evaluations",
        "table.tex": "latex",
    }
    assert [line.rpartition("/")[2] for line in said.out.split()[1::2]] == [
        "report.html",
        "report.json",
        "runs.csv",
        "evaluations.csv",
        "table.tex",
    ]


def test_images_want_a_folder_and_a_known_ending(assay: Assay, reporting: CannedService) -> None:
    assert assay("report", "exp_1", "--images", "png", "--json").code == 2
    assert assay("report", "exp_1", "--out", "x", "--images", "bmp").code == 2


def test_without_kaleido_the_files_are_there_and_the_error_says_what_is_missing(
    assay: Assay, reporting: CannedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.reports.find_spec", lambda name: None)
    said = assay("report", "exp_1", "--out", str(tmp_path), "--images", "png")
    assert said.code == 1
    assert "pip install 'assay[images]'" in said.err
    assert (tmp_path / "report.html").is_file()


@pytest.mark.skipif(bool(MISSING), reason=f"images need {' and '.join(MISSING)}")
@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<svg")])
def test_figures_are_drawn(
    assay: Assay, reporting: CannedService, tmp_path: Path, ending: str, begins: bytes
) -> None:
    said = assay("report", "exp_1", "--out", str(tmp_path), "--images", ending)
    assert said.code == 0, said.err
    assert (tmp_path / "figures" / f"gaps.{ending}").read_bytes().startswith(begins)


def measure(value: float | None, percent: float | None = None) -> dict[str, float | None]:
    return {"value": value, "control": None, "percent": percent}


def interval(mean: float, reach: float | None = None) -> dict[str, Any]:
    ends = (None, None) if reach is None else (mean - reach, mean + reach)
    return {"mean": mean, "low": ends[0], "high": ends[1], "seeds": 1 if reach is None else 3}


def variant(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "variant": name,
        "is_control": False,
        "seeds": [0, 1, 2],
        "at": 1000,
        "eval_loss": 3.12,
        "control_loss": 3.0,
        "gap": interval(0.12, 0.0497),
        "quality_drop_percent": interval(4.0, 1.66),
        "perplexity_change_percent": interval(12.7, 5.2),
        "fewer_parameters_percent": 50.0,
        "band": "good",
        "band_within": ["excellent", "good"],
        "params_total": measure(62e6, -50.0),
        "params_active": measure(62e6, -50.0),
        "flops_per_token": measure(1.2e8, -45.0),
        "tokens_per_second": measure(1e5, 80.0),
        "peak_memory_bytes": measure(2e9, None),
        "time_to_target": {
            "target_loss": 3.0,
            "seconds": 95.0,
            "control_seconds": 50.0,
            "percent": 90.0,
            "at_most": True,
        },
        "invalid": None,
        "waiting": None,
        "notes": [],
        "points": [],
    } | changes


NOTHING_COMPARED = {
    "at": None,
    "eval_loss": None,
    "gap": None,
    "quality_drop_percent": None,
    "perplexity_change_percent": None,
    "band": None,
    "band_within": [],
    "time_to_target": None,
}


def test_compare_shows_the_variants_over_their_seeds(assay: Assay, service: CannedService) -> None:
    variants = [
        variant("half", notes=["seed 3 is left out: it failed (crashed)"]),
        variant("other", **NOTHING_COMPARED, invalid="their tokenizers differ (a and b)"),
        variant("late", **NOTHING_COMPARED, waiting="late has no evaluation yet"),
    ]
    view = {"experiment_id": "exp_1", "control": "full", "axis": "step", "variants": variants, "rows": []}
    service.routes["GET /v1/experiments/exp_1/compare"] = view
    out = assay("compare", "exp_1").out
    lines = [line.split() for line in out.splitlines()]
    assert ["half", "1,000", "3.120", "+0.120", "+4.00", "+12.7", "good"] in lines
    ends = "+0.070 to +0.170 +2.34 to +5.66 +7.5 to +17.9"
    assert ["half", "3", *ends.split()] in lines
    assert "half: the interval reaches from excellent to good" in out
    assert "half: seed 3 is left out: it failed (crashed)" in out
    assert "other, invalid: their tokenizers differ (a and b)" in out
    assert "late, not yet: late has no evaluation yet" in out
    assert "62M -50%" in out
    assert "100k +80%" in out
    assert "≤ 1:35 +90%" in out
