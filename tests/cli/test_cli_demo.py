"""The demo with a real service and real workers: however it ends, no process stays behind."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from cli_rigs import Assay
from cli_samples import decision, experiment, run
from rich.console import Console

from orchestrator.cli.demo_service import service_environment, workers_of
from orchestrator.cli.signals import Interrupted, Interruptions
from orchestrator.cli.summary import next_steps
from orchestrator.cli.tables import closing


def wait_until(is_so: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = monotonic() + seconds
    while not is_so():
        assert monotonic() < deadline, "waited in vain"
        Event().wait(0.1)


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_spec_that_is_refused_ends_the_demo_and_its_service(assay: Assay, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: x\nbase: {}\ncontrol: a\nstages: []\n")
    said = assay("demo", "--spec", str(spec), "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert "stages" in said.err
    assert "serving on" in (tmp_path / "out" / "service.log").read_text()
    assert workers_of((tmp_path / "out" / "home").resolve()) == []


def test_a_service_that_cannot_start_shows_the_end_of_its_log(
    assay: Assay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_TICK_SECONDS", "-1")
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: x\n")
    said = assay("demo", "--spec", str(spec), "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert "the service ended at its start" in said.err
    assert "ASSAY_TICK_SECONDS" in said.err


def test_a_data_folder_that_another_service_holds_is_left_alone(assay: Assay, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: x\n")
    home = (tmp_path / "out" / "home").resolve()
    home.mkdir(parents=True)
    environment = {**os.environ, "ASSAY_WORKER": str(home / "engine" / "run_1-1.claim")}
    with (home / "service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        theirs = subprocess.Popen(["sleep", "60"], env=environment)
        try:
            said = assay("demo", "--spec", str(spec), "--out", str(tmp_path / "out"))
            assert "another service works on" in said.err
            assert [process.pid for process in workers_of(home)] == [theirs.pid]
        finally:
            theirs.kill()
            theirs.wait()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_demo_its_service_and_its_workers(tmp_path: Path, signum: signal.Signals) -> None:
    out, log = tmp_path / "out", tmp_path / "demo.log"
    home = (out / "home").resolve()
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", "demo", "--out", str(out)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ASSAY_SLOTS": "1"},
        )
    try:
        wait_until(lambda: " is running (screen" in log.read_text() or demo.poll() is not None)
        service = json.loads((home / "service.json").read_text())["pid"]
        assert workers_of(home) != []
    finally:
        demo.send_signal(signum)
        code = demo.wait(120)
    assert code == 128 + signum, log.read_text()
    assert workers_of(home) == []
    assert not is_there(service)


def test_the_first_signal_interrupts_and_the_clean_up_is_finished() -> None:
    done: list[str] = []

    def interrupted() -> None:
        with Interruptions() as interruptions:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                with interruptions.held():
                    signal.raise_signal(signal.SIGINT)
                    done.append("cleaned up")

    with pytest.raises(Interrupted):
        interrupted()
    assert done == ["cleaned up"]


def test_a_signal_that_came_while_held_is_not_lost() -> None:
    done: list[str] = []

    def held() -> None:
        with Interruptions() as interruptions, interruptions.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("went on")

    with pytest.raises(Interrupted):
        held()
    assert done == ["went on"]


def test_the_demo_never_touches_the_persons_own_service(tmp_path: Path) -> None:
    own = {"ASSAY_DATABASE_URL": "postgresql://prod", "ASSAY_URL": "http://prod", "ASSAY_SLOTS": "2"}
    made = service_environment(own, tmp_path)
    assert made == {
        "HF_HUB_OFFLINE": "1",
        "ASSAY_SLOTS": "2",
        "ASSAY_HOME": str(tmp_path),
        "ASSAY_PORT": "0",
        "PYTHONUNBUFFERED": "1",
    }
    assert service_environment({"HF_HUB_OFFLINE": "0"}, tmp_path)["HF_HUB_OFFLINE"] == "0"


def test_the_closing_table_says_why_and_the_next_steps_can_be_pasted(tmp_path: Path) -> None:
    detail = str(decision(1)["text"])
    runs = [run(1, "aux-0.01", detail="trained to the end"), run(2, "aux-0.0", detail=detail)]
    with (tmp_path / "out").open("w") as file:
        console = Console(width=80, record=True, file=file)
        console.print(closing(runs, [decision(1)]))
    text = console.export_text()
    assert "aux-0.0   not eligible at the gate of screen: eval loss 4.357 is 0.078 above the" in text
    summary = {"experiment": experiment("succeeded"), "runs": runs, "decisions": [decision(1)]}
    assert next_steps(summary, Path("a folder"))[-1] == "  ASSAY_HOME='a folder/home' assay why exp_1/aux-0.0"
