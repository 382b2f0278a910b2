"""What the doctor looks at and what it finds, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.engines.base import Engine
from orchestrator.store.database import Database
from orchestrator.store.records import AttemptRecord, RunRecord


class Severity(StrEnum):
    ERROR = "error"
    """Something is lost or will not work."""
    WARNING = "warning"
    """Something is not as it should be, and nothing depends on it now."""
    NOTE = "note"
    """Worth knowing; the home is healthy."""


@dataclass(frozen=True)
class RemoveFolder:
    path: Path


@dataclass(frozen=True)
class RemoveFile:
    path: Path


@dataclass(frozen=True)
class MakePrivate:
    path: Path


@dataclass(frozen=True)
class MarkDamaged:
    run_id: int
    path: str
    problem: str


@dataclass(frozen=True)
class MarkSound:
    checkpoint_id: int


Repair = RemoveFolder | RemoveFile | MakePrivate | MarkDamaged | MarkSound
"""What may be done without a person: nothing that anybody made is lost by it."""


@dataclass(frozen=True)
class Finding:
    severity: Severity
    area: str
    what: str
    where: str
    fix: str
    repair: Repair | None = None
    is_repaired: bool = False


@dataclass(frozen=True)
class Patient:
    """A home that is looked at, and what is known of it from outside."""

    home: Path
    database: Database
    engine: Engine
    is_served: bool
    """A service works on it now."""
    quick: bool = False
    """Files are compared by their sizes, not by their hashes."""


@dataclass(frozen=True)
class Rows:
    """What the database says there should be."""

    runs: Mapping[int, RunRecord]
    attempts: list[AttemptRecord]
