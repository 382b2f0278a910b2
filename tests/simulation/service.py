"""The service under test: real services over a real SQLite file, that dies where the plan says so."""

import errno
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path

from services.worlds import check
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from orchestrator.bootstrap import configs_folder, load_policies
from orchestrator.engines.base import EngineError, Handle, WorkerSpec
from orchestrator.engines.fake import FakeEngine, FakeWorld
from orchestrator.protocol.wire import JsonObject
from orchestrator.services import launch
from orchestrator.services.context import Context, Limits, Trainer
from orchestrator.services.policies import record_shipped
from orchestrator.store import database as store
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from simulation.faults import Crash, Fault, Plan, Violation

LIMITS = Limits(
    lease=timedelta(seconds=30),
    progress=timedelta(seconds=120),
    start=timedelta(seconds=120),
    unknown=timedelta(seconds=300),
    min_free_bytes=0,
    heartbeat_seconds=2.0,
    gate_wait_seconds=60.0,
    cancel_grace_seconds=10.0,
)


class Clock:
    """Wall and monotonic time, both told; only the wall jumps."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)
        self.monotonic = 1000.0

    def wait(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic += seconds

    def jump(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)


class BreakingDatabase(Database):
    """Crashes and a full disk, before or after each commit."""

    def __init__(self, url: str, plan: Plan) -> None:
        super().__init__(url)
        self.plan = plan

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
            if self.plan.strikes(Fault.CRASH_BEFORE_COMMIT):
                raise Crash
            if self.plan.strikes(Fault.DISK_FULL_COMMIT):
                raise disk_full()
        if self.plan.strikes(Fault.CRASH_AFTER_COMMIT):
            raise Crash


def disk_full() -> OperationalError:
    return OperationalError("COMMIT", {}, Exception("database or disk is full"))


class BreakingEngine(FakeEngine):
    """Crashes of the service around each side effect, and answers that are errors."""

    def __init__(self, slots: Sequence[str], world: FakeWorld, clock: Clock, plan: Plan) -> None:
        super().__init__(slots, world, lambda: clock.monotonic)
        self.plan = plan

    def submit(self, key: str, spec: WorkerSpec) -> Handle:
        if self.plan.strikes(Fault.CRASH_BEFORE_SUBMIT):
            raise Crash
        if not self.world.submit_failures:
            if self.plan.strikes(Fault.SUBMIT_DONE_BUT_ERROR):
                self.world.submit_failures = [True]
            elif self.plan.strikes(Fault.SUBMIT_ERROR):
                self.world.submit_failures = [False]
        self.plan.say(f"submit {key}")
        handle = super().submit(key, spec)
        if self.plan.strikes(Fault.CRASH_AFTER_SUBMIT):
            raise Crash
        return handle

    def cancel(self, handle: Handle, grace_seconds: float) -> None:
        if self.plan.strikes(Fault.CRASH_BEFORE_CANCEL):
            raise Crash
        self.plan.say(f"cancel {handle.key}")
        super().cancel(handle, grace_seconds)
        if self.plan.strikes(Fault.CRASH_AFTER_CANCEL):
            raise Crash


class Errors(logging.Handler):
    """What the service swallowed and logged, which no fault of the plan explains."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        full = isinstance(error, OperationalError) and "disk is full" in str(error)
        if not full and not isinstance(error, EngineError):
            self.seen.append(f"{record.getMessage()}: {error!r}")


class Service:
    """One service process after another over the same file; `context` is None while none runs."""

    def __init__(self, folder: Path, slots: int, plan: Plan, may_fill_disk: Callable[[Path], bool]) -> None:
        self.folder, self.plan = folder, plan
        self.may_fill_disk = may_fill_disk
        self.url = f"sqlite:///{folder / 'assay.sqlite3'}"
        self.machine = FakeWorld(on_term=None)
        self.slots = tuple(f"cpu:{i}" for i in range(slots))
        self.clock = Clock()
        self.tokens = count(1)
        self.errors = Errors()
        self.context: Context | None = None

    def boot(self) -> None:
        """A process that comes up with nothing in memory, as the composition root brings one up."""
        self.plan.say("boot")
        self.context = Context(
            database=BreakingDatabase(self.url, self.plan),
            engine=BreakingEngine(self.slots, self.machine, self.clock, self.plan),
            clock=lambda: self.clock.wall,
            new_token=lambda: f"token-{next(self.tokens)}",
            home=self.folder / "home",
            address=lambda: "http://127.0.0.1:1",
            trainers={"builtin": Trainer(("trainer", "{assignment}"), check)},
            policies=policies(),
            limits=LIMITS,
            monotonic=lambda: self.clock.monotonic,
        )

    def die(self) -> None:
        """Nothing of the process is left but its files."""
        if self.context is not None:
            self.context.database.close()
        self.context = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Notes what is logged as an error, and lets the assignment's disk be full."""
        logger, written = logging.getLogger("orchestrator"), launch._write_private
        logger.addHandler(self.errors)
        logger.propagate = False
        launch._write_private = self._write_private
        self._written = written
        try:
            yield
        finally:
            launch._write_private = written
            logger.propagate = True
            logger.removeHandler(self.errors)

    def _write_private(self, file: Path, text: str, token: str) -> Path:
        if self.may_fill_disk(file.parent) and self.plan.strikes(Fault.DISK_FULL_ASSIGNMENT):
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._written(file, text, token)
        if self.plan.strikes(Fault.CRASH_AFTER_ASSIGNMENT):
            raise Crash
        return written

    def check_errors(self) -> None:
        """Raises `Violation` for an error that no fault explains."""
        if self.errors.seen:
            raise Violation("the service never fails by itself", self.errors.seen[0])


@cache
def policies() -> dict[str, JsonObject]:
    return dict(load_policies(configs_folder() / "policies"))


@contextmanager
def engines_kept() -> Iterator[None]:
    """Database engines are made once for each file, and each service gets a copy of its own.

    What is shared is the statements that were compiled, which cost more than all else in a new service.
    """
    original = store._engine
    made = cache(lambda url: _relaxed(original(url)))
    store._engine = lambda url: copy(made(url))
    try:
        yield
    finally:
        store._engine = original


def prepare(folder: Path) -> Path:
    """A migrated database that each experiment starts from a copy of."""
    template = folder / "template.sqlite3"
    database = Database(f"sqlite:///{template}")
    upgrade(database)
    context = Context(
        database=database,
        engine=FakeEngine(),
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        new_token=str,
        home=folder,
        address=str,
        trainers={},
        policies=policies(),
    )
    record_shipped(context)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return template


def _relaxed(engine: store.Engine) -> store.Engine:
    """No experiment here cuts the power."""
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    return engine


def fresh(folder: Path, template: Path) -> None:
    """The folder as before an experiment."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    store._engine(f"sqlite:///{folder / 'assay.sqlite3'}").dispose()
    for suffix in ("-wal", "-shm"):
        (folder / f"assay.sqlite3{suffix}").unlink(missing_ok=True)
    shutil.copyfile(template, folder / "assay.sqlite3")
