"""How devices came in: keys, credentials by epoch, labels that the server gives, and the terms of enrolment tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text, none = sa.String(length=64), "{}"
    for column in (
        sa.Column("admission", sa.String(length=16), nullable=False, server_default="shared"),
        sa.Column("admitted_at", sa.Float(), nullable=False, server_default="0"),
        sa.Column("enrol_token_name", text, nullable=False, server_default=""),
        sa.Column("public_key", text, nullable=True),
        sa.Column("credential_epoch", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("credential_at", sa.Float(), nullable=False, server_default="0"),
        sa.Column("challenged_at", sa.Float(), nullable=False, server_default="0"),
        sa.Column("allowed_again_until", sa.Float(), nullable=True),
        sa.Column("allowed_again_key", text, nullable=True),
        sa.Column("granted_labels", sa.LargeBinary(), nullable=False, server_default=none),
        sa.Column("claimable_labels", sa.LargeBinary(), nullable=False, server_default=none),
    ):
        op.add_column("device", column)
    op.execute("UPDATE device SET admitted_at = enrolled_at")  # they came in by a token that many share
    op.create_index("device_by_credential", "device", ["credential_at"])
    op.create_table(
        "enrol_token",
        sa.Column("namespace", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("terms", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("minute_uses", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name"),
    )
    op.create_table(
        "enrol_secret",
        sa.Column("namespace", text, nullable=False),
        sa.Column("sha256", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "sha256"),
    )
    op.create_index("enrol_secret_by_name", "enrol_secret", ["namespace", "name"])
    # The tokens that were made before have no end, no number of uses and no labels: terms without fields say so.
    op.execute(
        sa.text(
            "INSERT INTO enrol_token (namespace, name, terms, created_at, actor, minute, minute_uses) "
            "SELECT namespace, name, :terms, MIN(created_at), '', 0, 0 FROM secret WHERE kind = 'enrol' "
            "GROUP BY namespace, name"
        ).bindparams(sa.bindparam("terms", b"{}", type_=sa.LargeBinary()))
    )
    op.execute(
        "INSERT INTO enrol_secret (namespace, sha256, name, uses) "
        "SELECT namespace, sha256, name, 0 FROM secret WHERE kind = 'enrol'"
    )
    op.execute("DELETE FROM secret WHERE kind = 'enrol'")
