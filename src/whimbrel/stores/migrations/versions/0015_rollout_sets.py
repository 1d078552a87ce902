"""Rollouts carry those that their versions require; delays are learned by hardware class; devices tell builds."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rollout", sa.Column("lead", sa.String(64), nullable=False, server_default=""))
    op.add_column("rollout", sa.Column("members", sa.LargeBinary(), nullable=False, server_default="[]"))
    op.add_column("rollout", sa.Column("salt", sa.BigInteger(), nullable=True))
    op.add_column("device_model", sa.Column("build_serial", sa.BigInteger(), nullable=True))
    op.add_column("device_model", sa.Column("variant", sa.String(64), nullable=False, server_default=""))
    op.add_column("device_model", sa.Column("build", sa.LargeBinary(), nullable=False, server_default=""))
    for table in ("rollout", "experiment"):
        op.add_column(table, sa.Column("delays_by_class", sa.LargeBinary(), nullable=False, server_default="{}"))
