"""What the first version of Assay wrote: an experiment amid its second stage, two workers up.

`first_version.json` was exported from a database and a home of that version: the last commit with migration
0001 alone. A key that is missing in a row is NULL; HOME is the data folder.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import JSON, Boolean, Column, DateTime, LargeBinary, MetaData, Table, insert, text
from worlds import Worker, World, falling

from orchestrator.engines.base import WorkerSpec
from orchestrator.protocol.assignment import Assignment
from orchestrator.store.database import Database
from orchestrator.store.migrate import _config

FILE = Path(__file__).with_name("first_version.json")
LOSS = falling({"wide": -0.2, "wider": -0.3, "slow": 0.3})
EXPERIMENT = 1


def written(home: Path) -> dict[str, Any]:
    return json.loads(FILE.read_text().replace("HOME/", f"{home}/"))  # type: ignore[no-any-return]


def first_database(url: str, home: Path) -> Database:
    """A database that migration 0001 made, with those rows in it."""
    database = Database(url)
    config = _config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with database.write() as connection:
        for name, rows in written(home)["tables"].items():
            table = Table(name, MetaData(), autoload_with=connection)
            for row in rows:
                values = {key: as_stored(table.c[key], row[key], database) for key in row}
                connection.execute(insert(table).values(values))
            if "id" in table.c and not database.is_sqlite:  # rows with ids given leave the counter behind
                counter = f"pg_get_serial_sequence('{name}', 'id')"
                connection.execute(text(f"SELECT setval({counter}, {1000 + len(rows)})"))
    return database


def as_stored(column: Column[Any], value: Any, database: Database) -> Any:
    if isinstance(column.type, JSON):
        return JSON.NULL if value is None else value
    if isinstance(column.type, LargeBinary):
        return bytes.fromhex(value)
    if isinstance(column.type, Boolean):
        return bool(value)
    if isinstance(column.type, DateTime):
        at = datetime.fromisoformat(value)
        return at if database.is_sqlite else at.replace(tzinfo=UTC)
    return value


def world_of(database: Database, home: Path, *, workers_live: bool) -> World:
    """Today's service on that home, a moment later; the workers of before train on or are gone."""
    found = written(home)
    world = World(database, home, loss=LOSS)
    world.now = datetime.fromisoformat(found["now"])
    for folder, document in found["assignments"].items():
        (home / folder).mkdir(parents=True)
        (home / folder / "assignment.json").write_text(json.dumps(document))
    for attempt in found["tables"]["attempts"]:
        folder = Path(attempt["directory"]).relative_to(home)
        assignment = Assignment.model_validate(found["assignments"][str(folder)])
        _place(world, attempt, assignment, lives=workers_live and attempt["status"] != "ended")
    return world


def _place(world: World, attempt: dict[str, Any], assignment: Assignment, *, lives: bool) -> None:
    steps = list(range(20, attempt["step"] + 1, 20))
    worker = Worker(assignment, LOSS, attempt["step"], attempt["acknowledged"], reported=steps)
    world.workers[attempt["key"]] = worker
    spec = WorkerSpec(argv=("trainer",), directory=Path(attempt["directory"]), slots=tuple(attempt["slots"]))
    world.context.engine.submit(attempt["key"], spec)
    if not lives:
        worker.exited = -9
        world.machine.exit(attempt["key"], -9)
