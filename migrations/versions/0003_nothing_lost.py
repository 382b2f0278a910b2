"""Progress deadlines, memory factors, what became of checkpoints, and the lease of the service that ticks.

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """A service of the version before can still read and write its rows: columns are only added, and what
    goes is what refused rows."""
    time = sa.DateTime(timezone=True)
    op.add_column("attempts", sa.Column("phase", sa.String(length=16), nullable=True))
    op.add_column("attempts", sa.Column("progress_at", time, nullable=True))
    op.add_column("reports", sa.Column("held", sa.JSON(), nullable=True))
    op.create_index("ix_attempts_exit_code", "attempts", ["exit_code", "status"], unique=False)
    op.add_column("runs", sa.Column("memory_factor", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("checkpoints", sa.Column("damage", sa.Text(), nullable=True))
    op.add_column("checkpoints", sa.Column("removed_at", time, nullable=True))
    op.create_table(
        "leaders",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("home_id", sa.String(length=32), nullable=True),
        sa.Column("home_path", sa.Text(), nullable=True),
        sa.Column("host", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leaders")),
    )
    if op.get_bind().dialect.name == "postgresql":  # see `store/tables.py`; SQLite would copy the whole table
        for column in ("run_id", "metric_id", "attempt_id"):
            op.drop_constraint(op.f(f"fk_points_{column}"), "points", type_="foreignkey")
