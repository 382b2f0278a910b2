"""The protocol's own experiments, as tiny twins, with a real service and real workers, to their ends."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_service import Service

from orchestrator.cli.files import read_spec

SPECS = Path(__file__).parents[2] / "configs" / "experiments"
SCREENED = {"aux-0.0", "aux-0.005", "aux-0.01", "aux-0.02"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """With a slot for each run: to start a worker costs more than the few steps that these train."""
    service = Service(tmp_path / "home", ASSAY_SLOTS="5", ASSAY_HEARTBEAT_SECONDS="0.5")
    service.start()
    yield service
    service.clean()


def shortened(name: str, eval_every: int, *steps: int) -> dict[str, Any]:
    """The spec with fewer steps in each stage; all else as it is."""
    spec: dict[str, Any] = read_spec(SPECS / f"{name}.yaml")
    for stage, at in zip(spec["stages"], steps, strict=True):
        stage["steps"] = at
    spec["base"]["schedule"] = spec["base"].get("schedule", {}) | {"horizon_steps": None}
    return spec | {"eval_every": eval_every}


def runs_of(service: Service, experiment: str) -> dict[str, Any]:
    return {run["variant"]: run for run in service.get(f"/v1/experiments/{experiment}/runs")["items"]}


@pytest.mark.timeout(600)
def test_the_tiny_lean_matrix_finds_its_variants_replays_and_reports(service: Service) -> None:
    spec = shortened("tiny-lean-matrix", 20, 40, 80, 120)
    experiment = service.post("/v1/experiments", spec)["id"]
    assert service.until_ended(experiment, 400)["status"] == "succeeded"
    runs = runs_of(service, experiment)
    assert set(runs) == SCREENED | {"top1", "num_experts-4", "num_experts-12"}
    (origin,) = [
        d
        for d in service.get("/v1/decisions", run_id=runs["top1"]["id"])["items"]
        if d["reason"] == "best_of"
    ]
    best = origin["evidence"]["ranked"][0]
    expected = dict(runs[best]["config"]["moe"]) | {"top_k": 1}
    assert runs["top1"]["config"]["moe"] == expected
    for name, experts in (("num_experts-4", 4), ("num_experts-12", 12)):
        assert runs[name]["config"]["moe"]["num_experts"] == experts
        assert runs[name]["step"] in {80, 120}
    replayed = service.get(f"/v1/experiments/{experiment}/replay")
    assert (replayed["differences"], replayed["exact"]) == ([], True)
    assert replayed["reproduced"] == replayed["decisions"] > 30
    page = service.text(f"/v1/experiments/{experiment}/report", format="html")
    assert len(re.findall(r"Plotly\.newPlot\(", page)) >= 5


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_the_tiny_half_parameter_study_ends_in_a_verdict_band(service: Service) -> None:
    spec = shortened("tiny-half-parameter", 20, 40, 80)
    spec["stages"][1]["promote"] = {"best": 4, "eligible": "all"}
    experiment = service.post("/v1/experiments", spec)["id"]
    assert service.until_ended(experiment, 400)["status"] == "succeeded"
    compared = service.get(f"/v1/experiments/{experiment}/compare")
    bands = {row["variant"]: row["points"][-1]["band"] for row in compared["rows"] if row["points"]}
    assert bands["half-aux-0.03"] in {"better", "excellent", "good", "borderline", "weak"}
    assert bands["dense"] is None
    assert service.get(f"/v1/experiments/{experiment}/replay")["exact"]


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_the_tiny_short_screen_asks_for_the_first_gap_and_its_growth(service: Service) -> None:
    experiment = service.post("/v1/experiments", shortened("tiny-short-screen", 20, 60, 80))["id"]
    assert service.until_ended(experiment, 400)["status"] == "succeeded"
    decided = service.get("/v1/decisions", experiment_id=experiment, limit=500)["items"]
    gate = {
        d["variant"]: d for d in decided if d["kind"] in {"promote", "decline"} and d["stage"] == "screen"
    }
    assert set(gate) >= {"full", "half"}
    asked = {part["name"] for part in gate["half"]["criteria"][0]["parts"]}
    assert asked == {"first_gap", "non_widening", "stable", "healthy_routing"}
    assert service.get(f"/v1/experiments/{experiment}/replay")["exact"]


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_a_race_stops_the_slowest_at_its_points_with_real_workers(service: Service) -> None:
    spec = shortened("tiny-a1-aux-loss", 10, 40, 80, 120)
    rates = {"fast": 0.003, "slow": 1e-5, "slower": 1e-6, "slowest": 1e-7}
    variants = {"aux-0.01": {}} | {name: {"optimizer.lr": rate} for name, rate in rates.items()}
    spec["stages"] = [{"name": "long", "steps": 120, "variants": variants}]
    experiment = service.post("/v1/experiments", spec | {"policy": "race"})["id"]
    assert service.until_ended(experiment, 400)["status"] == "succeeded"
    runs = runs_of(service, experiment)
    assert (runs["aux-0.01"]["step"], runs["fast"]["step"]) == (120, 120)
    assert runs["slowest"]["reason"] == "outranked"
    assert runs["slowest"]["step"] < 120
    assert service.get(f"/v1/experiments/{experiment}/replay")["exact"]
