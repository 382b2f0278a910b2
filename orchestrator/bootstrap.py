"""The composition root: settings -> database, clock, engine, app. The only reader of the wall clock."""

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import Depends, FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.api.app import create_app
from orchestrator.api.deps import require_person
from orchestrator.dashboard import pages
from orchestrator.domain.errors import AssayError, Busy
from orchestrator.domain.suggest import did_you_mean
from orchestrator.engines.local import LocalEngine
from orchestrator.engines.processes import boot_id
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.criteria import CRITERIA
from orchestrator.scheduler import Ticker
from orchestrator.services.address import AddressFile
from orchestrator.services.context import Context, Limits, Trainer
from orchestrator.services.lead import Leadership, LeaderTick
from orchestrator.services.place import home_id, host_id, settle_in
from orchestrator.services.policies import record_shipped
from orchestrator.services.reconcile import tick
from orchestrator.settings import Settings, TrainerKind, unknown_variables
from orchestrator.store.backup import FOLDER as BACKUPS
from orchestrator.store.clock import DatabaseClock
from orchestrator.store.database import Database, locked_file
from orchestrator.store.leader import Place
from orchestrator.store.opening import make_ready, open_database, sqlite_file

LOCK_FILE = "service.lock"
BACKLOG = 2048
"""Callers that may wait to be accepted, as many as uvicorn allows."""
STOP_SECONDS = 10.0
"""From the signal to stop to leaving with requests unanswered: nothing is lost by it, workers ask again."""

log = logging.getLogger("assay")


def utc_now() -> datetime:
    return datetime.now(UTC)


def boot_seconds() -> float:
    """Seconds since the machine came up, those that it slept through too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def here(home: Path) -> Place:
    """Where this service works. Raises `Busy` when the home's identity cannot be read."""
    file = Path("/etc/machine-id")
    machine = file.read_text() if file.is_file() else ""
    identity = home_id(home, partial(secrets.token_hex, 16))
    return Place(identity, str(home), host_id(machine, socket.gethostname(), boot_id()))


def configs_folder() -> Path:
    """Where the configs lie: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def load_policies(folder: Path) -> Mapping[str, JsonObject]:
    """Every policy document by its name."""
    documents = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return {document["name"]: document for document in documents}


def load_criteria(modules: Sequence[str]) -> None:
    """Imports the modules that register an operator's criteria.

    Raises `ValueError` that names the setting when one cannot be imported, registers a name that is taken,
    or registers nothing.
    """
    for module in modules:
        before = set(CRITERIA)
        is_new = module not in sys.modules
        try:
            import_module(module)
        except Exception as error:  # whatever the operator's own code raises
            raise ValueError(
                f"criteria: `{module}` cannot be imported ({error}): see ASSAY_CRITERIA"
            ) from error
        if is_new and set(CRITERIA) == before:
            raise ValueError(
                f"criteria: `{module}` registers no criterion: call `register` of "
                "orchestrator.rules.criteria, or take it out of ASSAY_CRITERIA"
            )


def load_trainer(kind: TrainerKind) -> Trainer:
    """The trainer kind with its check imported. Raises `ValueError` for an import path that names nothing."""
    module, _, name = kind.check.partition(":")
    try:
        check = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"trainers: `{kind.check}` cannot be imported ({error})") from error
    return Trainer(kind.argv, check)


def build_context(settings: Settings, database: Database, address: str) -> Context:
    """What the services are handed."""
    load_criteria(settings.criteria)
    home = settings.home.resolve()
    return Context(
        database=database,
        engine=LocalEngine(home / "engine", settings.cpu_slots, settings.use_gpus, time.monotonic),
        clock=utc_now if database.is_sqlite else DatabaseClock(database, boot_seconds),
        new_token=partial(secrets.token_urlsafe, 32),
        home=home,
        address=lambda: address,
        trainers={name: load_trainer(kind) for name, kind in settings.trainer_kinds().items()},
        policies=load_policies(configs_folder() / "policies"),
        limits=Limits(
            lease=timedelta(seconds=settings.lease_seconds),
            progress=timedelta(seconds=settings.progress_seconds),
            start=timedelta(seconds=settings.start_seconds),
            unknown=timedelta(seconds=settings.unknown_seconds),
            min_free_bytes=settings.min_free_bytes,
            heartbeat_seconds=settings.heartbeat_seconds,
            gate_wait_seconds=settings.gate_wait_seconds,
            cancel_grace_seconds=settings.cancel_grace_seconds,
        ),
        free_bytes=lambda: shutil.disk_usage(home).free,
    )


def listen(settings: Settings) -> socket.socket:
    """The socket, before anything else is touched. Raises `Busy` when it cannot be had.

    It listens already: of two that only bind, each would get the port. Who calls before the service is ready
    waits for its answer.
    """
    bound = None
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        wanted = min(found, key=lambda one: one[0] != socket.AF_INET)
        bound = socket.socket(*wanted[:3])
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(wanted[4])
        bound.listen(BACKLOG)
    except OSError as error:
        if bound is not None:
            bound.close()
        where = f"{settings.host}:{settings.port}"
        fix = "set ASSAY_PORT, or 0 for a free port; ASSAY_HOST for another address"
        raise Busy(f"cannot listen on {where} ({error.strerror}): {fix}") from None
    return bound


class Server(uvicorn.Server):
    """Stops at the first signal, once what it accepted is answered; at the second, or when that takes too
    long, it calls `left` and is gone."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], left: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._left = ready, left

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Calls `ready` once it answers: a first tick with much to do would keep clients waiting."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()

    def obey_signals(self) -> None:
        """From here on SIGTERM and SIGINT stop this server. An alarm ends what does not stop in time."""
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(signum, self.handle_exit)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn raises a signal again once it has stopped, which would skip what comes after it here."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self.should_exit = True
            signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
            return
        late = sig == signal.SIGALRM
        why = f"not stopped within {STOP_SECONDS:.0f} s" if late else "asked a second time to stop"
        log.warning("%s: leaving at once; what was acknowledged is in the database", why)
        self._left()
        os._exit(1)


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Workers outlive it and are adopted by the next one."""
    if settings.is_exposed and not settings.token:
        raise Busy(f"refusing to listen on {settings.host} without authentication: set ASSAY_TOKEN")
    bound = listen(settings)
    home = settings.home.resolve()
    busy = f"another service works on {home}: stop it, or set ASSAY_HOME to another folder"
    with ExitStack() as stack:
        stack.enter_context(bound)
        is_shared = sqlite_file(settings.resolved_database_url) is None
        stack.enter_context(locked_file(home / LOCK_FILE, busy, shared=is_shared))
        database = stack.enter_context(closing(open_database(settings.resolved_database_url, home / BACKUPS)))
        database.pause_seconds = settings.leader_seconds
        if not is_shared:
            stack.enter_context(database.claim())
        make_ready(database, home / BACKUPS, utc_now)
        if is_shared:
            settle_in(database, here(home))
        address = settings.url or _url(bound)
        context = build_context(settings, database, address)
        stack.enter_context(closing(context.engine))
        record_shipped(context)
        _run(settings, context, bound, address)


def build_app(settings: Settings, context: Context) -> FastAPI:
    """The API, and the pages for a browser behind the same door."""
    app = create_app(
        context,
        token=settings.token,
        allowed_hosts=settings.allowed_hosts,
        body_limit=settings.body_limit_bytes,
        ingest_queue=settings.ingest_queue,
    )
    app.include_router(pages.router, dependencies=[Depends(require_person)])
    return app


def _run(settings: Settings, context: Context, bound: socket.socket, address: str) -> None:
    file = AddressFile(context.home, address, os.getpid())
    is_alone = context.database.is_sqlite
    beat, leave = _alone(context, file) if is_alone else _shared(settings, context, file, address)
    ticker = Ticker(beat, settings.tick_seconds, utc_now)
    app = build_app(settings, replace(context, wake=ticker.wake))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=8)
    log.info("serving on %s, data in %s", address, context.home)
    server = Server(config, ticker.start, file.remove)
    server.obey_signals()
    try:
        server.run(sockets=[bound])
    finally:
        ticker.stop()
        leave()


Act = Callable[[], None]


def _alone(context: Context, file: AddressFile) -> tuple[Act, Act]:
    """What to do at each tick and at the end, for the only service of a SQLite database."""
    file.keep()
    return partial(tick, context), file.remove


def _shared(settings: Settings, context: Context, file: AddressFile, address: str) -> tuple[Act, Act]:
    """The same for one of the services that share a PostgreSQL database: it ticks while it leads."""
    holder = f"{socket.gethostname()[:64]}:{os.getpid()}:{secrets.token_hex(4)}"
    lasts = timedelta(seconds=settings.leader_seconds)
    leadership = Leadership(context.database, holder, address, lasts, boot_seconds, here(context.home))
    leading = LeaderTick(context, leadership, tick, file.keep)
    clock = context.clock
    measure = clock.measure if isinstance(clock, DatabaseClock) else lambda: None

    def beat() -> None:
        measure()
        leading()

    def leave() -> None:
        try:
            leadership.give_up()
        except (AssayError, SQLAlchemyError) as error:
            log.warning("the lead was not given up, it runs out by itself: %s", _sentence(error))
        file.remove()

    return beat, leave


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _names() -> list[str]:
    return [f"ASSAY_{name.upper()}" for name in Settings.model_fields]


def read_settings() -> Settings | None:
    """The settings, with the logging of a program of ours; None when they do not fit, which is said."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in unknown_variables(os.environ):
        log.warning("%s is no setting of Assay and means nothing%s", name, did_you_mean(name, _names()))
    try:
        return Settings()
    except SettingsError as error:
        log.error("%s", f"{error}: {error.__cause__}" if error.__cause__ else error)
    except ValidationError as error:
        for item in error.errors():
            field = "_".join(str(part) for part in item["loc"]).upper()
            log.error("setting ASSAY_%s: %s (got %r)", field, item["msg"], item["input"])
    return None


def said(work: Callable[[Settings], None]) -> int:
    """The exit code: 0 done, 1 when it could not be, 2 for bad settings. Every failure is one line."""
    settings = read_settings()
    if settings is None:
        return 2
    try:
        work(settings)
    except (AssayError, ValueError, OSError, SQLAlchemyError) as error:
        log.error("%s", _sentence(error))
        return 1
    return 0


def _sentence(error: Exception) -> str:
    """One line. SQLAlchemy's first says it all, and the others are the statement."""
    lines = str(getattr(error, "detail", None) or error).splitlines() or [type(error).__name__]
    return lines[0] if isinstance(error, SQLAlchemyError) else " ".join(lines)


def main() -> int:
    """The exit code of a service: 0 after a clean stop, 1 when it could not start, 2 for bad settings."""
    return said(serve)


if __name__ == "__main__":
    sys.exit(main())
