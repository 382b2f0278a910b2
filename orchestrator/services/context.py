"""What every service is handed: the world outside, passed in."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.engines.base import Engine
from orchestrator.protocol.kind import CheckConfig
from orchestrator.protocol.wire import JsonObject
from orchestrator.store.database import Database


@dataclass(frozen=True)
class Trainer:
    """A trainer kind, resolved: how it is started, and what says whether a config is sound."""

    argv: tuple[str, ...]
    check: CheckConfig


@dataclass(frozen=True)
class Limits:
    """Times that the services keep."""

    lease: timedelta = timedelta(seconds=60)
    """How long an attempt may be silent."""
    progress: timedelta = timedelta(minutes=15)
    """How long a worker that is heard may come no further while it trains."""
    start: timedelta = timedelta(hours=1)
    """How long it may take to its first step: text is prepared and kernels are compiled there."""
    unknown: timedelta = timedelta(hours=1)
    """How long after its lease an attempt that the engine knows nothing of is waited for."""
    min_free_bytes: int = 2**30
    """No worker is started while the data folder's disk has less."""
    heartbeat_seconds: float = 2.0
    gate_wait_seconds: float = 300.0
    cancel_grace_seconds: float = 20.0


@dataclass(frozen=True)
class Context:
    """Built once, in the composition root. Tests build it from a fake engine and a clock of their own."""

    database: Database
    engine: Engine
    clock: Callable[[], datetime]
    new_token: Callable[[], str]
    home: Path
    address: Callable[[], str]
    """The URL that workers report to."""
    trainers: Mapping[str, Trainer]
    policies: Mapping[str, JsonObject]
    limits: Limits = field(default_factory=Limits)
    wake: Callable[[], None] = lambda: None
    """Asks for a tick soon: something changed that the plan may act upon."""


def token_hash(token: str) -> bytes:
    """What is stored of a token. The token has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).digest()
