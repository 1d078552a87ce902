"""When treated devices began, and the delays that a rollout tells its controls."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.add_column("rollout", sa.Column("delays", sa.LargeBinary(), nullable=False, server_default="[]"))
    op.add_column("participation", sa.Column("begun_at", sa.Float(), nullable=True))
    op.create_index("participation_by_begun_at", "participation", ["namespace", "rollout", "stage", "begun_at"])
