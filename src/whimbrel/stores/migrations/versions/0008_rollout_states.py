"""Rollouts that have not begun, that wait for people, and that go back until every device heard from is off."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "approval",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("approval_by_rollout", "approval", ["namespace", "rollout"])
    op.add_column("rollout", sa.Column("state_since", sa.Float(), nullable=False, server_default="0"))
    op.add_column("rollout", sa.Column("override", sa.Text(), nullable=False, server_default=""))
