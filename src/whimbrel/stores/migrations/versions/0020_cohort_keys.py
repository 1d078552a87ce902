"""Buckets come from a cohort key that the server draws, and devices that may be invented are counted apart."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("device", sa.Column("cohort_key", sa.String(length=128), nullable=True))
    op.execute("UPDATE device SET cohort_key = device_id")  # no device leaves its bucket
    op.create_index("device_by_admission", "device", ["namespace", "admitted_at"])
    op.add_column("participation", sa.Column("proven", sa.Boolean(), nullable=False, server_default=sa.true()))
