"""Arms of an experiment are stopped in single slices."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("experiment", sa.Column("without", sa.LargeBinary(), nullable=False, server_default="{}"))
