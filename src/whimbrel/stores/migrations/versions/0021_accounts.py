"""Accounts and their tokens. The token that `init` wrote becomes the account `admin`'s, and is good as before."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("rollout", "experiment"):
        op.add_column(table, sa.Column("started_by", sa.String(length=128), nullable=False, server_default=""))
    op.create_table(
        "account",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name"),
    )
    op.create_index("account_by_subject", "account", ["namespace", "issuer", "subject"])
    op.create_table(
        "api_token",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=128), nullable=False),
        sa.Column("roles", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("namespace", "id"),
        sa.UniqueConstraint("namespace", "sha256"),
    )
    op.create_table(
        "sign_in",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "sha256"),
    )
    _admins_of_before()


def _admins_of_before() -> None:
    secret = sa.table(
        "secret",
        *(sa.column(name) for name in ("namespace", "sha256", "kind", "name", "created_at")),
    )
    connection = op.get_bind()
    rows = connection.execute(sa.select(secret).where(secret.c.kind == "admin").order_by(secret.c.created_at)).all()
    for namespace in sorted({row.namespace for row in rows}):
        connection.execute(
            sa.text(
                "INSERT INTO account (namespace, name, kind, issuer, subject, created_at) "
                "VALUES (:namespace, 'admin', 'person', '', '', :at)"
            ),
            {"namespace": namespace, "at": min(row.created_at for row in rows if row.namespace == namespace)},
        )
    tokens = sa.table(
        "api_token",
        sa.column("namespace"),
        sa.column("id"),
        sa.column("sha256"),
        sa.column("name"),
        sa.column("account"),
        sa.column("roles", sa.LargeBinary()),
        sa.column("source"),
        sa.column("created_at"),
        sa.column("created_by"),
    )
    for row in rows:
        connection.execute(
            tokens.insert().values(
                namespace=row.namespace,
                id=row.sha256[:12],
                sha256=row.sha256,
                name=row.name,
                account="admin",
                roles=b'["admin"]',
                source="init",
                created_at=row.created_at,
                created_by="init",
            )
        )
    op.drop_table("secret")  # the tokens of devices were taken over before
