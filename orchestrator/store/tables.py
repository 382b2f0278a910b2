"""Every table. Ids are integers that the database counts; `exp_7` is how the outside spells row 7."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    false,
)

from orchestrator.store.types import BigInt, PlainText, UtcDateTime

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", BigInt, primary_key=True, autoincrement=True)


def _of(table: str, *, name: str | None = None, nullable: bool = False) -> Column[int]:
    column = name or f"{table.removesuffix('s')}_id"
    return Column(column, BigInt, ForeignKey(f"{table}.id"), nullable=nullable)


experiments = Table(
    "experiments",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, index=True),
    Column("question", PlainText, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("conclusion", PlainText),
    Column("control", String(63), nullable=False),
    Column("trainer", String(63), nullable=False),
    Column("policy", JSON, nullable=False),
    Column("policy_hash", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("spec_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("held", PlainText),
    Column("reference_id", BigInt),
    Column("shadow", JSON(none_as_null=True)),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    _of("experiments"),
    Column("created_at", UtcDateTime, nullable=False),
)

stages = Table(
    "stages",
    metadata,
    _id(),
    _of("experiments"),
    Column("position", Integer, nullable=False),
    Column("name", String(63), nullable=False),
    Column("steps", BigInt, nullable=False),
    Column("status", String(16), nullable=False),
    Column("conclusion", PlainText),
    Column("closed_at", UtcDateTime),
    UniqueConstraint("experiment_id", "position"),
)

variants = Table(
    "variants",
    metadata,
    _id(),
    _of("experiments"),
    Column("name", String(63), nullable=False),
    Column("is_control", Boolean, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("overrides", JSON, nullable=False),
    Column("config", JSON, nullable=False),
    Column("config_hash", String(64), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("origin", JSON(none_as_null=True)),
    UniqueConstraint("experiment_id", "name"),
)

dependents = Table(
    "dependents",
    metadata,
    _id(),
    _of("experiments"),
    Column("name", String(63), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("sources", JSON, nullable=False),
    Column("overrides", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("detail", PlainText),
    _of("variants", nullable=True),
    UniqueConstraint("experiment_id", "name"),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    _of("experiments"),
    _of("variants"),
    Column("seed", BigInt, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("reason", String(32)),
    Column("detail", PlainText),
    Column("stage", Integer, nullable=False),
    Column("step", BigInt, nullable=False),
    Column("target_step", BigInt, nullable=False),
    Column("epoch", BigInt, nullable=False),
    Column("identity", JSON),
    Column("tokens_per_second", Float),
    Column("not_before", UtcDateTime),
    Column("resume_at_most", BigInt),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("linked_run_id", BigInt),
    Column("history_from", Integer, nullable=False, server_default="0"),
    Column("memory_factor", Integer, nullable=False, server_default="1"),
    UniqueConstraint("variant_id", "seed"),
    Index("ix_runs_experiment_id_status", "experiment_id", "status"),
)

attempts = Table(
    "attempts",
    metadata,
    _id(),
    _of("runs"),
    Column("number", Integer, nullable=False),
    Column("epoch", BigInt, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("key", String(100), nullable=False, unique=True),
    Column("slots", JSON, nullable=False),
    Column("directory", PlainText, nullable=False),
    Column("token_hash", LargeBinary(32), nullable=False),
    Column("handle", JSON),
    Column("acknowledged", BigInt, nullable=False),
    Column("resumed_from_step", BigInt),
    Column("step", BigInt, nullable=False),
    Column("lease_expires_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("exit_code", Integer),
    Column("reason", String(32)),
    Column("detail", PlainText),
    Column("identity", JSON(none_as_null=True)),
    Column("phase", String(16)),
    Column("progress_at", UtcDateTime),
    UniqueConstraint("run_id", "number"),
    Index("ix_attempts_exit_code", "exit_code", "status"),
)

reports = Table(
    "reports",
    metadata,
    Column("attempt_id", BigInt, ForeignKey("attempts.id"), primary_key=True),
    Column("sequence", BigInt, primary_key=True),
    Column("body_sha256", LargeBinary(32), nullable=False),
    Column("held", JSON(none_as_null=True)),
    sqlite_with_rowid=False,
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("run_id", BigInt, ForeignKey("runs.id"), primary_key=True),
    Column("attempt_id", BigInt, ForeignKey("attempts.id"), primary_key=True),
    Column("step", BigInt, primary_key=True),
    Column("tokens", BigInt, nullable=False),
    Column("eval_loss", Float, nullable=False),
    Column("eval_loss_kind", SmallInteger, nullable=False),
    Column("body", JSON, nullable=False),
    Column("superseded", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("sequence", BigInt),
)

metrics = Table("metrics", metadata, _id(), Column("name", String(100), nullable=False, unique=True))

# PostgreSQL checks a foreign key by a query for each row, which takes longer than to insert the row: it has
# none here since 0003. Nothing ever deletes what these name.
points = Table(
    "points",
    metadata,
    Column("run_id", BigInt, ForeignKey("runs.id"), primary_key=True),
    Column("metric_id", BigInt, ForeignKey("metrics.id"), primary_key=True),
    Column("attempt_id", BigInt, ForeignKey("attempts.id"), primary_key=True),
    Column("step", BigInt, primary_key=True),
    Column("value", Float, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("superseded", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _id(),
    _of("runs"),
    _of("attempts"),
    Column("step", BigInt, nullable=False),
    Column("path", PlainText, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("size_bytes", BigInt, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("damage", PlainText),
    Column("removed_at", UtcDateTime),
    UniqueConstraint("attempt_id", "step"),
    Index("ix_checkpoints_run_id", "run_id"),
)

decisions = Table(
    "decisions",
    metadata,
    _id(),
    Column("key", String(200), nullable=False, unique=True),
    _of("experiments"),
    _of("runs"),
    Column("stage", String(63), nullable=False),
    Column("step", BigInt, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("author", String(100), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("text", PlainText, nullable=False),
    Column("criteria", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("policy_name", String(63), nullable=False),
    Column("policy_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("gate_id", BigInt),
    Column("attempt", Integer),
    Column("shadow", Boolean, nullable=False, server_default=false()),
    Index("ix_decisions_experiment_id", "experiment_id"),
    Index("ix_decisions_run_id", "run_id"),
)

gates = Table(
    "gates",
    metadata,
    _id(),
    Column("key", String(200), nullable=False, unique=True),
    _of("experiments"),
    Column("stage", Integer, nullable=False),
    Column("step", BigInt, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("conclusion", PlainText),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_gates_experiment_id", "experiment_id"),
)

stored_curves = Table(
    "stored_curves",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, index=True),
    Column("description", PlainText, nullable=False),
    Column("source", JSON, nullable=False),
    Column("identity", JSON(none_as_null=True)),
    Column("evaluations", JSON, nullable=False),
    Column("train_loss", JSON, nullable=False),
    Column("notes", JSON, nullable=False),
    Column("content_hash", String(64), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    _id(),
    Column("name", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("document", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("name", "version"),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("epoch", BigInt, nullable=False),
    Column("holder", String(100), nullable=False),
    Column("address", PlainText, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("home_id", String(32)),
    Column("home_path", PlainText),
    Column("host", String(200)),
)

events = Table(
    "events",
    metadata,
    _id(),
    Column("kind", String(32), nullable=False),
    _of("experiments", nullable=True),
    _of("runs", nullable=True),
    Column("text", PlainText, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index("ix_events_experiment_id", "experiment_id"),
)
