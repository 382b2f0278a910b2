"""Reports over HTTP: refused before they are read, refused when too many wait, and taken in the end."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
import uvicorn
from api_client import LocalClient
from fastapi import FastAPI
from worlds import Worker, World

from orchestrator.api.app import create_app
from orchestrator.domain.ids import number_of
from orchestrator.protocol.assignment import ServiceAddress
from orchestrator.protocol.exit import ExitRecord
from orchestrator.protocol.report import Phase
from orchestrator.services.context import token_hash
from orchestrator.store import reports, runs
from orchestrator.store.database import Database
from trainer.contract.reporter import Reporter


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app on a free port of loopback."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = Thread(target=server.run)
    thread.start()
    pause = Event()
    while not (server.started and server.servers):
        assert thread.is_alive()
        pause.wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def begun(database: Database, folder: Path) -> tuple[World, Worker]:
    world = World(database, folder / "home")
    world.submit()
    world.turn()
    return world, next(iter(world.workers.values()))


def headers(worker: Worker) -> dict[str, str]:
    assert worker.assignment.service is not None
    return {"Authorization": f"Bearer {worker.assignment.service.token}"}


def test_a_full_inbox_is_429_and_the_worker_comes_through_later(either: Database, tmp_path: Path) -> None:
    world, worker = begun(either, tmp_path)
    url = f"/v1/attempts/{worker.assignment.attempt_id}/heartbeat"
    beat = {"epoch": worker.assignment.epoch, "phase": "training", "step": 1}
    app = create_app(world.context, ingest_queue=1)
    with served(app) as base, httpx.Client(base_url=base, headers=headers(worker), timeout=30) as client:
        assert client.post(url, json=beat).status_code == 200
        with either.write():  # another writer is at work, so what comes now waits
            stuck = [
                Thread(
                    target=httpx.post,
                    args=(base + url,),
                    kwargs={"json": beat, "headers": headers(worker), "timeout": 30},
                )
                for _ in range(2)
            ]
            for thread in stuck:
                thread.start()
            refused = until_refused(client, url, beat)
            assert refused.headers["Retry-After"] == "1"
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:assay:problem:too_many"
            reporter = reporting(worker, base, tmp_path)
            reporter.emit(Phase.TRAINING, 3, notes=("through in the end",))
            Event().wait(0.3)
            assert reporter.directive() is None
        reporter.close(ExitRecord(code=0, step=3))
        for thread in stuck:
            thread.join(30)
    with either.read() as connection:
        attempt = runs.get_attempt(connection, number_of("att", worker.assignment.attempt_id))
    assert attempt is not None
    assert (attempt.step, attempt.acknowledged, attempt.exit_code) == (3, 3, 0)


def until_refused(client: httpx.Client, url: str, beat: dict[str, object]) -> httpx.Response:
    """The first refusal: the two that came before may be on their way still."""
    for _ in range(200):
        try:
            answer = client.post(url, json=beat, timeout=0.2)
        except httpx.TimeoutException:
            continue
        if answer.status_code == 429:
            return answer
    raise AssertionError("no refusal")


def reporting(worker: Worker, base: str, folder: Path) -> Reporter:
    """The trainer's own reporter, which has sent the first report that the scripted worker sent."""
    assert worker.assignment.service is not None
    service = ServiceAddress(url=base, token=worker.assignment.service.token)
    folder.joinpath("attempt").mkdir()
    (folder / "attempt" / "spool.jsonl").write_text("")
    assignment = worker.assignment.model_copy(
        update={"directory": str(folder / "attempt"), "service": service}
    )
    reporter = Reporter(assignment)
    reporter.emit(Phase.STARTING, 0, resumed_from_step=0, identity=worker.identity())
    return reporter


def test_a_stranger_is_refused_before_the_body_is_read(either: Database, tmp_path: Path) -> None:
    world, worker = begun(either, tmp_path)
    with LocalClient(create_app(world.context)) as client:
        for path in ("reports", "heartbeat"):
            url = f"/v1/attempts/{worker.assignment.attempt_id}/{path}"
            for sent in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
                refused = client.post(url, content=b"{not json", headers=sent)
                assert refused.status_code == 401
                assert refused.headers["WWW-Authenticate"] == "Bearer"
            bad = client.post(url, content=b"{not json", headers=headers(worker))
            assert (bad.status_code, bad.json()["errors"]) == (
                422,
                [{"field": "body", "message": "not valid JSON"}],
            )
            bad = client.post(url, json={"epoch": 1, "phase": "asleep", "step": -1}, headers=headers(worker))
            assert {"phase", "step"} <= {error["field"] for error in bad.json()["errors"]}
            assert "asleep" not in bad.text


def test_a_token_that_was_made_anew_is_asked_for_again(either: Database, tmp_path: Path) -> None:
    world, worker = begun(either, tmp_path)
    url = f"/v1/attempts/{worker.assignment.attempt_id}/heartbeat"
    beat = {"epoch": worker.assignment.epoch, "phase": "training", "step": 1}
    with LocalClient(create_app(world.context)) as client:
        assert client.post(url, json=beat, headers=headers(worker)).status_code == 200
        with either.write() as connection:
            number = number_of("att", worker.assignment.attempt_id)
            runs.change_attempt(connection, number, token_hash=token_hash("anew"))
        assert client.post(url, json=beat, headers=headers(worker)).status_code == 401
        assert client.post(url, json=beat, headers={"Authorization": "Bearer anew"}).status_code == 200


@pytest.mark.parametrize("size", [10, 6000])
def test_a_report_of_any_size_is_read_and_stored_once(either: Database, tmp_path: Path, size: int) -> None:
    world, worker = begun(either, tmp_path)
    number = [{"step": step, "name": "train_loss", "value": step / 3} for step in range(size)]
    numbers = [*number, {"step": size, "name": "train_loss", "value": "NaN"}]
    body = {"epoch": worker.assignment.epoch, "sequence": 2, "phase": "training", "step": size}
    url = f"/v1/attempts/{worker.assignment.attempt_id}/reports"
    with LocalClient(create_app(world.context)) as client:
        for _ in range(2):
            answer = client.post(url, json=body | {"points": numbers}, headers=headers(worker))
            assert answer.json()["acknowledged"] == 2
    with either.read() as connection:
        series = reports.load_series(connection, number_of("run", worker.assignment.run_id), "train_loss")
    assert series[:-1] == [(step, step / 3) for step in range(size)]
    assert math.isnan(series[size][1])


def test_the_writer_ends_with_the_application(either: Database, tmp_path: Path) -> None:
    world, worker = begun(either, tmp_path)
    url = f"/v1/attempts/{worker.assignment.attempt_id}/heartbeat"
    beat = {"epoch": worker.assignment.epoch, "phase": "training", "step": 1}
    app = create_app(replace(world.context))
    with LocalClient(app) as client:
        assert client.post(url, json=beat, headers=headers(worker)).status_code == 200
        assert any(thread.name == "ingest" for thread in threading.enumerate())
    assert not app.state.inbox._writer.is_alive()
