"""Dependent variants, gates with their inputs, stored curves, policies, priorities, shadows: all added.

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _add_columns()
    _add_decision_tables()
    _add_documents()


def _add_columns() -> None:
    """Without foreign keys: SQLite cannot add one to a table that is there."""
    op.add_column("experiments", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("experiments", sa.Column("held", sa.Text(), nullable=True))
    op.add_column("experiments", sa.Column("shadow", sa.JSON(), nullable=True))
    op.add_column("experiments", sa.Column("reference_id", BIG, nullable=True))
    op.add_column("variants", sa.Column("origin", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("linked_run_id", BIG, nullable=True))
    op.add_column("runs", sa.Column("history_from", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("identity", sa.JSON(), nullable=True))
    op.add_column("decisions", sa.Column("gate_id", BIG, nullable=True))
    op.add_column("decisions", sa.Column("attempt", sa.Integer(), nullable=True))
    op.add_column("decisions", sa.Column("shadow", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("evaluations", sa.Column("sequence", BIG, nullable=True))


def _add_decision_tables() -> None:
    op.create_table(
        "dependents",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("variant_id", BIG, nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_dependents_experiment_id")
        ),
        sa.ForeignKeyConstraint(["variant_id"], ["variants.id"], name=op.f("fk_dependents_variant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dependents")),
        sa.UniqueConstraint("experiment_id", "name", name=op.f("uq_dependents_experiment_id")),
    )
    op.create_table(
        "gates",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("step", BIG, nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("conclusion", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], name=op.f("fk_gates_experiment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gates")),
        sa.UniqueConstraint("key", name=op.f("uq_gates_key")),
    )
    op.create_index("ix_gates_experiment_id", "gates", ["experiment_id"], unique=False)


def _add_documents() -> None:
    op.create_table(
        "stored_curves",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("identity", sa.JSON(), nullable=True),
        sa.Column("evaluations", sa.JSON(), nullable=False),
        sa.Column("train_loss", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_curves")),
    )
    op.create_index("ix_stored_curves_name", "stored_curves", ["name"], unique=False)
    op.create_index("ix_stored_curves_content_hash", "stored_curves", ["content_hash"], unique=False)
    op.create_table(
        "policies",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_policies_name")),
    )
