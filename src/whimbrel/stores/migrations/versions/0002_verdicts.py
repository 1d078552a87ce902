"""Verdicts with what they looked at, hardware classes that went back, and quarantines that a person lifted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "verdict",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("window", sa.Integer(), nullable=False),
        sa.Column("situation", sa.LargeBinary(), nullable=False),
        sa.Column("move", sa.String(length=32), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("verdict_by_rollout", "verdict", ["namespace", "rollout"])
    op.add_column("rollout", sa.Column("without", sa.LargeBinary(), nullable=False, server_default="[]"))
    op.add_column("quarantine", sa.Column("lifted_at", sa.Float(), nullable=True))
