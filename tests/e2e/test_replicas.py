"""Service processes on one PostgreSQL database: killed, paused, and the server restarted under them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from chaos.steady import Config, curve
from postgres_rig import PostgresServer
from real_service import Service, wait_until
from sqlalchemy import text

from orchestrator.domain.ids import number_of
from orchestrator.store.database import Database

TESTS = Path(__file__).parents[1]
STEPS = 20
SPEC: dict[str, Any] = {
    "name": "replicas",
    "trainer": "steady",
    "base": {"pause": 0.05},
    "control": "base",
    "eval_every": 5,
    "stages": [
        {"name": "screen", "steps": STEPS, "variants": {"base": {}, "lower": {"shift": -0.2}}},
        {"name": "long", "steps": 3 * STEPS, "promote": {"best": 1, "eligible": "all"}},
    ],
}
SERVING = re.compile(r"serving on (http://\S+),")


class Replica(Service):
    """One of the services on a home and a database that others work on, too."""

    def __init__(self, name: str, home: Path, database_url: str) -> None:
        history = home / "history"
        history.mkdir(parents=True, exist_ok=True)
        steady = [sys.executable, "-m", "chaos.steady", "{assignment}", str(history)]
        idle = [sys.executable, "-c", "import time; time.sleep(120)", "{assignment}"]
        kinds = {
            "steady": {"argv": steady, "check": "chaos.steady:check"},
            "idle": {"argv": idle, "check": "chaos.steady:check"},
        }
        super().__init__(
            home,
            ASSAY_DATABASE_URL=database_url,
            ASSAY_TRAINERS=json.dumps(kinds),
            ASSAY_SLOTS="2",
            ASSAY_USE_GPUS="false",
            ASSAY_TICK_SECONDS="0.2",
            ASSAY_LEADER_SECONDS="2",
            ASSAY_LEASE_SECONDS="40",
            ASSAY_HEARTBEAT_SECONDS="0.3",
            PYTHONPATH=os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        )
        self.log = home / f"{name}.log"

    def start(self) -> None:
        environment = os.environ | {"ASSAY_HOME": str(self.home), "ASSAY_PORT": "0"} | self.settings
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.bootstrap"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def serving() -> str:
            found = SERVING.search(self.log.read_text()[before:])
            return found[1] if found else ""

        self.url = wait_until("the service's address", serving)
        wait_until("the service", lambda: httpx.get(f"{self.url}/readyz").is_success)

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = " ".join(process.info["cmdline"] or [])
            if f"{self.home}/runs" in command and "supervisor.py" not in command:
                found.append(process)
        return found


class Pair:
    """Two replicas, the first of which leads, and a look into their database."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.database = Database(url)
        self.one, self.two = Replica("one", home, url), Replica("two", home, url)
        self.one.start()
        wait_until("a leader", lambda: self.named() == self.one.url)
        self.two.start()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    @property
    def epoch(self) -> int:
        return int(self.rows("SELECT epoch FROM leaders")[0][0])

    def named(self) -> str:
        """The URL that workers and people find in the data folder."""
        return str(json.loads((self.home / "service.json").read_text())["url"])

    def furthest(self) -> int:
        return int(self.rows("SELECT max(step) FROM runs")[0][0] or 0)

    def furthest_of(self, experiment: str) -> int:
        number = number_of("exp", experiment)
        return int(self.rows(f"SELECT max(step) FROM runs WHERE experiment_id = {number}")[0][0] or 0)  # noqa: S608

    def clean(self) -> None:
        for replica in (self.one, self.two):
            if replica.process is not None:
                replica.process.send_signal(signal.SIGCONT)
            replica.clean()
        self.database.close()


@pytest.fixture
def pair(tmp_path: Path, postgres_url: str) -> Iterator[Pair]:
    made = Pair(tmp_path / "home", postgres_url)
    yield made
    made.clean()


def assert_told_once_and_right(pair: Pair, experiment: str, spec: dict[str, Any]) -> None:
    """Every step was trained once, every loss is that of an undisturbed run, every decision there once."""
    begun: Counter[tuple[str, int]] = Counter()
    for file in (pair.home / "history").iterdir():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        run = lines[0]["run"]
        begun.update((run, line["step"]) for line in lines if line["kind"] == "step")
    assert max(begun.values()) == 1, [step for step, times in begun.items() if times > 1]
    report = pair.two.get(f"/v1/experiments/{experiment}/report")
    for run in report["runs"]:
        config = Config(**spec["base"], **spec["stages"][0]["variants"][run["variant"]])
        right = {step: loss for step, _, loss in curve(config, run["seed"], 3 * STEPS)}
        told = {e["step"]: e["eval_loss"] for e in run["evaluations"]}
        assert told == {step: right[step] for step in range(5, run["step"] + 1, 5)}
        assert [attempt["status"] for attempt in run["attempt_list"]].count("launched") == 0
    assert sorted(run["step"] for run in report["runs"]) in ([20, 60], [60, 60])
    decided = [(d["variant"], d["stage"], d["step"], d["kind"]) for d in report["decisions"]]
    assert len(decided) == len(set(decided)) > 0


@pytest.mark.timeout(300)
def test_leaders_that_are_paused_and_killed(pair: Pair) -> None:
    experiment = pair.two.post("/v1/experiments", SPEC)["id"]  # a follower takes it, the leader starts it
    wait_until("step 5", lambda: pair.furthest() >= 5)
    assert (pair.epoch, pair.named()) == (1, pair.one.url)
    assert pair.one.process is not None
    pair.one.process.send_signal(signal.SIGSTOP)
    wait_until("another leader", lambda: pair.epoch == 2)
    wait_until("its address", lambda: pair.named() == pair.two.url)
    assert pair.two.until_ended(experiment)["status"] == "succeeded"
    assert_told_once_and_right(pair, experiment, SPEC)

    attempts = "SELECT id, status, ended_at FROM attempts ORDER BY id"
    decisions = "SELECT id, key, created_at FROM decisions ORDER BY id"
    before = pair.rows(attempts), pair.rows(decisions)
    pair.one.process.send_signal(signal.SIGCONT)
    wait_until("its own word", lambda: "the lead is lost" in pair.one.log.read_text())
    assert pair.one.get(f"/v1/experiments/{experiment}")["status"] == "succeeded"  # it follows, and answers
    assert before == (pair.rows(attempts), pair.rows(decisions))
    assert (pair.epoch, pair.named()) == (2, pair.two.url)

    other = SPEC | {"base": SPEC["base"] | {"salt": 1}}
    following = pair.one.post("/v1/experiments", other)["id"]
    wait_until("another run", lambda: pair.furthest_of(following) >= 5)
    pair.two.kill()
    wait_until("the first to lead again", lambda: pair.epoch == 3 and pair.named() == pair.one.url)
    assert pair.one.until_ended(following)["status"] == "succeeded"
    pair.two = pair.one
    assert_told_once_and_right(pair, following, other)


def test_a_service_with_another_home_does_not_start_on_the_database(pair: Pair, tmp_path: Path) -> None:
    other = Replica("three", tmp_path / "other", pair.one.settings["ASSAY_DATABASE_URL"])
    settings = {"ASSAY_HOME": str(other.home), "ASSAY_PORT": "0"} | other.settings
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.bootstrap"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"works with the home {pair.home.resolve()}" in done.stderr
    assert "Traceback" not in done.stderr
    moved = [sys.executable, "-m", "orchestrator.upkeep", "move"]
    refused = subprocess.run(
        moved, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=60
    )
    assert refused.returncode == 1
    assert "a service leads" in refused.stderr
    assert pair.two.get("/v1/experiments")["items"] == []


class Load(threading.Thread):
    """Posts the reports of one attempt, one after the other, each until it is acknowledged."""

    def __init__(self, url: str, assignment: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.assignment = assignment
        self.url = f"{url}/v1/attempts/{assignment['attempt_id']}/reports"
        self.acknowledged: list[int] = []
        self.refused: list[httpx.Response] = []
        self.unforeseen: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {self.assignment['service']['token']}"}
        with httpx.Client(headers=headers, timeout=30) as client:
            while not self.enough.is_set() and not self.unforeseen:
                self.post(client, len(self.acknowledged) + 1)

    def post(self, client: httpx.Client, sequence: int) -> None:
        points = [{"step": sequence, "name": "train_loss", "value": sequence / 7}]
        body = {"epoch": 1, "sequence": sequence, "phase": "training", "step": sequence, "points": points}
        try:
            answer = client.post(self.url, json=body)
        except httpx.HTTPError as error:
            self.unforeseen.append(repr(error))
            return
        if answer.status_code == 200:
            self.acknowledged.append(sequence)
        elif answer.status_code == 503 and answer.headers.get("Retry-After"):
            self.refused.append(answer)
            self.enough.wait(0.1)
        else:
            self.unforeseen.append(f"{answer.status_code} {answer.text}")


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.end()


def test_postgresql_restarted_under_load_loses_no_acknowledged_report(
    tmp_path: Path, own_server: PostgresServer
) -> None:
    replica = Replica("one", tmp_path / "home", own_server.empty_database())
    loads: list[Load] = []
    try:
        replica.start()
        stages = [{**SPEC["stages"][0], "steps": 100_000}]
        replica.post("/v1/experiments", SPEC | {"trainer": "idle", "stages": stages, "eval_every": 50_000})
        files = wait_until("two workers", lambda: two_of(list(replica.home.glob("runs/*/1/assignment.json"))))
        wait_until("their start", lambda: len(replica.workers()) == 2)
        loads = [Load(replica.url, json.loads(file.read_text())) for file in files]
        for load in loads:
            load.start()
        for _ in range(2):
            restart_under(loads, own_server)
        for load in loads:
            load.enough.set()
            load.join(30)
        assert [load.unforeseen for load in loads] == [[], []]
        database = Database(replica.settings["ASSAY_DATABASE_URL"])
        with database.read() as connection:
            stored = connection.execute(text("SELECT run_id, step FROM points ORDER BY run_id, step")).all()
        database.close()
        by_run = {run: [step for other, step in stored if other == run] for run, _ in stored}
        told = {number_of("run", load.assignment["run_id"]): load for load in loads}
        for run, load in told.items():
            assert by_run[run][: len(load.acknowledged)] == load.acknowledged
            assert len(by_run[run]) - len(load.acknowledged) in {0, 1}  # the last may be stored, unanswered
        said = replica.log.read_text()
        assert 1 <= said.count("a tick failed") <= 8  # not one at each tick
        assert "the ticks go on" in said
    finally:
        for load in loads:
            load.enough.set()
        replica.clean()


def two_of(files: list[Path]) -> list[Path]:
    return files if len(files) == 2 else []


def restart_under(loads: list[Load], server: PostgresServer) -> None:
    def each(count: Callable[[Load], int], more: int) -> Callable[[], bool]:
        goals = [(load, count(load) + more) for load in loads]
        return lambda: any(load.unforeseen for load in loads) or all(count(lo) >= goal for lo, goal in goals)

    wait_until("acknowledged reports", each(lambda load: len(load.acknowledged), 20))
    refused = each(lambda load: len(load.refused), 2)
    server.stop()
    wait_until("503", refused)
    server.start()
    wait_until("more acknowledged reports", each(lambda load: len(load.acknowledged), 20))


def test_a_service_that_finds_no_server_says_so_and_ends(tmp_path: Path, own_server: PostgresServer) -> None:
    url = own_server.empty_database()
    own_server.stop()
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.bootstrap"],
        env=os.environ | {"ASSAY_HOME": str(tmp_path), "ASSAY_PORT": "0", "ASSAY_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the database cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "service.json").exists()
