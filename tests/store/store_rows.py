"""Rows in few words, for the tests of the store."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from orchestrator.domain.lifecycle import AttemptStatus, ExperimentStatus, RunStatus, StageStatus
from orchestrator.protocol.report import Evaluation, Point
from orchestrator.store import experiments, runs
from orchestrator.store.records import ExperimentRecord, RunRecord

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def add_experiment(connection: Connection, name: str = "widths", **changes: Any) -> ExperimentRecord:
    values: dict[str, Any] = {
        "question": "",
        "status": ExperimentStatus.RUNNING,
        "control": "base",
        "trainer": "builtin",
        "policy": {"name": "stage-gate"},
        "policy_hash": "p" * 64,
        "spec": {},
        "spec_hash": "s" * 64,
        "created_at": NOW,
    }
    id_ = experiments.add_experiment(connection, name=name, **(values | changes))
    found = experiments.get_experiment(connection, id_)
    assert found is not None
    return found


def add_stage(connection: Connection, experiment: ExperimentRecord, position: int = 0) -> int:
    return experiments.add_stage(
        connection,
        experiment_id=experiment.id,
        position=position,
        name=f"stage-{position}",
        steps=100 * (position + 1),
        status=StageStatus.RUNNING,
    )


def add_run(connection: Connection, variant: str = "base", **changes: Any) -> RunRecord:
    """A run of a variant and an experiment of its own."""
    experiment = add_experiment(connection)
    variant_id = experiments.add_variant(
        connection,
        experiment_id=experiment.id,
        name=variant,
        is_control=True,
        stage=0,
        overrides={},
        config={},
        config_hash="c" * 64,
        facts={},
    )
    values: dict[str, Any] = {
        "experiment_id": experiment.id,
        "variant_id": variant_id,
        "seed": 0,
        "status": RunStatus.PENDING,
        "stage": 0,
        "step": 0,
        "target_step": 100,
        "epoch": 0,
        "created_at": NOW,
    }
    return get_run(connection, runs.add_run(connection, **(values | changes)))


def get_run(connection: Connection, id_: int) -> RunRecord:
    found = runs.get_run(connection, id_)
    assert found is not None
    return found


def add_attempt(connection: Connection, run: RunRecord, number: int = 1, **changes: Any) -> int:
    values: dict[str, Any] = {
        "run_id": run.id,
        "number": number,
        "epoch": number,
        "status": AttemptStatus.LAUNCHED,
        "key": f"run_{run.id}-{number}",
        "slots": ["cpu:0"],
        "directory": f"/runs/{run.id}/{number}",
        "token_hash": bytes(32),
        "acknowledged": 0,
        "step": 0,
        "lease_expires_at": NOW,
        "created_at": NOW,
    }
    return runs.add_attempt(connection, **(values | changes))


def evaluation(step: int, loss: float = 3.0, **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "step": step,
        "tokens": step * 128,
        "eval_loss": loss,
        "perplexity": 20.0,
        "train_loss": loss,
        "learning_rate": 1e-3,
        "grad_norm": 1.0,
        "tokens_per_second": 1000.0,
        "wall_seconds": 1.0,
    }
    return Evaluation(**(fields | changes))


def point(step: int, value: float, name: str = "train_loss") -> Point:
    return Point(step=step, name=name, value=value)
