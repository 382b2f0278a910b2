"""A real service process on a home of its own, with real workers; every process it starts is ended by id."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

SPEC: dict[str, Any] = {
    "name": "real",
    "base": {
        "model": {"kind": "recurrent_shared_moe", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32},
        "moe": {"num_experts": 4, "top_k": 1, "d_ff": 32},
        "data": {"source": "pydoc", "tokenizer": {"kind": "bytes"}, "evaluation_tokens": 512},
        "optimizer": {"lr": 0.003},
        "train": {"batch_size": 4, "threads": 1},
    },
    "control": "control",
    "eval_every": 10,
    "stages": [
        {
            "name": "screen",
            "steps": 40,
            "variants": {"control": {}, "top2": {"moe.top_k": 2}, "wide": {"model.n_embd": 48}},
        },
        {"name": "confirm", "steps": 80, "promote": {"best": 1, "eligible": "all"}},
        {"name": "long", "steps": 160, "promote": {"best": 1, "eligible": "all"}},
    ],
}


def wait_until(what: str, holds: Callable[[], Any], seconds: float = 90) -> Any:
    """The first truthy answer of `holds`. Fails loudly when none comes in time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except (httpx.HTTPError, OSError, ValueError):
            pass
        pause.wait(0.05)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


class Service:
    """`python -m orchestrator.bootstrap` on a free port."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        environment = os.environ | {"ASSAY_HOME": str(self.home), "ASSAY_PORT": "0", "HF_HUB_OFFLINE": "1"}
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.bootstrap"],
                env=environment | self.settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid = self.process.pid
        self.url = wait_until("the service's address", lambda: self._address(pid))
        wait_until("the service", lambda: httpx.get(f"{self.url}/readyz").is_success)

    def _address(self, pid: int) -> str:
        written = json.loads((self.home / "service.json").read_text())
        return str(written["url"]) if written["pid"] == pid else ""

    def get(self, path: str, **params: Any) -> Any:
        response = httpx.get(f"{self.url}{path}", params=params, timeout=30)
        response.raise_for_status()
        return response.json()

    def text(self, path: str, **params: Any) -> str:
        response = httpx.get(f"{self.url}{path}", params=params, timeout=60)
        response.raise_for_status()
        return response.text

    def post(self, path: str, body: Any) -> Any:
        response = httpx.post(f"{self.url}{path}", json=body, timeout=30)
        assert response.is_success, response.text
        return response.json()

    def kill(self) -> None:
        """SIGKILL: nothing is said to anybody."""
        self.end(signal.SIGKILL)

    def end(self, signum: int) -> int:
        assert self.process is not None
        self.process.send_signal(signum)
        code = self.process.wait(30)
        self.process = None
        return code

    def workers(self) -> list[psutil.Process]:
        """Trainer processes of this home, without their supervisors."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if command[1:4] == ["-m", "trainer", "work"] and str(self.home) in command[-1]:
                found.append(process)
        return found

    def clean(self) -> None:
        """Ends what the test left: the service, then the workers of this home, each by its id."""
        if self.process is not None:
            self.end(signal.SIGTERM)
        for worker in self.workers():
            worker.kill()

    def until_ended(self, experiment: str, seconds: float = 240) -> Any:
        def ended() -> Any:
            found = self.get(f"/v1/experiments/{experiment}")
            return found if found["status"] not in {"running", "paused"} else None

        return wait_until(f"the end of {experiment}", ended, seconds)

    def story(self, experiment: str) -> tuple[set[tuple[Any, ...]], dict[str, list[tuple[int, float]]]]:
        """(decisions, losses by variant): what must be the same however often the service dies."""
        report = self.get(f"/v1/experiments/{experiment}/report")
        decisions = {
            (d["variant"], d["stage"], d["step"], d["kind"], d["reason"], d["verdict"], d["text"])
            for d in report["decisions"]
        }
        losses = {
            r["variant"]: [(e["step"], e["eval_loss"]) for e in r["evaluations"]] for r in report["runs"]
        }
        return decisions, losses
