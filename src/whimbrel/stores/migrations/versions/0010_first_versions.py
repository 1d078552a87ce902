"""A rollout of a model's first version has no baseline."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("rollout") as rollout:  # SQLite changes no column in place
        rollout.alter_column("baseline", existing_type=sa.BigInteger(), nullable=True)
