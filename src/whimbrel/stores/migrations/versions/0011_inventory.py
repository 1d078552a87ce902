"""The inventory: what devices wait for, labels of operators, blocked and removed devices, duplicate identities."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit", sa.Column("device", sa.String(length=128), nullable=True))
    op.create_index("audit_by_device", "audit", ["namespace", "device"])
    op.add_column("alert", sa.Column("device", sa.String(length=128), nullable=False, server_default=""))
    op.add_column("device", sa.Column("operator_labels", sa.LargeBinary(), nullable=False, server_default="{}"))
    op.add_column("device_model", sa.Column("since", sa.Float(), nullable=True))
    op.execute("UPDATE device_model SET since = at")  # since then at the latest
    op.add_column("device_model", sa.Column("waits_for", sa.Text(), nullable=False, server_default=""))
    op.add_column("device_model", sa.Column("waits_told_at", sa.Float(), nullable=True))
    op.add_column("report_sequence", sa.Column("at", sa.Float(), nullable=False, server_default="0"))
    op.add_column("report_sequence", sa.Column("digests", sa.LargeBinary(), nullable=False, server_default="{}"))
    op.create_table(
        "device_access",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "device_id"),
    )
    op.create_index("device_access_by_time", "device_access", ["since"])
    op.create_index("device_access_by_state", "device_access", ["namespace", "state"])
    op.create_table(
        "device_duplicate",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("signs", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("noticed_at", sa.Float(), nullable=True),
        sa.Column("because", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "device_id"),
    )
