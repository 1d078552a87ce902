"""Tickets of users, and when the help desk was last heard of."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "user_report",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("ticket", sa.String(length=128), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=128), nullable=True),
        sa.Column("serial", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("fate", sa.String(length=16), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("namespace", "ticket"),
    )
    op.create_index("user_report_by_fate", "user_report", ["namespace", "fate"])
    op.create_index("user_report_by_device", "user_report", ["namespace", "device_id"])
    op.create_table(
        "user_report_feed",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "model"),
    )
