"""Checkpoint folders as workers leave them, for the rows that scripted workers have reported."""

import json
from hashlib import sha256
from pathlib import Path

from sqlalchemy import select
from worlds import World

from orchestrator.store.records import CheckpointRow, fetch
from orchestrator.store.tables import attempts, checkpoints

CONTENT = b"tensors"


def rows(world: World) -> list[CheckpointRow]:
    with world.database.read() as connection:
        return fetch(connection, select(checkpoints).order_by(checkpoints.c.id), CheckpointRow)


def write(path: Path, content: bytes = CONTENT) -> None:
    """A whole checkpoint of one file."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.bin").write_bytes(content)
    entry = {"size": len(content), "sha256": sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": {"model.bin": entry}}))


def materialise(world: World) -> list[Path]:
    """Writes the folder of every row that is not marked as removed; their paths."""
    paths = [Path(row.path) for row in rows(world) if row.removed_at is None]
    for path in paths:
        write(path)
    return paths


def steps_on_disk(world: World, run: int) -> dict[int, list[int]]:
    """By the number of the attempt, the steps of the run's checkpoint folders."""
    with world.database.read() as connection:
        query = select(attempts.c.number, attempts.c.directory).where(attempts.c.run_id == run)
        own = connection.execute(query.order_by(attempts.c.number)).all()
    found = {
        row.number: sorted(int(p.name[5:]) for p in (Path(row.directory) / "checkpoints").glob("step-*"))
        for row in own
    }
    return {number: steps for number, steps in found.items() if steps}


def steps_on_record(world: World, run: int) -> list[int]:
    return sorted(row.step for row in rows(world) if row.run_id == run and row.removed_at is None)
