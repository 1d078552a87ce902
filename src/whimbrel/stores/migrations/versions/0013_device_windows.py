"""A device's place in a cohort keeps what the device told in the tally window that is open."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("participation", sa.Column("device_window", sa.LargeBinary(), nullable=True))
