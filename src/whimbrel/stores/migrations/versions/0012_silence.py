"""When a device was last heard in a cohort, how long it is silent by habit, whether it is missed, and its first use.

What is known of devices from before is one report at most. They count as missed until they are heard again, which is a
report's period for those that live: nothing is promoted on devices that were last heard nobody knows when.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("participation", sa.Column("heard_at", sa.Float(), nullable=True))
    op.add_column("participation", sa.Column("gap_s", sa.Float(), nullable=False, server_default="0"))
    op.add_column("participation", sa.Column("hearing", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("participation", sa.Column("missed_at", sa.Float(), nullable=True))
    op.add_column("participation", sa.Column("used_at", sa.Float(), nullable=True))
    op.execute("UPDATE participation SET hearing = 'missed', used_at = reported_at WHERE reported_at IS NOT NULL")
