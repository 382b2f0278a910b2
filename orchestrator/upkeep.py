"""`assay db`: what is done to the database of a home without serving it."""

import sqlite3
import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from orchestrator.bootstrap import LOCK_FILE, said, utc_now
from orchestrator.domain.errors import Busy, Missing
from orchestrator.settings import Settings
from orchestrator.store import leader
from orchestrator.store.backup import FOLDER as BACKUPS
from orchestrator.store.backup import back_up, default_name
from orchestrator.store.database import Database, locked_file
from orchestrator.store.integrity import damage_of
from orchestrator.store.migrate import current_revision, differences, newest_revision
from orchestrator.store.opening import damaged, make_ready, open_database, sqlite_file


def upgrade(settings: Settings) -> None:
    """Migrates without serving. Raises `Busy` while a service works on a SQLite database or on its home."""
    home = settings.home.resolve()
    with ExitStack() as stack:
        if sqlite_file(settings.resolved_database_url):
            busy = f"a service works on {home}: stop it first, or let it upgrade by itself when it starts"
            stack.enter_context(locked_file(home / LOCK_FILE, busy))
        database = stack.enter_context(closing(_open(settings)))
        if database.is_sqlite:  # services that share PostgreSQL read the new schema as well as the old one
            stack.enter_context(database.claim())
        before = current_revision(database)
        make_ready(database, home / BACKUPS, utc_now)
    after = newest_revision()
    _say(
        f"at revision {after} already" if before == after else f"upgraded from {before or 'none'} to {after}"
    )


def back_up_now(settings: Settings, out: Path | None) -> None:
    """Copies a SQLite database while a service works on it, or not.

    Raises `Busy` for PostgreSQL, which has its own program, and `Missing` when there is no database.
    """
    file = sqlite_file(settings.resolved_database_url)
    if file is None:
        raise Busy("PostgreSQL backs itself up: pg_dump --format=custom --file assay.dump DATABASE_URL")
    with closing(_open_present(settings, file)) as database:
        revision = current_revision(database)
    target = out or settings.home.resolve() / BACKUPS / default_name(utc_now(), revision)
    size = back_up(file, target)
    _say(f"{target} ({size} bytes, revision {revision}, checked)")


def move(settings: Settings) -> None:
    """Lets another home or machine work with a PostgreSQL database. Raises `Busy` while a service leads.

    Attempts that were live are found lost there: whoever asks has seen their workers end.
    """
    if sqlite_file(settings.resolved_database_url) is not None:
        raise Busy("a SQLite database goes with its home: move the folder, and leave a link where it was")
    with closing(_open(settings)) as database, database.beside() as connection:
        is_free = leader.move_out(connection)
    if not is_free:
        raise Busy("a service leads: end every service of this database and their workers first")
    _say("the next service decides which home and machine this database works with")


def check(settings: Settings) -> None:
    """Reads everything: pages, indexes, keys, the schema. Raises `Busy` that says what is wrong."""
    file = sqlite_file(settings.resolved_database_url)
    with closing(_open(settings) if file is None else _open_present(settings, file)) as database:
        if file is not None:
            _refuse_damage(file, settings.home.resolve() / BACKUPS)
        revision = current_revision(database)
        if revision != newest_revision():
            raise Busy(f"at revision {revision or 'none'}, not {newest_revision()}: run `assay db upgrade`")
        if found := differences(database):
            raise Busy(f"the tables are not those of revision {revision}: {found}")
    _say(f"sound, at revision {revision}")


def _refuse_damage(file: Path, backups: Path) -> None:
    try:
        damage = damage_of(file, thorough=True)
    except sqlite3.OperationalError as error:
        raise Busy(f"the database {file} cannot be read: {error}") from error
    if damage:
        raise Busy(damaged(file, damage, backups))


def _open(settings: Settings) -> Database:
    return open_database(settings.resolved_database_url, settings.home.resolve() / BACKUPS)


def _open_present(settings: Settings, file: Path) -> Database:
    """Opening a SQLite file would make it."""
    if not file.exists():
        raise Missing(
            f"there is no database at {file}: set ASSAY_HOME or ASSAY_DATABASE_URL, as for the service"
        )
    return _open(settings)


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")


def _parsed() -> Namespace:
    parser = ArgumentParser(prog="assay db")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("upgrade")
    commands.add_parser("check")
    commands.add_parser("move")
    commands.add_parser("backup").add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> int:
    """The exit code: 0 done, 1 when it could not be or something is wrong, 2 for bad settings or usage."""
    arguments = _parsed()
    work = {"upgrade": upgrade, "check": check, "move": move}
    if arguments.command == "backup":
        return said(partial(back_up_now, out=arguments.out))
    return said(work[arguments.command])


if __name__ == "__main__":
    sys.exit(main())
