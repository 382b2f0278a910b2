"""What benchmarks of the service share: a context without workers, and a clock of this process alone."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.bootstrap import configs_folder, load_policies
from orchestrator.engines.fake import FakeEngine, FakeWorld
from orchestrator.protocol.kind import CheckConfig
from orchestrator.services.context import Context, Trainer
from orchestrator.store.database import Database

REPEATS = 5


def context_for(database: Database, home: Path, check: CheckConfig) -> Context:
    """A service on a fake machine of four slots."""
    return Context(
        database=database,
        engine=FakeEngine(slots=tuple(f"cpu:{i}" for i in range(4)), world=FakeWorld()),
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        new_token=lambda: "token",
        home=home,
        address=lambda: "http://127.0.0.1:1",
        trainers={"builtin": Trainer(("trainer", "{assignment}"), check)},
        policies=load_policies(configs_folder() / "policies"),
    )


def processor_seconds(work: Callable[[], object]) -> float:
    """The least processor time of several runs."""
    taken = []
    for _ in range(REPEATS):
        before = time.process_time()
        work()
        taken.append(time.process_time() - before)
    return min(taken)
