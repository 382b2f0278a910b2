"""The API as a client meets it: shapes, pages, keys, tokens and refusals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_client import LocalClient, sound_spec
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from worlds import World, falling

from orchestrator.api.app import create_app
from orchestrator.store.database import Database


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home", loss=falling({"wide": -0.2, "wider": -0.1, "slow": 0.3}))


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with LocalClient(create_app(world.context), raise_server_exceptions=False) as client:
        yield client


def submit(client: TestClient, **changes: Any) -> str:
    response = client.post("/v1/experiments", json=sound_spec(**changes))
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def finished(client: TestClient, world: World) -> str:
    experiment = submit(client)
    world.run_to_end(int(experiment.removeprefix("exp_")))
    return experiment


def test_an_accepted_spec_is_answered_with_the_experiment(client: TestClient) -> None:
    response = client.post("/v1/experiments", json=sound_spec())
    assert response.status_code == 201
    assert response.headers["location"] == "/v1/experiments/exp_1"
    body = response.json()
    assert body["status"] == "running"
    assert body["policy"]["name"] == "stage-gate"
    assert [(s["name"], s["steps"], s["status"]) for s in body["stages"]] == [
        ("screen", 100, "running"),
        ("confirm", 200, "waiting"),
        ("long", 400, "waiting"),
    ]
    assert client.get("/v1/experiments/exp_1").json() == body


def test_a_plan_writes_nothing_and_says_what_it_costs(client: TestClient) -> None:
    plan = client.post("/v1/plans", json=sound_spec()).json()
    assert plan["runs"] == 4
    assert [stage["most_steps"] for stage in plan["stages"]] == [400, 300, 400]
    assert plan["most_steps"] == 1100
    assert client.get("/v1/experiments").json()["items"] == []


def test_a_plan_warns_of_a_criterion_that_cannot_fire(client: TestClient) -> None:
    stages = sound_spec()["stages"]
    long = [stage | {"steps": steps} for stage, steps in zip(stages, (1000, 5000, 8000), strict=True)]
    plan = client.post("/v1/plans", json=sound_spec(stages=long, eval_every=500)).json()
    (warning,) = plan["warnings"]
    assert "needs 4 evaluations" in warning
    assert "cannot fire in screen" in warning


def test_the_same_key_and_body_is_the_same_experiment(client: TestClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = client.post("/v1/experiments", json=sound_spec(), headers=headers)
    again = client.post("/v1/experiments", json=sound_spec(), headers=headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    other = client.post("/v1/experiments", json=sound_spec(name="other"), headers=headers)
    assert other.status_code == 409
    assert other.json()["type"].endswith("conflict")


def test_a_finished_experiment_can_be_read_from_every_side(client: TestClient, world: World) -> None:
    experiment = finished(client, world)
    runs = client.get(f"/v1/experiments/{experiment}/runs").json()["items"]
    wide = next(run for run in runs if run["variant"] == "wide")
    assert wide["status"] == "succeeded"
    assert wide["gap"] == pytest.approx(-0.2)
    assert wide["config"] == {"width": 8, "rate": 1.0}
    evaluations = client.get(f"/v1/runs/{wide['id']}/evaluations").json()["items"]
    assert [e["step"] for e in evaluations] == list(range(20, 401, 20))
    assert evaluations[-1]["attempt"] == wide["attempts"]
    series = client.get(f"/v1/runs/{wide['id']}/series?name=train_loss&max_points=10").json()
    assert len(series["points"]) == 10
    assert series["total"] > 10
    assert client.get(f"/v1/runs/{wide['id']}/attempts").json()["items"][0]["resumed_from_step"] == 0
    compared = client.get(f"/v1/experiments/{experiment}/compare").json()
    row = next(row for row in compared["rows"] if row["variant"] == "wide")
    assert row["points"][0]["gap"] == pytest.approx(-0.2)
    decisions = client.get(f"/v1/decisions?experiment_id={experiment}&kind=promote&kind=decline").json()[
        "items"
    ]
    assert {d["kind"] for d in decisions} == {"promote", "decline"}
    assert client.get(f"/v1/decisions/{decisions[0]['id']}").json() == decisions[0]
    assert client.get("/v1/slots").json()["items"][0]["id"] == "cpu:0"
    assert "stage-gate" in {policy["name"] for policy in client.get("/v1/policies").json()["items"]}


def test_a_listing_comes_in_pages(client: TestClient) -> None:
    for index in range(3):
        submit(client, name=f"e{index}")
    first = client.get("/v1/experiments?limit=2").json()
    assert [e["name"] for e in first["items"]] == ["e2", "e1"]
    second = client.get(f"/v1/experiments?limit=2&cursor={first['next_cursor']}").json()
    assert [e["name"] for e in second["items"]] == ["e0"]
    assert second["next_cursor"] is None


def test_decisions_come_in_pages_without_loss(client: TestClient, world: World) -> None:
    experiment = finished(client, world)
    seen, cursor = [], ""
    while cursor is not None:
        url = f"/v1/decisions?experiment_id={experiment}&limit=7" + (f"&cursor={cursor}" if cursor else "")
        page = client.get(url).json()
        seen += [d["id"] for d in page["items"]]
        cursor = page["next_cursor"]
    everything = client.get(f"/v1/decisions?experiment_id={experiment}&limit=500").json()["items"]
    assert seen == [d["id"] for d in everything]


def test_the_report_is_one_page_that_loads_nothing(client: TestClient, world: World) -> None:
    experiment = finished(client, world)
    page = client.get(f"/v1/experiments/{experiment}/report?format=html").text
    assert "wide is the winner" in page
    assert "Plotly.newPlot" in page
    assert "<script src=" not in page
    assert "<link" not in page
    data = client.get(f"/v1/experiments/{experiment}/report").json()
    assert len(data["runs"]) == 4
    assert data["runs"][0]["evaluations"]


def test_names_of_people_are_shown_as_text(client: TestClient, world: World) -> None:
    experiment = submit(client, question="<script>alert(1)</script>")
    world.turn()
    page = client.get(f"/v1/experiments/{experiment}/report?format=html").text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    "path",
    ["/v1/experiments/exp_9", "/v1/runs/run_9", "/v1/decisions/dec_9", "/v1/runs/7", "/v1/policies/no"],
)
def test_what_is_not_there_is_a_problem_404(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= response.json().keys()


def test_a_body_that_is_no_json_is_refused_without_an_echo(client: TestClient) -> None:
    response = client.post(
        "/v1/experiments", content=b'{"secret": ', headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert "secret" not in response.text


def test_a_body_above_the_limit_is_refused_before_it_is_read(world: World) -> None:
    with LocalClient(create_app(world.context, body_limit=2048)) as client:
        response = client.post("/v1/experiments", json=sound_spec(question="x" * 4000))
    assert response.status_code == 413


def test_another_host_name_is_refused(client: TestClient) -> None:
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


def test_without_a_token_nothing_but_health_is_answered(world: World) -> None:
    app = create_app(world.context, token="secret")
    open_paths = {"/healthz", "/readyz"}
    with LocalClient(app, raise_server_exceptions=False) as client:
        walked = 0
        for path, methods in _routes(app):
            if path in open_paths:
                continue
            for method in methods:
                url = path.replace("{experiment_id}", "exp_1").replace("{run_id}", "run_1")
                url = url.replace("{attempt_id}", "att_1").replace("{decision_id}", "dec_1")
                body = {"reason": ""} if method == "POST" else None
                assert client.request(method, url, json=body).status_code == 401, (method, url)
                walked += 1
        assert walked >= 20
        assert client.get("/openapi.json").status_code == client.get("/docs").status_code == 404
        assert client.get("/v1/experiments", headers={"Authorization": "Bearer secret"}).status_code == 200


def _routes(app: Any) -> list[tuple[str, list[str]]]:
    schema = app.openapi()["paths"]
    described = [(path, [m.upper() for m in methods]) for path, methods in schema.items()]
    assert any(isinstance(route, APIRoute) for route in app.routes) or described
    return described


def test_a_report_needs_its_attempts_own_token(client: TestClient, world: World) -> None:
    submit(client)
    world.turn()
    worker = next(iter(world.workers.values()))
    assignment = worker.assignment
    assert assignment.service is not None
    url = f"/v1/attempts/{assignment.attempt_id}/heartbeat"
    beat = {"epoch": assignment.epoch, "phase": "training", "step": 0}
    assert client.post(url, json=beat).status_code == 401
    mine = {"Authorization": f"Bearer {assignment.service.token}"}
    assert client.post(url, json=beat, headers=mine).json()["directive"]["kind"] == "continue"
    stale = client.post(url, json=beat | {"epoch": 7}, headers=mine)
    assert stale.status_code == 409
    assert stale.json()["type"].endswith("stale_epoch")


def test_a_loss_that_is_not_finite_travels_and_is_kept(client: TestClient, world: World) -> None:
    submit(client)
    world.turn()
    worker = next(iter(world.workers.values()))
    assignment = worker.assignment
    assert assignment.service is not None
    evaluation = json.loads(worker.evaluation(20).model_dump_json())
    for sequence, value in enumerate(("NaN", "Infinity", "-Infinity"), start=2):
        point = {"step": sequence, "name": "train_loss", "value": value}
        report = {
            "epoch": assignment.epoch,
            "sequence": sequence,
            "phase": "training",
            "step": 20,
            "points": [point],
        }
        response = client.post(
            f"/v1/attempts/{assignment.attempt_id}/reports",
            json=report,
            headers={"Authorization": f"Bearer {assignment.service.token}"},
        )
        assert response.status_code == 200, response.text
    kept = client.get(f"/v1/runs/{assignment.run_id}/series?name=train_loss").json()["points"]
    assert kept == [[2, "NaN"], [3, "Infinity"], [4, "-Infinity"]]
    assert evaluation["step"] == 20


def test_the_service_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_an_action_on_an_ended_experiment_is_a_conflict(
    client: TestClient, world: World, action: str
) -> None:
    experiment = finished(client, world)
    response = client.post(f"/v1/experiments/{experiment}/{action}", json={"reason": "late"})
    assert response.status_code == 409


def test_an_experiment_is_cancelled_with_a_reason(client: TestClient) -> None:
    experiment = submit(client)
    body = {"reason": "wrong data", "author": "ada"}
    cancelled = client.post(f"/v1/experiments/{experiment}/cancel", json=body).json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["conclusion"] == "cancelled by user:ada: wrong data"


def test_a_queue_of_writers_that_is_too_long_is_answered_503(world: World) -> None:
    world.database.patience_seconds = 0.05
    with LocalClient(create_app(world.context), raise_server_exceptions=False) as client:
        with world.database.write():
            response = client.post("/v1/experiments", json=sound_spec())
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert client.post("/v1/experiments", json=sound_spec()).status_code == 201
