"""Experiments, and a device's values in them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "experiment",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("plan_text", sa.Text(), nullable=False),
        sa.Column("phase", sa.String(length=32), nullable=False),
        sa.Column("serials", sa.LargeBinary(), nullable=False),
        sa.Column("stopped", sa.LargeBinary(), nullable=False),
        sa.Column("delays", sa.LargeBinary(), nullable=False),
        sa.Column("winner", sa.String(length=64), nullable=True),
        sa.Column("hour_s", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("because", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "id"),
    )
    op.create_index("experiment_by_model", "experiment", ["namespace", "model"])
    op.add_column("participation", sa.Column("values", sa.LargeBinary(), nullable=False, server_default="{}"))
