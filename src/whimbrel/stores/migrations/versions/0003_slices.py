"""Tallies and places in cohorts by further labels than the hardware class."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("participation", sa.Column("slices", sa.LargeBinary(), nullable=False, server_default="{}"))
    # A primary key cannot be changed in place everywhere: the sums move into a new table.
    op.rename_table("tally", "tally_before")
    op.create_table(
        "tally",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("rollout", sa.String(length=64), nullable=False),
        sa.Column("window", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stage", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("hardware_class", sa.String(length=128), nullable=False),
        sa.Column("slices", sa.String(length=1024), nullable=False, server_default=""),
        sa.Column("age_bucket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cell", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "namespace", "rollout", "window", "stage", "role", "hardware_class", "slices", "age_bucket"
        ),
    )
    columns = 'namespace, rollout, "window", stage, role, hardware_class, age_bucket, cell'
    op.execute(sa.text(f"INSERT INTO tally ({columns}) SELECT {columns} FROM tally_before"))  # noqa: S608 (constants)
    op.drop_table("tally_before")
