"""The home and the machine of a service, and whether it may work with a database that others work with.

Workers of the local engine are known by files in the home and by pids of one machine: a service that looked
from elsewhere would find none of them, and train everything twice.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.domain.errors import Busy
from orchestrator.store import leader, runs
from orchestrator.store.database import Database
from orchestrator.store.leader import LeaderRecord, Place

FILE = "home-id"
_ID = re.compile(r"[0-9a-f]{32}")
MOVED = "if it was moved there for good, end every service and its workers, then run `assay db move`"


def home_id(home: Path, new_id: Callable[[], str]) -> str:
    """The identity of a home: a file that goes with it wherever it is moved. Of many that make it one does.

    Raises `Busy` when the file holds something else.
    """
    file = home / FILE
    if not file.exists():
        home.mkdir(parents=True, exist_ok=True)
        _make(file, new_id())
    found = file.read_text().strip()
    if not _ID.fullmatch(found):
        raise Busy(f"{file} should hold 32 hexadecimal digits and holds {found[:40]!r}: restore it")
    return found


def _make(file: Path, new: str) -> None:
    temporary = file.with_suffix(f".{new[:8]}.tmp")
    with temporary.open("w") as stream:
        stream.write(f"{new}\n")
        stream.flush()
        os.fsync(stream.fileno())
    with suppress(FileExistsError):
        os.link(temporary, file)
    temporary.unlink()


def host_id(machine_id: str, hostname: str, boot_id: str) -> str:
    """What a machine is known by: a name that lasts, and its boot, which its containers share."""
    return f"{machine_id.strip() or hostname[:100]} {boot_id.strip()}"


def is_same_host(one: str, other: str) -> bool:
    """Whether both were told of one machine: after a restart of it, or of a container there, too."""
    return bool(set(one.split()) & set(other.split()))


def settle_in(database: Database, place: Place) -> None:
    """Makes this place the home of a database that has none. Raises `Busy` if it has another.

    Where there is a home nothing is written: a leader that was paused in the middle of a write has that row.
    """
    with database.beside() as connection:
        found = leader.read(connection)
        if found is None or found.home_id is None:
            leader.settle_in(connection, place)
            found = leader.read(connection)
        why = refusal(connection, found, place)
    if why is not None:
        raise Busy(why)


def refusal(connection: Connection, found: LeaderRecord | None, place: Place) -> str | None:
    """Why a service at this place can neither lead nor follow, with what to do about it; None if it can."""
    if found is None or found.home_id is None:
        return None
    if found.home_id != place.home_id:
        return (
            f"this database works with the home {found.home_path} (identity {found.home_id}), and "
            f"{place.path} is another: set ASSAY_HOME to that folder; a copy of it keeps its identity in "
            f"{FILE}; {MOVED}"
        )
    if found.is_live and found.home_path != place.path:
        return f"a service leads on {found.home_path}, and {place.path} is a copy of it: {MOVED}"
    if found.host is None or is_same_host(found.host, place.host):
        return None
    if found.is_live or runs.live_attempts(connection):
        return (
            f"the workers of this database are processes of another machine ({found.host}, this one is "
            f"{place.host}): start the service there; {MOVED}"
        )
    return None
