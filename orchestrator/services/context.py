"""What every service is handed: the world outside, passed in."""

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.engines.base import Engine
from orchestrator.protocol.kind import CheckConfig
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.leases import Deadlines, Look
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

    @property
    def deadlines(self) -> Deadlines:
        """Those that a worker is judged by."""
        return Deadlines(self.progress, self.start, self.unknown)


@dataclass(frozen=True)
class Wait:
    """A start that could not be made: how often it was tried again, and when it is due, in seconds of the
    monotonic clock."""

    times: int
    due: float


@dataclass(frozen=True)
class Unsaid:
    """What an experiment is to be told, and the transaction that has written it, if one has."""

    experiment_id: int
    text: str
    written_in: object = None


@dataclass
class Watch:
    """What one service remembers from tick to tick. A new one begins without it, and loses nothing."""

    looked: Look | None = None
    """When the tick before looked at its workers; None: nobody could be heard since."""
    unsettled_until: float = 0.0
    """Until when other services may go by an old clock, by the monotonic clock."""
    swept: float | None = None
    """When orphans were last looked for, by the monotonic clock."""
    retained: float | None = None
    """When checkpoints were last looked through, by the monotonic clock."""
    retained_upto: int = 0
    """The run at which the last look through checkpoints ended: the next goes on after it."""
    orphans: set[str] = field(default_factory=set)
    """Keys of workers that were told to go because no row asks for them."""
    is_short: bool = False
    """Whether the disk had too little room for another worker when a tick last looked."""
    waits: dict[str, Wait] = field(default_factory=dict)
    """Starts that wait for the engine or the disk, by the attempt's key."""
    poison: dict[str, str] = field(default_factory=dict)
    """The error that each thing raised last, by what it is: said once, not at every tick."""
    raising: dict[str, float] = field(default_factory=dict)
    """Since when each attempt has raised whenever it was looked at, by the monotonic clock."""
    renewed: Look | None = None
    """When deadlines last began anew; None once a whole tick has gone well since."""
    unsaid: list[Unsaid] = field(default_factory=list)
    """What experiments are still to be told of such errors, or may be: the transaction can be undone."""


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
    """Asks for a tick soon: something changed that the plan may act upon. Called after the commit."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds for durations: not moved when the wall clock is set."""
    free_bytes: Callable[[], int] = lambda: sys.maxsize
    """Room on the disk of `home`. Raises `OSError` when the disk does not answer."""
    watch: Watch = field(default_factory=Watch)


def token_hash(token: str) -> bytes:
    """What is stored of a token. The token has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).digest()
