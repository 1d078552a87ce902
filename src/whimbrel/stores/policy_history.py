"""The versions of a model's policy: every one that was signed, by its sequence, and when.

The database holds every version of every role, and every document that one listed. Nothing else is kept for this: the
time of a policy is that of the first role that listed it, which is its expiry less its life.
"""

from collections.abc import Iterator
from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.records import SignedPolicy
from whimbrel.model.documents import parse
from whimbrel.policy.policy import Policy
from whimbrel.stores import schema
from whimbrel.trust import roles

_ROLES_AT_ONCE = 50


class _Listed(msgspec.Struct):
    hashes: dict[str, str]


class _Signed(msgspec.Struct):
    expires: datetime
    targets: dict[str, _Listed]


class _Role(msgspec.Struct):
    """What is asked of a role's metadata, which was verified or signed here when it was stored."""

    signed: _Signed


class _Sequence(msgspec.Struct):
    sequence: int


class PolicyHistory:
    """The policies of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def newest(self, model: str, *, limit: int) -> list[SignedPolicy]:
        """The newest versions, newest first. Of a model that was never published to there is none."""
        newest: list[SignedPolicy] = []
        for sha256, signed_at in self._listed(model):
            if len(newest) == limit:
                break
            body = self._bodies(model, sha256=sha256)
            newest += [SignedPolicy(policy=parse(Policy, each, what="a stored policy"), at=signed_at) for each in body]
        return newest

    def one(self, model: str, sequence: int) -> Policy:
        """The policy of a sequence number. Raises `NotFound`."""
        for body in self._bodies(model):
            if msgspec.json.decode(body, type=_Sequence).sequence == sequence:
                return parse(Policy, body, what="a stored policy")
        raise NotFound(f"{model} has no policy with sequence {sequence}; see: whimbrel policy list {model}")

    def _listed(self, model: str) -> Iterator[tuple[str, float]]:
        """The digests of the policies that the role listed, newest first, each with when it was signed first."""
        path, held = roles.policy_path(model), None
        for role in self._roles(roles.policy_role(model)):
            listed = role.signed.targets.get(path)
            if listed is None:
                continue
            sha256, at = listed.hashes["sha256"], (role.signed.expires - roles.POLICY_LIFE).timestamp()
            if held is not None and held[0] != sha256:
                yield held
            held = sha256, at
        if held is not None:
            yield held

    def _roles(self, role: str) -> Iterator[_Role]:
        """The role's versions, newest first."""
        table = schema.role_documents
        query = select(table.c.version, table.c.body).where(table.c.namespace == self.namespace, table.c.role == role)
        before, count = limits.ROW_MAX, 0
        while count < limits.POLICY_ROLES:
            rows = self.connection.execute(
                query.where(table.c.version < before).order_by(table.c.version.desc()).limit(_ROLES_AT_ONCE)
            ).all()
            for row in rows:
                yield msgspec.json.decode(row.body, type=_Role)
            if len(rows) < _ROLES_AT_ONCE:
                return
            before, count = rows[-1].version, count + len(rows)

    def _bodies(self, model: str, *, sha256: str | None = None) -> Iterator[bytes]:
        table = schema.target_documents
        query = select(table.c.body).where(
            table.c.namespace == self.namespace, table.c.path == roles.policy_path(model)
        )
        if sha256 is not None:
            query = query.where(table.c.sha256 == sha256)
        for row in self.connection.execute(query):
            yield bytes(row.body)
