"""The demo's own service: a child process with a data folder of its own, of which nothing stays behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from time import monotonic

import psutil

from orchestrator.cli.address import read_service_file
from orchestrator.cli.client import Client, connect_to
from orchestrator.cli.errors import CliError, DemoFailed

START_SECONDS = 90.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
LOG_LINES = 20
NOT_INHERITED = ("URL", "DATABASE_URL", "HOST", "TOKEN", "CONFIG", "ALLOWED_HOSTS")
MARK = "ASSAY_WORKER"
"""The local engine puts this into the environment of a worker: a path inside the service's data folder."""


class DemoService:
    """`home` holds its data; `log` gets what it says. There after `start`, gone after `stop`."""

    def __init__(self, home: Path, log: Path) -> None:
        self.home = home.resolve()
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False

    @property
    def service_file(self) -> Path:
        return self.home / "service.json"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process; `connect` waits for it."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.bootstrap"],
                env=service_environment(os.environ, self.home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: the service still has to cancel its workers
            )

    def connect(self) -> Client:
        """A client of the service once it is ready. Raises `DemoFailed` with the end of its log."""
        deadline = monotonic() + START_SECONDS
        while monotonic() < deadline:
            code = self._process.poll() if self._process else None
            if code is not None:
                raise DemoFailed(f"the service ended at its start with code {code}", *self._tail())
            client = self._ready()
            if client is not None:
                return client
            Event().wait(POLL_SECONDS)
        raise DemoFailed(f"the service was not ready within {START_SECONDS:.0f} s", *self._tail())

    def _ready(self) -> Client | None:
        """A client, if the file is this process's own and the service answers."""
        if read_service_file(self.service_file).get("pid") != self.pid:
            return None
        client = connect_to(self.service_file)
        try:
            client.get("/readyz")
        except CliError:
            client.close()
            return None
        self._was_ready = True
        return client

    @property
    def holds_home(self) -> bool:
        """Whether the data folder is this service's, and so its workers: another service may have it."""
        written = read_service_file(self.service_file).get("pid")
        return self._was_ready or (written is not None and written == self.pid)

    def workers(self) -> list[psutil.Process]:
        """The workers that are this service's to end."""
        return workers_of(self.home) if self.holds_home else []

    def _tail(self) -> list[str]:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return [f"its log, {self.log}, ends with:", *(f"  {line}" for line in lines)]

    def stop(self) -> None:
        """Ends the service, then whatever worker of its data folder is still there."""
        has_workers = self.holds_home  # asked now: a service that ends takes its file with it
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if has_workers:
            _end(workers_of(self.home))


def service_environment(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    """This environment, with the demo's own data folder and port instead of the person's service."""
    dropped = {f"ASSAY_{name}" for name in NOT_INHERITED}
    kept = {name: value for name, value in inherited.items() if name not in dropped}
    own = {"ASSAY_HOME": str(home), "ASSAY_PORT": "0", "PYTHONUNBUFFERED": "1"}
    return {"HF_HUB_OFFLINE": "1", **kept, **own}


def workers_of(home: Path) -> list[psutil.Process]:
    """Processes that were started for the data folder `home`: workers, what they started, supervisors."""
    return [process for process in psutil.process_iter() if _belongs(process, f"{home}{os.sep}")]


def _belongs(process: psutil.Process, home: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(MARK, "").startswith(home):
            return True
        arguments = process.cmdline()
    except (psutil.Error, OSError):
        return False
    is_supervisor = any(argument.endswith("supervisor.py") for argument in arguments)
    return is_supervisor and any(argument.startswith(home) for argument in arguments)


def _end(processes: list[psutil.Process]) -> None:
    """TERM, and KILL for those that are still there after a while."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def _signal(process: psutil.Process, signum: signal.Signals) -> None:
    try:
        process.send_signal(signum)
    except psutil.Error:
        return
