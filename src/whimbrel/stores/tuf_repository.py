"""Signed metadata: the repository of The Update Framework, in the database, and its copy in static files.

1. The database holds every version of every role. To add one is a compare-and-swap on its number. The static files are
   a copy.
2. Roles that are newer than the snapshot lists make a new snapshot; a new or ageing snapshot makes a new timestamp
   (`sign_snapshot_and_timestamp`). `files_since` lists the files that the copy lacks, the timestamp last, and
   `copy_files` writes them: a client sees the old state or the new one. `server/controllers/publishing` calls them, in
   the leading server.
3. A publisher's upload is verified against its delegation, and may only add to what was signed before.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Connection, bindparam, func, insert, select
from sqlalchemy.exc import IntegrityError
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.model.documents import digest_of
from whimbrel.stores import schema
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.delegation_rules import check_delegations_alone, delegations_beyond_their_own
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.rows import upsert
from whimbrel.stores.signed_metadata import (
    SERIALIZER,
    add_signature,
    expiry,
    read_metadata,
    role_keys,
    verify,
)
from whimbrel.stores.signer import Key, Signer
from whimbrel.trust import roles
from whimbrel.trust.role_keys import RoleKeys

_ROLES, _TARGETS = schema.role_documents.c, schema.target_documents.c
_NEWEST = select(_ROLES.role, func.max(_ROLES.version)).where(_ROLES.namespace == bindparam("of")).group_by(_ROLES.role)
_BODIES = select(_ROLES.body).where(_ROLES.namespace == bindparam("of"), _ROLES.role == bindparam("role"))
_NEWEST_BODY = _BODIES.order_by(_ROLES.version.desc()).limit(1)
_BODY = _BODIES.where(_ROLES.version == bindparam("version"))
_TARGET = select(_TARGETS.body).where(
    _TARGETS.namespace == bindparam("of"), _TARGETS.path == bindparam("path"), _TARGETS.sha256 == bindparam("sha256")
)


class SignedRoles:
    """The signed documents of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def newest(self) -> dict[str, int]:
        """The newest version of every role."""
        rows = self.connection.execute(_NEWEST, {"of": self.namespace})
        return {row[0]: row[1] for row in rows}

    def role_bytes(self, role: str, version: int | None = None) -> bytes:
        """A role's metadata as it was signed (the newest). Raises `NotFound`."""
        named = {"of": self.namespace, "role": role}
        if version is None:
            body = self.connection.execute(_NEWEST_BODY, named).scalar_one_or_none()
        else:
            body = self.connection.execute(_BODY, named | {"version": version}).scalar_one_or_none()
        if body is None:
            raise NotFound(f"there is no role {role!r}{f' version {version}' if version else ''} in this repository")
        return bytes(body)

    def targets_role(self, role: str, version: int | None = None) -> Metadata[Targets]:
        """A targets role (the top-level one, or a delegated one), decoded."""
        return cast("Metadata[Targets]", read_metadata(self.role_bytes(role, version), what=role))

    def keys_of(self, role: str) -> RoleKeys:
        """The keys that may sign a role, as the newest root, or the newest targets role, says. Raises `NotFound`."""
        delegator = roles.ROOT if role in TOP_LEVEL_ROLE_NAMES else roles.TARGETS
        try:
            return role_keys(self.role_bytes(delegator))[role]
        except KeyError:
            raise NotFound(f"there is no role {role!r} in this repository") from None

    def has_its_signatures(self, role: str) -> bool:
        """Whether the newest version of a role is signed by the keys that may sign it now."""
        metadata = read_metadata(self.role_bytes(role), what=role)
        return self.keys_of(role).signed_by(set(metadata.signatures))

    def expires(self, role: str) -> float:
        """When the newest version of a role expires, as POSIX seconds. Raises `NotFound`."""
        expires: datetime = read_metadata(self.role_bytes(role), what=role).signed.expires
        return expires.timestamp()

    def add_role(self, role: str, metadata: Metadata[Any], *, content: bytes | None = None) -> None:
        """Compare-and-swap: raises `Conflict` where that version exists already."""
        body = content if content is not None else metadata.to_bytes(SERIALIZER)
        newest = self.newest().get(role, 0)
        if metadata.signed.version != newest + 1:
            raise Conflict(
                f"{role} version {metadata.signed.version} came, {newest + 1} is next: somebody was first; try again"
            )
        try:
            self.connection.execute(
                insert(schema.role_documents).values(
                    namespace=self.namespace, role=role, version=metadata.signed.version, body=body
                )
            )
        except IntegrityError as error:
            raise Conflict(f"{role} version {metadata.signed.version} exists already; try again") from error

    def add_target(self, path: str, content: bytes) -> None:
        """Keep a target document (by path and digest)."""
        values = {"namespace": self.namespace, "path": path, "sha256": digest_of(content), "body": content}
        upsert(self.connection, schema.target_documents, values)

    def target_bytes(self, path: str, sha256: str) -> bytes:
        """A target document as it was signed. Raises `NotFound`."""
        named = {"of": self.namespace, "path": path, "sha256": sha256}
        body = self.connection.execute(_TARGET, named).scalar_one_or_none()
        if body is None:
            raise NotFound(f"there is no target {path} with SHA-256 {sha256}")
        return bytes(body)

    def current_target(self, role: str, path: str) -> bytes | None:
        """The document that `role` lists at `path` now. None where it lists none."""
        try:
            metadata = self.targets_role(role)
        except NotFound:
            return None
        listed = metadata.signed.targets.get(path)
        return self.target_bytes(path, listed.hashes["sha256"]) if listed else None

    def is_delegated(self, role: str) -> bool:
        """Whether the newest top-level targets delegates to `role`."""
        delegations = self.targets_role(roles.TARGETS).signed.delegations
        return bool(delegations and delegations.roles and role in delegations.roles)

    def expires_at(self, role: str) -> float | None:
        """When the newest version of a role that is delegated expires, in POSIX seconds; None where there is none."""
        try:
            return self.targets_role(role).signed.expires.timestamp()
        except NotFound:
            return None

    # --- publishers (verified: the other side signs) ---

    def accept_delegation(self, content: bytes, *, of: Collection[str], now: datetime) -> None:
        """A new version of the top-level targets, signed offline, in which only the delegations of roles `of` differ.

        Raises `UntrustedInput` when the signature is missing or wrong, or the role expired; `Refused` where it changes
        who signs another role, which is a change of keys.
        """
        before, after = self.accept_targets(content, now=now)
        check_delegations_alone(before, after, of=of)

    def accept_targets(self, content: bytes, *, now: datetime) -> tuple[Targets, Targets]:
        """The next version of the top-level targets, as far as its signatures and its expiry go, after the one before.

        Raises `UntrustedInput` as above; `Refused` where it lets a role sign what is not its model's.
        """
        metadata = cast("Metadata[Targets]", read_metadata(content, what=roles.TARGETS, kind=Targets))
        root = cast("Metadata[Root]", read_metadata(self.role_bytes(roles.ROOT), what=roles.ROOT))
        verify(root.signed, roles.TARGETS, metadata, now=now)
        if beyond := delegations_beyond_their_own(metadata.signed):
            raise Refused(f"the new targets role is not taken: {beyond[0]}")
        before = self.targets_role(roles.TARGETS).signed
        self.add_role(roles.TARGETS, metadata, content=content)
        return before, metadata.signed

    def accept_publication(self, role: str, content: bytes, documents: Mapping[str, bytes], *, now: datetime) -> None:
        """Accept a publisher's next version and its documents. It may add releases and change its line; no more."""
        metadata = cast("Metadata[Targets]", read_metadata(content, what=role, kind=Targets))
        verify(self.targets_role(roles.TARGETS).signed, role, metadata, now=now)
        if metadata.signed.delegations is not None:
            raise Refused(f"the new {role} delegates to others; only the targets role does")
        before: dict[str, TargetFile] = {}
        if self.newest().get(role):
            before = self.targets_role(role).signed.targets
        after = metadata.signed.targets
        for path, listed in before.items():
            grows = path.endswith("/line.json") or path.startswith("floors/")
            if path not in after or (after[path].hashes != listed.hashes and not grows):
                raise Refused(f"{path} was published and never changes; the new {role} changes or drops it")
        for path, listed in after.items():
            if path in before and before[path].hashes == listed.hashes:
                continue
            body = documents.get(path)
            if body is None or digest_of(body) != listed.hashes.get("sha256") or len(body) != listed.length:
                raise UntrustedInput(f"{role} lists {path}, and its document did not come with it or differs")
            self.add_target(path, body)
        self.add_role(role, metadata, content=content)

    # --- the online roles (signed here) ---

    def write_policy(
        self, model: str, documents: Mapping[str, bytes], *, signers: OnlineSigners, now: datetime
    ) -> None:
        """The next version of `policy-<model>`, listing `documents` besides what it listed under other paths."""
        role = roles.policy_role(model)
        version = self.newest().get(role, 0)
        listed = dict(self.targets_role(role).signed.targets) if version else {}
        for path, body in documents.items():
            listed[path] = TargetFile.from_data(path, body, ["sha256"])
            self.add_target(path, body)
        signed = Targets(version=version + 1, expires=expiry(now, roles.POLICY_LIFE), targets=listed)
        self.add_role(role, _signed(signed, *signers.sign_for(role, self.keys_of(role))))

    def renew_policy(self, model: str, *, signers: OnlineSigners, now: datetime) -> bool:
        """Sign the policy role anew if half of its life is over, or its keys are others now. Returns whether it was."""
        role = roles.policy_role(model)
        if not self.newest().get(role):
            return False
        current = self.targets_role(role)
        young = current.signed.expires - now > roles.POLICY_LIFE / 2
        if young and self.keys_of(role).signed_by(set(current.signatures)):
            return False
        self.write_policy(model, {}, signers=signers, now=now)
        return True

    def sign_snapshot_and_timestamp(self, signers: OnlineSigners, *, now: datetime) -> bool:
        """Make the snapshot list the newest roles, and the timestamp the snapshot. Returns whether anything changed."""
        newest = self.newest()
        snapshot_version = newest.get(roles.SNAPSHOT, 0)
        changed = not self.snapshot_is_current(now=now)
        if changed:
            snapshot_version += 1
            snapshot = Snapshot(
                version=snapshot_version, expires=expiry(now, roles.SNAPSHOT_LIFE), meta=self._listing()
            )
            self.add_role(
                roles.SNAPSHOT, _signed(snapshot, *signers.sign_for(roles.SNAPSHOT, self.keys_of(roles.SNAPSHOT)))
            )
        timestamp_version = newest.get(roles.TIMESTAMP, 0)
        if timestamp_version and not changed:
            current = cast("Metadata[Timestamp]", read_metadata(self.role_bytes(roles.TIMESTAMP), what="timestamp"))
            age = roles.TIMESTAMP_LIFE - (current.signed.expires - now)
            young = timedelta(0) <= age < roles.TIMESTAMP_RENEWAL
            if young and self.keys_of(roles.TIMESTAMP).signed_by(set(current.signatures)):
                return False
        timestamp = Timestamp(
            version=timestamp_version + 1,
            expires=expiry(now, roles.TIMESTAMP_LIFE),
            snapshot_meta=MetaFile(snapshot_version),
        )
        self.add_role(
            roles.TIMESTAMP, _signed(timestamp, *signers.sign_for(roles.TIMESTAMP, self.keys_of(roles.TIMESTAMP)))
        )
        return True

    def snapshot_is_current(self, *, now: datetime | None = None) -> bool:
        """Whether the newest snapshot lists the newest roles (and, given `now`, has half of its life left)."""
        if not self.newest().get(roles.SNAPSHOT):
            return False
        current = cast("Metadata[Snapshot]", read_metadata(self.role_bytes(roles.SNAPSHOT), what="snapshot"))
        if not self.keys_of(roles.SNAPSHOT).signed_by(set(current.signatures)):
            return False
        held = current.signed
        return held.meta == self._listing() and (now is None or held.expires - now >= roles.SNAPSHOT_LIFE / 2)

    def _listing(self) -> dict[str, MetaFile]:
        return {
            f"{role}.json": MetaFile(version)
            for role, version in self.newest().items()
            if role == roles.TARGETS or role not in TOP_LEVEL_ROLE_NAMES
        }

    # --- the static copy ---

    def published_timestamp(self) -> int:
        """The timestamp version whose files are all in place; 0 for none."""
        return self._published()[0]

    def published_root(self) -> int:
        """The root version that is in place, with all before it; 0 for none."""
        return self._published()[1]

    def _published(self) -> tuple[int, int]:
        table = schema.publications
        row = self.connection.execute(
            select(table.c.timestamp_version, table.c.root_version).where(table.c.namespace == self.namespace)
        ).one_or_none()
        return (row[0], row[1]) if row is not None else (0, 0)

    def is_copied(self) -> bool:
        """Whether the newest timestamp and the newest root are in place."""
        newest = self.newest()
        return self._published() == (newest.get(roles.TIMESTAMP, 0), newest.get(roles.ROOT, 0))

    def set_published(self, timestamp_version: int, root_version: int) -> None:
        """Note that all files up to a timestamp, and all roots up to a version, are in place."""
        values = {
            "namespace": self.namespace,
            "timestamp_version": timestamp_version,
            "root_version": root_version,
        }
        upsert(self.connection, schema.publications, values, update=("timestamp_version", "root_version"))

    def files_since(self, published: int, *, root: int = 0) -> list[tuple[str, bytes]]:
        """The files, in the order to write them, that lead from timestamp version `published` to the newest.

        `root`: the root version that is in place.
        """
        before = self._listed_at(published)
        newest = self.newest()
        after = self._listed_at(newest[roles.TIMESTAMP])
        files: list[tuple[str, bytes]] = []
        for role, version in after.items():
            if before.get(role) == version:
                continue
            if role not in TOP_LEVEL_ROLE_NAMES or role == roles.TARGETS:
                files += self._target_files(role, before.get(role), version)
            files.append((f"metadata/{version}.{role}.json", self.role_bytes(role, version)))
        for version in range(root + 1, newest[roles.ROOT] + 1):
            files.append((f"metadata/{version}.root.json", self.role_bytes(roles.ROOT, version)))
        files.append(("metadata/timestamp.json", self.role_bytes(roles.TIMESTAMP)))
        return files

    def _listed_at(self, timestamp_version: int) -> dict[str, int]:
        if not timestamp_version:
            return {}
        timestamp = read_metadata(self.role_bytes(roles.TIMESTAMP, timestamp_version), what="timestamp")
        version = cast("Timestamp", timestamp.signed).snapshot_meta.version
        snapshot = cast("Snapshot", read_metadata(self.role_bytes(roles.SNAPSHOT, version), what="snapshot").signed)
        listed = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        return listed | {roles.SNAPSHOT: version}

    def _target_files(self, role: str, before: int | None, after: int) -> Iterable[tuple[str, bytes]]:
        held = self.targets_role(role, before).signed.targets if before else {}
        for path, listed in self.targets_role(role, after).signed.targets.items():
            sha256 = listed.hashes["sha256"]
            if path in held and held[path].hashes["sha256"] == sha256:
                continue
            folder, _, name = path.rpartition("/")
            yield f"targets/{folder}/{sha256}.{name}", self.target_bytes(path, sha256)


async def copy_files(blobs: Blobs, namespace: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Write static files in order. Writing one again writes the same bytes."""
    for path, body in files:
        await blobs.put(f"{namespace}/{path}", body)


def first_metadata(
    *, root: Signer, targets: Signer, snapshot: Key, timestamp: Key, now: datetime
) -> tuple[Metadata[Root], Metadata[Targets]]:
    """Root and top-level targets of a new repository, version 1, signed offline."""
    signed = Root(version=1, expires=expiry(now, roles.ROOT_LIFE), consistent_snapshot=True)
    for role, key in (
        (roles.ROOT, root.public_key),
        (roles.TARGETS, targets.public_key),
        (roles.SNAPSHOT, snapshot),
        (roles.TIMESTAMP, timestamp),
    ):
        signed.add_key(key, role)
    top = Targets(version=1, expires=expiry(now, roles.TARGETS_LIFE))
    top.delegations = Delegations(keys={}, roles={})
    return _signed(signed, root), _signed(top, targets)


def delegate_model(
    current: bytes,
    model: str,
    *,
    publisher: Key,
    policy: Key,
    signer: Signer,
    others: Sequence[Signer] = (),
    now: datetime,
) -> bytes:
    """The next top-level targets, which delegates `model` to its publisher and to the online policy key.

    `others`: keys that sign it, too.
    """
    metadata = cast("Metadata[Targets]", read_metadata(current, what=roles.TARGETS, kind=Targets))
    signed = metadata.signed
    add_delegations(signed, model, publisher=publisher, policy=policy)
    signed.version += 1
    signed.expires = expiry(now, roles.TARGETS_LIFE)
    metadata.signatures.clear()
    for each in (signer, *others):
        add_signature(metadata, each)
    return metadata.to_bytes(SERIALIZER)


def add_delegations(signed: Targets, model: str, *, publisher: Key, policy: Key) -> None:
    """Delegate a model in a targets role. Raises `Conflict` where it is delegated already."""
    if signed.delegations is None or signed.delegations.roles is None:
        signed.delegations = Delegations(keys={}, roles={})
    for role, paths, key in (
        (roles.publisher_role(model), roles.publisher_paths(model), publisher),
        (roles.policy_role(model), roles.policy_paths(model), policy),
    ):
        listed = cast("dict[str, DelegatedRole]", signed.delegations.roles)
        if role in listed:
            raise Conflict(f"{role} is delegated already: model {model!r} exists")
        listed[role] = DelegatedRole(role, [], threshold=1, terminating=True, paths=paths)
        signed.add_key(key, role)


def publish_documents(
    current: bytes | None,
    documents: Mapping[str, bytes],
    *,
    signer: Signer,
    others: Sequence[Signer] = (),
    now: datetime,
) -> bytes:
    """A publisher's next role metadata: what it listed before, and `documents`. `current` None: its first.

    `others`: keys that sign it, too.
    """
    if current is None:
        signed = Targets(version=1, expires=expiry(now, roles.PUBLISHER_LIFE))
    else:
        signed = cast("Metadata[Targets]", read_metadata(current, what="the publisher's role", kind=Targets)).signed
        signed.version += 1
        signed.expires = expiry(now, roles.PUBLISHER_LIFE)
    for path, body in documents.items():
        signed.targets[path] = TargetFile.from_data(path, body, ["sha256"])
    return _signed(signed, signer, *others).to_bytes(SERIALIZER)


def _signed(signed: Any, *signers: Signer) -> Metadata[Any]:
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        add_signature(metadata, signer)
    return metadata
