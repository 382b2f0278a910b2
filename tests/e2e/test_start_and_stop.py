"""How a service comes and goes: a port at once or a clear no, a stop without loss, a keeper above it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from real_service import SPEC, Service, wait_until

from orchestrator.bootstrap import _url as url_of
from orchestrator.bootstrap import listen
from orchestrator.domain.errors import Busy
from orchestrator.keeper import BAD_SETTINGS, pause_after
from orchestrator.settings import Settings

POSTERS = 4
LONG = {"name": "only", "steps": 100_000, "variants": {"control": {}, "top2": {"moe.top_k": 2}}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "home", ASSAY_SLOTS="2", ASSAY_HEARTBEAT_SECONDS="0.5")
    made.start()
    yield made
    made.clean()


def test_of_two_that_want_a_port_the_second_is_refused_at_once() -> None:
    """Neither accepts anybody yet: two sockets that are only bound would both have it."""
    refused = pytest.raises(Busy, match=r"cannot listen on 127\.0\.0\.1:.* set ASSAY_PORT")
    with closing(listen(Settings(port=0))) as first, refused:
        listen(Settings(port=first.getsockname()[1]))


def test_who_calls_before_the_service_is_ready_waits() -> None:
    with (
        closing(listen(Settings(port=0))) as bound,
        closing(socket.create_connection(bound.getsockname())) as call,
    ):
        call.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        accepted, _ = bound.accept()
        with closing(accepted):
            assert accepted.recv(100).startswith(b"GET /readyz")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_address_of_ipv6_is_one_that_can_be_called() -> None:
    with closing(listen(Settings(host="::1", port=0))) as bound:
        assert url_of(bound) == f"http://[::1]:{bound.getsockname()[1]}"


@pytest.mark.parametrize("host", ["host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_a_clear_no(host: str) -> None:
    with pytest.raises(Busy, match=f"cannot listen on {host}:0 .*ASSAY_HOST"):
        listen(Settings(host=host, port=0, token="long"))


def failed_start(home: Path, **settings: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.bootstrap"],
        env=os.environ | {"ASSAY_HOME": str(home), "ASSAY_PORT": "0"} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stderr


def test_a_start_that_fails_says_one_line_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    """The home is a file; then the database is damaged; mended, the service starts on the same home."""
    (tmp_path / "file").write_text("")
    code, said = failed_start(tmp_path / "file")
    assert (code, said.count("\n"), "Traceback" in said) == (1, 1, False), said
    home = tmp_path / "home"
    file = home / "assay.sqlite3"
    home.mkdir()
    file.write_bytes(b"no database at all" * 1000)
    code, said = failed_start(home)
    assert (code, said.count("\n"), f"the database {file} is damaged" in said) == (1, 1, True), said
    assert not (home / "service.json").exists()
    file.unlink()
    mended = Service(home)
    try:
        mended.start()
        assert mended.end(signal.SIGTERM) == 0
    finally:
        mended.clean()
    assert not (home / "service.json").exists()


@pytest.mark.timeout(300)
def test_a_stop_under_load_loses_nothing_and_leaves_workers(service: Service) -> None:
    """Every post that got an answer is there afterwards; workers live, and the next service adopts them."""
    experiment = service.post("/v1/experiments", SPEC | {"stages": [LONG]})["id"]
    wait_until("two workers that train", lambda: all(step > 0 for step in steps(service, experiment)))
    acknowledged: list[str] = []
    go = threading.Event()

    def post(number: int) -> None:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            go.wait(30)
            for i in range(10_000):
                name = f"load-{number}-{i}"
                spec = SPEC | {"name": name}
                try:
                    answer = client.post("/v1/experiments", json=spec, headers={"Idempotency-Key": name})
                except httpx.HTTPError:
                    return
                if answer.is_success:
                    acknowledged.append(name)

    posters = [threading.Thread(target=post, args=(number,)) for number in range(POSTERS)]
    for poster in posters:
        poster.start()
    go.set()
    wait_until("posts", lambda: len(acknowledged) >= 8)
    workers = {(worker.pid, worker.create_time()) for worker in service.workers()}
    assert service.end(signal.SIGTERM) == 0
    for poster in posters:
        poster.join(60)
    assert not (service.home / "service.json").exists()
    assert {(worker.pid, worker.create_time()) for worker in service.workers()} >= workers

    service.start()
    found, cursor = set(), None
    while True:
        page = service.get("/v1/experiments", limit=100, **({"cursor": cursor} if cursor else {}))
        found |= {item["name"] for item in page["items"]}
        if not (cursor := page["next_cursor"]):
            break
    assert set(acknowledged) <= found
    most = max(steps(service, experiment))
    wait_until("the adopted workers to be heard", lambda: min(steps(service, experiment)) > most)
    runs = service.get(f"/v1/experiments/{experiment}/runs")["items"]
    assert [(run["status"], run["attempts"]) for run in runs] == [("running", 1)] * 2


def test_a_second_signal_ends_a_service_at_once(tmp_path: Path) -> None:
    """A tick that hangs would keep the first waiting: here a request whose body never comes does."""
    service = Service(tmp_path / "home")
    service.start()
    try:
        assert service.process is not None
        host, port = service.url.removeprefix("http://").split(":")
        with closing(socket.create_connection((host, int(port)))) as hanging:
            hanging.sendall(b"POST /v1/experiments HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            httpx.get(f"{service.url}/healthz")
            service.process.send_signal(signal.SIGTERM)
            wait_until("the port to be closed", lambda: refuses(host, int(port)))
            assert service.process.poll() is None
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(5) == 1
        service.process = None
        assert not (service.home / "service.json").exists()
        assert "asked a second time to stop" in (service.home / "service.log").read_text()
    finally:
        service.clean()


def refuses(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_pauses_between_starts_grow_and_stay_bounded() -> None:
    assert [pause_after(failures) for failures in range(8)] == [1, 1, 2, 4, 8, 16, 30, 30]


def test_a_keeper_gives_up_on_settings_that_do_not_fit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.keeper"],
        env=os.environ | {"ASSAY_HOME": str(tmp_path), "ASSAY_SLOTS": "none"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == BAD_SETTINGS
    assert "ASSAY_SLOTS" in done.stderr


class Kept(Service):
    """A service below a keeper: `process` is the keeper."""

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"ASSAY_HOME": str(self.home), "ASSAY_PORT": "0", "HF_HUB_OFFLINE": "1"}
        with (self.home / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli.main", "serve", "--keep"],
                env=environment | self.settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.until_serving(0)

    def until_serving(self, other_than: int) -> int:
        """The pid of the service, once it is another one and answers."""

        def serving() -> int:
            written = json.loads((self.home / "service.json").read_text())
            self.url = str(written["url"])
            return int(written["pid"]) if written["pid"] != other_than and self.ready() else 0

        return int(wait_until("the kept service", serving))

    def ready(self) -> bool:
        return httpx.get(f"{self.url}/readyz").is_success


@pytest.mark.timeout(300)
def test_a_keeper_restarts_the_service_and_lets_its_workers_be(tmp_path: Path) -> None:
    """SIGHUP restarts it, so does its sudden death; SIGTERM ends both and no worker."""
    kept = Kept(tmp_path / "home", ASSAY_SLOTS="1", ASSAY_HEARTBEAT_SECONDS="0.5")
    try:
        kept.start()
        first = kept.until_serving(0)
        alone = LONG | {"variants": {"control": {}}}
        experiment = kept.post("/v1/experiments", SPEC | {"stages": [alone]})["id"]
        wait_until("a worker that trains", lambda: max(steps(kept, experiment)))
        (worker,) = kept.workers()
        assert kept.process is not None

        kept.process.send_signal(signal.SIGHUP)
        second = kept.until_serving(first)
        (step,) = steps(kept, experiment)
        wait_until("the worker to be heard", lambda: max(steps(kept, experiment)) > step)
        os.kill(second, signal.SIGKILL)
        third = kept.until_serving(second)
        (further,) = steps(kept, experiment)
        wait_until("the worker to be heard again", lambda: max(steps(kept, experiment)) > further)
        (run,) = kept.get(f"/v1/experiments/{experiment}/runs")["items"]
        assert run["attempts"] == 1
        assert [same.pid for same in kept.workers()] == [worker.pid]

        assert kept.end(signal.SIGTERM) == 0
        assert not psutil.pid_exists(third)
        assert worker.is_running()
    finally:
        if kept.process is not None:
            kept.end(signal.SIGTERM)
        kept.clean()


def steps(service: Service, experiment: str) -> list[int]:
    return [run["step"] for run in service.get(f"/v1/experiments/{experiment}/runs")["items"]]
