"""Which root is copied; and when signed roles expire, and of what was warned."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("publication", sa.Column("root_version", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "role_expiry",
        sa.Column("namespace", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(128), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("warned_s", sa.Float(), nullable=False),
    )
