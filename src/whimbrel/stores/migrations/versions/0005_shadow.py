"""When a device of a shadow stage first told of the candidate."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.add_column("participation", sa.Column("shadowed_at", sa.Float(), nullable=True))
