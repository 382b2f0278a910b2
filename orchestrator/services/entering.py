"""New variants and runs: at submission, once a result is found, and when a stage asks for more seeds."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.expand import Variant
from orchestrator.domain.lifecycle import RunStatus
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.protocol import Protocol
from orchestrator.store import experiments, runs
from orchestrator.store.records import RunRecord


def add_variant(
    connection: Connection, experiment_id: int, variant: Variant, origin: JsonObject | None = None
) -> int:
    """The id of the variant's row."""
    return experiments.add_variant(
        connection,
        experiment_id=experiment_id,
        name=variant.name,
        is_control=variant.is_control,
        stage=variant.stage,
        overrides=variant.overrides,
        config=variant.facts.config,
        config_hash=variant.config_hash,
        facts=variant.facts.model_dump(mode="json"),
        origin=origin,
    )


def add_run(
    connection: Connection,
    protocol: Protocol,
    experiment_id: int,
    variant_id: int,
    *,
    seed: int,
    stage: int,
    now: datetime,
) -> int:
    """The id of a new run that waits for a slot: from step 0 to its first point or its stage's end."""
    return runs.add_run(
        connection,
        experiment_id=experiment_id,
        variant_id=variant_id,
        seed=seed,
        status=RunStatus.PENDING,
        stage=stage,
        step=0,
        target_step=protocol.target(stage, 0),
        epoch=0,
        created_at=now,
    )


def add_missing_seeds(
    connection: Connection,
    protocol: Protocol,
    there: Sequence[RunRecord],
    variants: Sequence[str],
    position: int,
    now: datetime,
) -> list[int]:
    """New runs, from step 0, for the seeds that a stage asks for and a variant of it does not have yet."""
    made = []
    for name in variants:
        own = [run for run in there if run.variant == name]
        missing = set(protocol.spec.seeds_of(position)) - {run.seed for run in own} if own else set()
        for seed in sorted(missing):
            ids = (own[0].experiment_id, own[0].variant_id)
            made.append(add_run(connection, protocol, *ids, seed=seed, stage=position, now=now))
    return made
