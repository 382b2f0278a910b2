"""The main job with real processes: a real service, real workers, real text, real signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_service import SPEC, Service, wait_until

Start = Callable[[str], Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def make(name: str) -> Service:
        service = Service(tmp_path / name, ASSAY_SLOTS="2", ASSAY_HEARTBEAT_SECONDS="0.5")
        services.append(service)
        service.start()
        return service

    yield make
    for service in services:
        service.clean()


def furthest(service: Service, experiment: str) -> int:
    return max(run["step"] for run in service.get(f"/v1/experiments/{experiment}/runs")["items"])


@pytest.mark.timeout(600)
def test_killing_the_service_changes_no_decision_and_no_loss(start: Start) -> None:
    calm = start("calm")
    experiment = calm.post("/v1/experiments", SPEC)["id"]
    assert calm.until_ended(experiment)["status"] == "succeeded"

    shaken = start("shaken")
    twin = shaken.post("/v1/experiments", SPEC)["id"]
    for step in (10, 50, 110):
        wait_until(f"step {step}", lambda step=step: furthest(shaken, twin) >= step)
        shaken.kill()
        shaken.start()
    assert shaken.until_ended(twin)["status"] == "succeeded"

    decisions, losses = calm.story(experiment)
    again, same_losses = shaken.story(twin)
    assert sorted(again ^ decisions) == []
    assert same_losses == losses
    assert {kind for _, _, _, kind, _, _, _ in decisions} >= {"promote", "decline"}
    for steps in ([step for step, _ in curve] for curve in losses.values()):
        assert steps == list(range(10, steps[-1] + 1, 10))
    assert sorted(curve[-1][0] for curve in losses.values()) in ([40, 160, 160], [80, 160, 160])


@pytest.mark.timeout(300)
def test_workers_outlive_the_service_and_are_adopted(start: Start) -> None:
    service = start("home")
    experiment = service.post("/v1/experiments", SPEC)["id"]
    wait_until("a step", lambda: furthest(service, experiment) >= 10)
    before = {worker.pid for worker in service.workers()}
    assert service.end(signal.SIGTERM) == 0
    assert {worker.pid for worker in service.workers()} >= before
    service.start()
    assert {worker.pid for worker in service.workers()} >= before
    service.post(f"/v1/experiments/{experiment}/cancel", {"reason": "enough"})
    wait_until("the workers to be gone", lambda: not service.workers())
    runs = service.get(f"/v1/experiments/{experiment}/runs")["items"]
    assert {run["status"] for run in runs} == {"cancelled"}


@pytest.mark.timeout(300)
def test_a_killed_worker_is_resumed_bit_for_bit(start: Start) -> None:
    service = start("home")
    stages = [{"name": "only", "steps": 120, "variants": SPEC["stages"][0]["variants"]}]
    first = service.post("/v1/experiments", SPEC | {"stages": stages})["id"]
    wait_until("step 20", lambda: furthest(service, first) >= 20)
    service.workers()[0].kill()
    assert service.until_ended(first)["status"] == "succeeded"
    runs = service.get(f"/v1/experiments/{first}/runs")["items"]
    assert max(run["attempts"] for run in runs) == 2
    second = service.post("/v1/experiments", SPEC | {"stages": stages})["id"]
    assert service.until_ended(second)["status"] == "succeeded"
    assert service.story(first)[1] == service.story(second)[1]


def test_a_second_service_on_the_same_home_is_refused(start: Start) -> None:
    service = start("home")
    assert "another service works on" in refused(service.home, {})


def test_a_busy_port_and_an_open_address_are_refused_in_a_sentence(start: Start, tmp_path: Path) -> None:
    service = start("home")
    port = service.url.rpartition(":")[2]
    for settings, sentence in (
        ({"ASSAY_PORT": port}, "cannot listen on"),
        ({"ASSAY_HOST": "::"}, "without authentication"),
        ({"ASSAY_SLOTS": "none"}, "ASSAY_SLOTS"),
    ):
        assert sentence in refused(tmp_path / "other", settings)


def refused(home: Path, settings: dict[str, str]) -> str:
    """What a service that cannot start says."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.bootstrap"],
        env=os.environ | {"ASSAY_HOME": str(home), "ASSAY_PORT": "0"} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {1, 2}
    return done.stderr


def test_two_services_on_one_database_are_refused(start: Start, tmp_path: Path) -> None:
    service = start("home")
    url = f"sqlite:///{service.home / 'assay.sqlite3'}"
    assert "another service works on this database" in refused(
        tmp_path / "other", {"ASSAY_DATABASE_URL": url}
    )


def test_settings_that_mean_nothing_are_said(tmp_path: Path) -> None:
    toml = tmp_path / "assay.toml"
    toml.write_text("tick_secnds = 3\n")
    for settings, sentence in (
        ({"ASSAY_CONFIG": str(tmp_path / "none.toml")}, "there is no such file"),
        ({"ASSAY_CONFIG": str(toml)}, "TICK_SECNDS"),
        ({"ASSAY_ALLOWED_HOSTS": "foo.example"}, "allowed_hosts"),
        ({"ASSAY_DATABASE_URL": "nonsense"}, "cannot be opened"),
        ({"ASSAY_DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "cannot be opened"),
        ({"ASSAY_SLOST": "3", "ASSAY_PORT": "-1"}, "did you mean `ASSAY_SLOTS`"),
    ):
        assert sentence in refused(tmp_path / "home", settings)
