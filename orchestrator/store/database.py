"""Connections: one writer at a time, readers beside it, on SQLite (WAL) and PostgreSQL."""

import fcntl
import json
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError

from orchestrator.domain.errors import Busy

_BUSY_TIMEOUT_MS = 10_000
_CHANGING_MODE = threading.Lock()  # of two connections that turn a new file to WAL, one would find it locked
_WRITERS = 0x617373  # the advisory lock that PostgreSQL writers of this service share
_LOCK_NOT_AVAILABLE = "55P03"
_LIMITS = (
    "SELECT set_config('lock_timeout', :lock, true),"
    " set_config('idle_in_transaction_session_timeout', :idle, true)"
)
_DURABLE = (
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    " WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
)
"""What is acknowledged survives a crash of the server, though its own settings may not ask for that."""
_REACHING = {
    "application_name": "assay",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""How long a PostgreSQL server that does not answer is waited for, in seconds but the last; a URL wins."""

Guard = Callable[[Connection], None]
"""Looks, in the transaction of a write, whether it may be made; raises if not."""


@contextmanager
def locked_file(file: Path, otherwise: str, *, shared: bool = False) -> Iterator[None]:
    """Holds a lock on a file, made if missing: alone, or with all who want it `shared`.

    Raises `Busy(otherwise)` when another process has it in a way that does not go with that.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            raise Busy(otherwise) from None
        yield


class Database:
    """The only way to a connection. `write` commits at its end or rolls back; `read` sees one snapshot."""

    def __init__(self, url: str, *, patience_seconds: float = _BUSY_TIMEOUT_MS / 1000) -> None:
        self.url = url
        self.patience_seconds = patience_seconds
        self.pause_seconds = 15.0
        """After so long a silence PostgreSQL ends a writer, since it holds up all others."""
        self._guard: Guard = lambda _connection: None
        self.engine = _engine(url)
        self._snapshots = _snapshots(self.engine)
        self._writing = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that no other writer runs beside: load, decide and apply see the same rows.

        Raises `Busy` when the writers before it take longer than the patience of this database, and what
        the guard raises, if it has one.
        """
        if not self._writing.acquire(timeout=self.patience_seconds):
            raise Busy("too many writers wait for the database; nothing was written")
        try:
            with self.engine.connect() as connection:
                writer = connection.execution_options(assay_write=True)
                with writer.begin():
                    if not self.is_sqlite:
                        self._queue_up(writer)
                    self._guard(writer)
                    yield writer
        finally:
            self._writing.release()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot that writers do not wait for."""
        with self._snapshots.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def beside(self) -> Iterator[Connection]:
        """A short transaction on PostgreSQL that waits for no writer: for a row that has a lock of its own.

        Raises `Busy` when somebody holds that row.
        """
        with self.engine.begin() as connection:
            try:
                connection.execute(text(_LIMITS), self._limits(1.0))
                yield connection
            except OperationalError as error:
                raise _told(error) from error

    def guarded(self, guard: Guard) -> "Database":
        """The same database, whose every `write` first asks `guard`; what that raises undoes it."""
        other = copy(self)
        other._guard = guard
        return other

    @contextmanager
    def claim(self) -> Iterator[None]:
        """The right to run a service on this SQLite file, until it is given back.

        Raises `Busy` when another service has it: two that tick would start every run twice.
        """
        with locked_file(
            Path(f"{self.engine.url.database}.lock"),
            "another service works on this database: stop it first",
        ):
            yield

    def _queue_up(self, writer: Connection) -> None:
        """Waits until no other service writes. A writer that falls silent is ended by the server."""
        limits = self._limits(self.patience_seconds)
        try:
            writer.execute(
                text(f"{_LIMITS}, {_DURABLE}, pg_advisory_xact_lock(:key)"), {"key": _WRITERS, **limits}
            )
        except OperationalError as error:
            raise _told(error) from error

    def _limits(self, lock_seconds: float) -> dict[str, str]:
        seconds = {"lock": lock_seconds, "idle": self.pause_seconds}
        return {name: f"{max(1, round(1000 * value))}ms" for name, value in seconds.items()}

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(
            parsed,
            pool_pre_ping=True,
            pool_timeout=_BUSY_TIMEOUT_MS / 1000,
            isolation_level="READ COMMITTED",
            json_serializer=to_json,
            connect_args={name: value for name, value in _REACHING.items() if name not in parsed.query},
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    timeout = {"timeout": _BUSY_TIMEOUT_MS / 1000}
    engine = create_engine(parsed, connect_args=timeout, json_serializer=to_json)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "handle_error", _tell_of_the_disk)
    return engine


def _told(error: OperationalError) -> Exception:
    """`Busy` for a lock that was not to be had in time, and the error itself for any other."""
    if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
        return Busy("another service holds the database; nothing was written")
    return error


def _snapshots(engine: Engine) -> Engine:
    """The same pool for readers: in WAL mode each transaction is a snapshot, PostgreSQL must be asked."""
    if engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ")


def to_json(value: object) -> str:
    """The JSON text of a column. What is not finite becomes a string, as it travels on the wire."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_spelled(value), allow_nan=False)


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late and is never IMMEDIATE
    with _CHANGING_MODE:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode not in {"wal", "memory"}:
        raise Busy(f"SQLite refused WAL mode (it answered {mode}): keep the database on a local disk")
    connection.execute("PRAGMA synchronous=FULL")  # an acknowledged report survives a power cut
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")


def _tell_of_the_disk(context: ExceptionContext) -> None:
    """A disk that is full or broken is said as such, whichever statement or commit met it."""
    code = getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        raise Busy("the disk of the database is full; nothing was written: make room") from None
    if code == sqlite3.SQLITE_IOERR:
        reason = context.original_exception
        raise Busy(f"the disk of the database does not work ({reason}); nothing was acknowledged") from None


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("assay_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
