"""Standing monitors: the figures of versions by hour and day, and the episodes in which a monitor fired."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("report_sequence", sa.Column("hours", sa.LargeBinary(), nullable=False, server_default="{}"))
    op.add_column("alert", sa.Column("model", sa.String(length=64), nullable=False, server_default=""))
    op.create_table(
        "health",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("period_s", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("serial", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hardware_class", sa.String(length=128), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "model", "period_s", "start", "serial", "hardware_class"),
    )
    op.create_index("health_by_start", "health", ["namespace", "period_s", "start"])
    op.create_table(
        "monitor_episode",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("monitor", sa.String(length=256), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("monitor_episode_by_model", "monitor_episode", ["namespace", "model", "since"])
