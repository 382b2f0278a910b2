"""The composition root: settings -> database, clock, engine, app. The only reader of the wall clock."""

import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path

import uvicorn
from fastapi import Depends, FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from orchestrator.api.app import create_app
from orchestrator.api.deps import require_person
from orchestrator.dashboard import pages
from orchestrator.domain.errors import AssayError, Busy
from orchestrator.domain.suggest import did_you_mean
from orchestrator.engines.local import LocalEngine
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.criteria import CRITERIA
from orchestrator.scheduler import Ticker
from orchestrator.services.context import Context, Limits, Trainer
from orchestrator.services.launch import extend_leases
from orchestrator.services.policies import record_shipped
from orchestrator.services.reconcile import tick
from orchestrator.settings import Settings, TrainerKind, unknown_variables
from orchestrator.store.database import Database, locked_file
from orchestrator.store.migrate import upgrade

ADDRESS_FILE = "service.json"
LOCK_FILE = "service.lock"

log = logging.getLogger("assay")


def utc_now() -> datetime:
    return datetime.now(UTC)


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
        clock=utc_now,
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
    )


def listen(settings: Settings) -> socket.socket:
    """The bound socket, before anything else is touched. Raises `Busy` when the port is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        where = f"{settings.host}:{settings.port}"
        raise Busy(
            f"cannot listen on {where} ({error.strerror}): set ASSAY_PORT, or 0 for a free port"
        ) from None
    return bound


class Server(uvicorn.Server):
    """Uvicorn raises a signal again once it has stopped, which would skip what comes after it here."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Workers outlive it and are adopted by the next one."""
    if settings.is_exposed and not settings.token:
        raise Busy(f"refusing to listen on {settings.host} without authentication: set ASSAY_TOKEN")
    bound = listen(settings)
    home = settings.home.resolve()
    busy = f"another service works on {home}: stop it, or set ASSAY_HOME to another folder"
    with ExitStack() as stack:
        stack.enter_context(bound)
        stack.enter_context(locked_file(home / LOCK_FILE, busy))
        database = stack.enter_context(closing(open_database(settings)))
        stack.enter_context(database.claim())
        upgrade(database)
        address = settings.url or _url(bound)
        context = build_context(settings, database, address)
        stack.enter_context(closing(context.engine))
        record_shipped(context)
        _run(settings, context, bound, address)


def open_database(settings: Settings) -> Database:
    """The database of the settings. Raises `ValueError` when its URL or its server cannot be used."""
    url = settings.resolved_database_url
    if url in {"sqlite://", "sqlite:///:memory:"}:
        raise ValueError("database_url: a database in memory is lost at the end: name a file")
    try:
        database = Database(url)
        with database.read() as connection:
            connection.execute(text("SELECT 1"))
    except (ArgumentError, ImportError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"database_url: the database cannot be opened ({reason}): check the URL") from error
    return database


def build_app(settings: Settings, context: Context) -> FastAPI:
    """The API, and the pages for a browser behind the same door."""
    app = create_app(
        context,
        token=settings.token,
        allowed_hosts=settings.allowed_hosts,
        body_limit=settings.body_limit_bytes,
    )
    app.include_router(pages.router, dependencies=[Depends(require_person)])
    return app


def _run(settings: Settings, context: Context, bound: socket.socket, address: str) -> None:
    ticker = Ticker(partial(tick, context), settings.tick_seconds, utc_now)
    app = build_app(settings, replace(context, wake=ticker.wake))
    extend_leases(context)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    file = context.home / ADDRESS_FILE
    write_address(file, address)
    log.info("serving on %s, data in %s", address, context.home)
    server = Server(config)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, server.handle_exit)
    ticker.start()
    try:
        server.run(sockets=[bound])
    finally:
        ticker.stop()
        file.unlink(missing_ok=True)


def write_address(file: Path, address: str) -> None:
    """Atomically: workers and the CLI read it at any time."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps({"url": address, "pid": os.getpid()}))
    temporary.replace(file)


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{reachable}:{port}"


def _names() -> list[str]:
    return [f"ASSAY_{name.upper()}" for name in Settings.model_fields]


def main() -> int:
    """The exit code: 0 after a clean stop, 1 when it could not start, 2 for bad settings."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in unknown_variables(os.environ):
        log.warning("%s is no setting of Assay and means nothing%s", name, did_you_mean(name, _names()))
    try:
        settings = Settings()
    except SettingsError as error:
        log.error("%s", f"{error}: {error.__cause__}" if error.__cause__ else error)
        return 2
    except ValidationError as error:
        for item in error.errors():
            field = "_".join(str(part) for part in item["loc"]).upper()
            log.error("setting ASSAY_%s: %s (got %r)", field, item["msg"], item["input"])
        return 2
    try:
        serve(settings)
    except (AssayError, ValueError) as error:
        log.error("%s", getattr(error, "detail", None) or error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
