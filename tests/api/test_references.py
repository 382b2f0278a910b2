"""References over the API: imported curves, runs and experiments, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_client import LocalClient, sound_spec
from fastapi.testclient import TestClient
from worlds import World, falling

from orchestrator.api.app import create_app
from orchestrator.domain.curves import Match, Unmatched, match
from orchestrator.domain.errors import Missing
from orchestrator.services.references import find_reference, reference_curve
from orchestrator.store.database import Database
from orchestrator.store.histories import load_curves
from orchestrator.store.runs import get_run

IDENTITY = {
    "evaluation_set": "e" * 8,
    "tokenizer": "t" * 8,
    "schedule_family": "cosine",
    "horizon_step": 400,
    "tokens_per_step": 128,
}
CURVE: dict[str, Any] = {
    "name": "dense",
    "source": {"format": "csv", "files": ["dense.csv"]},
    "evaluations": [
        {"step": 20, "eval_loss": 5.0},
        {"step": 40, "eval_loss": 4.5},
        {"step": 60, "eval_loss": "NaN"},
    ],
    "train_loss": [[10, 5.5], [20, "Infinity"]],
    "notes": ["session 2 began at step 40"],
}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "home", loss=falling({"wide": -0.2}))


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with LocalClient(create_app(world.context), raise_server_exceptions=False) as client:
        yield client


def finished(client: TestClient, world: World, **changes: Any) -> str:
    experiment = str(client.post("/v1/experiments", json=sound_spec(**changes)).json()["id"])
    world.run_to_end(int(experiment.removeprefix("exp_")))
    return experiment


def post(client: TestClient, **document: Any) -> Any:
    response = client.post("/v1/references", json=document)
    assert response.status_code in (200, 201), response.text
    return response.json()


def errors(client: TestClient, **document: Any) -> list[dict[str, str]]:
    response = client.post("/v1/references", json=document)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: list[dict[str, str]] = response.json()["errors"]
    return found


def test_a_curve_is_stored_and_read_back(client: TestClient) -> None:
    response = client.post("/v1/references", json=CURVE)
    assert (response.status_code, response.headers["location"]) == (201, "/v1/references/ref_1")
    body = response.json()
    assert (body["id"], body["evaluation_count"], body["first_step"], body["last_step"]) == (
        "ref_1",
        3,
        20,
        60,
    )
    assert (body["best_eval_loss"], body["last_eval_loss"]) == (4.5, "NaN")
    assert body["evaluations"][2]["eval_loss"] == "NaN"
    assert body["train_loss"] == CURVE["train_loss"]
    assert body["notes"] == CURVE["notes"]
    assert body["source"] == {"kind": "import", "format": "csv", "files": ["dense.csv"], "claimed": []}
    assert body["unrecorded"] == [
        "evaluation set",
        "tokenizer",
        "schedule family",
        "horizon step",
        "tokens per step",
    ]
    assert client.get("/v1/references/ref_1").json() == body


def test_the_same_again_is_the_reference_that_is_there(client: TestClient) -> None:
    first = client.post("/v1/references", json=CURVE)
    again = client.post("/v1/references", json=CURVE | {"notes": ["read from elsewhere"]})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert post(client, **CURVE | {"name": "other"})["id"] == "ref_2"
    assert post(client, **CURVE | {"identity": IDENTITY})["id"] == "ref_3"
    assert post(client, **CURVE | {"description": "of last week"})["id"] == "ref_4"
    assert len(client.get("/v1/references").json()["items"]) == 4


def test_lists_are_newest_first_in_pages_without_curves(client: TestClient) -> None:
    for name in ("a", "b", "a"):
        post(client, **CURVE | {"name": name, "description": name if name == "b" else str(name)})
    post(client, **CURVE | {"name": "c"})
    first = client.get("/v1/references?limit=2").json()
    assert [item["id"] for item in first["items"]] == ["ref_3", "ref_2"]
    second = client.get(f"/v1/references?limit=2&cursor={first['next_cursor']}").json()
    assert [item["id"] for item in second["items"]] == ["ref_1"]
    assert second["next_cursor"] is None
    assert "evaluations" not in first["items"][0]
    assert [item["name"] for item in client.get("/v1/references?name=b").json()["items"]] == ["b"]


def test_like_takes_over_what_a_run_reported_as_a_persons_word(client: TestClient, world: World) -> None:
    finished(client, world)
    body = post(client, **CURVE, like="run_1", identity={"tokenizer": "mine"})
    assert body["identity"] == IDENTITY | {"tokenizer": "mine"}
    assert (body["source"]["like"], body["source"]["claimed"]) == ("run_1", ["tokenizer"])
    assert body["unrecorded"] == []
    assert [e["tokens"] for e in body["evaluations"]] == [20 * 128, 40 * 128, 60 * 128]


def test_like_a_run_that_has_said_nothing_is_refused(client: TestClient) -> None:
    client.post("/v1/experiments", json=sound_spec())
    (error,) = errors(client, **CURVE, like="run_1")
    assert error["field"] == "like"
    assert "has not reported its identity" in error["message"]
    assert client.post("/v1/references", json=CURVE | {"like": "run_99"}).status_code == 404


def test_a_run_is_a_reference_as_far_as_it_came(client: TestClient, world: World) -> None:
    finished(client, world)
    body = post(client, run_id="run_2", description="the widest")
    assert body["name"] == "widths-wide"
    assert body["source"] == {
        "kind": "run",
        "run_id": "run_2",
        "experiment_id": "exp_1",
        "variant": "wide",
        "seed": 0,
    }
    measured = client.get("/v1/runs/run_2/evaluations").json()["items"]
    assert [(e["step"], e["eval_loss"]) for e in body["evaluations"]] == [
        (e["step"], e["eval_loss"]) for e in measured
    ]
    assert body["unrecorded"] == []
    assert body["train_loss"]
    assert body["notes"] == []
    assert post(client, run_id="run_2", description="the widest")["id"] == body["id"]


def test_a_run_that_goes_on_says_so(client: TestClient, world: World) -> None:
    client.post("/v1/experiments", json=sound_spec())
    for _ in range(4):
        world.turn()
    body = post(client, run_id="run_1")
    assert "what follows is not in this curve" in body["notes"][0]


def test_an_experiment_gives_its_control_or_the_variant_and_seed_that_are_named(
    client: TestClient, world: World
) -> None:
    experiment = finished(client, world, seeds=[0, 1])
    body = post(client, experiment_id=experiment)
    assert (body["source"]["variant"], body["source"]["seed"]) == ("base", 0)
    assert body["notes"] == ["seed 0 of base, which has the seeds 0, 1"]
    body = post(client, experiment_id=experiment, variant="wide", seed=1, name="best")
    assert (body["name"], body["source"]["variant"], body["source"]["seed"]) == ("best", "wide", 1)
    (error,) = errors(client, experiment_id=experiment, variant="wid")
    assert (error["field"], "did you mean `wide`" in error["message"]) == ("variant", True)
    (error,) = errors(client, experiment_id=experiment, seed=7)
    assert (error["field"], "it has 0, 1" in error["message"]) == ("seed", True)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "name"),
        (
            CURVE | {"evaluations": [{"step": 2, "eval_loss": 1}, {"step": 1, "eval_loss": 1}]},
            "evaluations[1]",
        ),
        (CURVE | {"evaluations": [{"step": 2, "eval_loss": "NaN"}]}, "evaluations"),
        (CURVE | {"evaluations": [{"step": 2, "eval_loss": 2**2000}]}, "evaluations[0].eval_loss"),
        ({"run_id": "run_1", "variant": "wide"}, "variant"),
    ],
)
def test_a_wrong_document_names_its_field(client: TestClient, document: dict[str, Any], field: str) -> None:
    assert errors(client, **document)[0]["field"] == field


def test_what_is_not_there_is_404_and_a_run_without_evaluations_is_refused(client: TestClient) -> None:
    for path in ("ref_1", "ref_0", "run_1", "dense"):
        assert client.get(f"/v1/references/{path}").status_code == 404
    assert client.post("/v1/references", json={"run_id": "run_1"}).status_code == 404
    assert client.post("/v1/references", json={"experiment_id": "exp_1"}).status_code == 404
    client.post("/v1/experiments", json=sound_spec())
    (error,) = errors(client, run_id="run_1")
    assert (error["field"], "no finite evaluation yet" in error["message"]) == ("run_id", True)


def test_a_token_is_wanted(world: World) -> None:
    with LocalClient(create_app(world.context, token="secret")) as client:
        assert client.get("/v1/references").status_code == 401
        assert client.post("/v1/references", json=CURVE).status_code == 401


class TestForGates:
    def test_a_reference_is_found_by_id_and_by_name(self, client: TestClient, world: World) -> None:
        post(client, **CURVE)
        post(client, **CURVE, identity=IDENTITY)
        with world.context.database.read() as connection:
            assert find_reference(connection, "ref_1").id == 1
            assert find_reference(connection, "dense").id == 2
            with pytest.raises(Missing, match="there is no reference `dens`: did you mean `dense`"):
                find_reference(connection, "dens")
            with pytest.raises(Missing, match="`ref_9`"):
                find_reference(connection, "ref_9")

    def test_it_is_compared_like_a_control(self, client: TestClient, world: World) -> None:
        finished(client, world)
        post(client, **CURVE, identity=IDENTITY)
        with world.context.database.read() as connection:
            reference = reference_curve(find_reference(connection, "dense"))
            run = get_run(connection, 2)
            assert run is not None
            subject = load_curves(connection, [run])[2]
        assert (reference.run_id, reference.variant, reference.is_control) == (-1, "dense", True)
        found = match(subject, reference, 40)
        assert isinstance(found, Match)
        assert found.other_loss == 4.5

    def test_without_its_evaluation_set_it_is_compared_with_nothing(
        self, client: TestClient, world: World
    ) -> None:
        finished(client, world)
        post(client, **CURVE, identity={k: v for k, v in IDENTITY.items() if k != "evaluation_set"})
        with world.context.database.read() as connection:
            reference = reference_curve(find_reference(connection, "dense"))
            run = get_run(connection, 2)
            assert run is not None
            found = match(load_curves(connection, [run])[2], reference, 40)
        assert isinstance(found, Unmatched)
        assert found.invalid
        assert "the reference dense has no recorded evaluation set" in found.reason

    def test_a_run_as_a_reference_is_the_runs_own_curve(self, client: TestClient, world: World) -> None:
        finished(client, world)
        post(client, run_id="run_1")
        with world.context.database.read() as connection:
            reference = reference_curve(find_reference(connection, "ref_1"))
            run = get_run(connection, 1)
            assert run is not None
            own = load_curves(connection, [run])[1]
        assert reference.evaluations == own.evaluations
        assert reference.train_loss == own.train_loss
        assert reference.identity == own.identity
