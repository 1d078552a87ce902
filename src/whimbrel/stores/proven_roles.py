"""What did people sign before? Proven, before anything is signed on top of it, because the server may lie.

Whoever signs gets the roles of today from a server. One that was broken into could hand out a publisher's role with a
release of its own, or the line from before a revocation, and have it signed with the rest.

1. Roots follow from one another, and contain the root that the folder of keys remembers. Targets are signed as the
   newest root says, and every other role as these targets say.
2. No role is older than the one that the folder saw or signed last.
3. The folder remembers the newest root (`trusted-root`) and the versions (`roles-seen.json`). A folder that sees a
   repository for the first time believes its root.

Called by the command line.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, Metadata, Root, Targets

from whimbrel import limits
from whimbrel.durable import write_durably
from whimbrel.errors import NotFound, UntrustedInput, reason_of
from whimbrel.model.documents import Document, digest_of, encode, parse
from whimbrel.stores.signed_metadata import read_metadata, role_keys
from whimbrel.trust import roles
from whimbrel.trust.role_keys import RoleKeys

_SEEN = "roles-seen.json"
_DEFAULT = "default"
PRIVATE = 0o600  # who changes what is remembered can have an old state signed


class RolesSeen(Document, frozen=True):
    """The greatest version of each role that a folder of keys saw or signed, by namespace."""

    versions: dict[str, dict[str, int]] = {}


def trusted_root_of(folder: Path, namespace: str) -> Path:
    """Where a folder of keys remembers the root of a namespace. The name has no suffix of a key."""
    return folder / ("trusted-root" if namespace == _DEFAULT else f"trusted-root-{namespace}")


class ProvenRoles:
    """The roles of one namespace that people sign, as a server tells them now, proven."""

    def __init__(
        self,
        fetch: Callable[[str], bytes],
        *,
        folder: Path | None,
        namespace: str,
        note: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`fetch`: the newest version of a role, or, as `root?version=3`, one of the root. `folder`: of the person's
        keys, which remembers; None: nothing is remembered. `note` is told where the folder cannot be written.
        """
        self._fetch, self._namespace, self._note = fetch, namespace, note
        self._folder = folder if folder is not None and folder.is_dir() else None
        self._roots: list[bytes] = []
        self._proven: dict[str, bytes] = {}

    def roots(self) -> list[bytes]:
        """Every root, the first one first. Raises `UntrustedInput`."""
        if not self._roots:
            newest = self._fetch(roles.ROOT)
            last = read_metadata(newest, what=roles.ROOT, kind=Root).signed.version
            if last > limits.CEREMONY_ROLES:
                raise UntrustedInput(f"the server tells of {last} roots; at most {limits.CEREMONY_ROLES} are read")
            chain = [*(self._fetch(f"{roles.ROOT}?version={version}") for version in range(1, last)), newest]
            self._check_roots([read_metadata(content, what="a root", kind=Root) for content in chain])
            self._roots = chain
            self.remember({roles.ROOT: newest})
        return self._roots

    def role(self, role: str) -> bytes:
        """The newest version of a role. Raises `UntrustedInput` where it is not proven, `NotFound`."""
        if role == roles.ROOT:
            return self.roots()[-1]
        if role not in self._proven:
            delegator = read_metadata(self.role(_delegator(role)), what=_delegator(role)).signed
            content = self._fetch(role)
            metadata = cast("Metadata[Targets]", read_metadata(content, what=role, kind=Targets))
            _check_signed(delegator, role, metadata)
            seen = self._versions().get(role, 0)
            if metadata.signed.version < seen:
                raise UntrustedInput(
                    f"the server tells of {role} version {metadata.signed.version}, and {self._folder} knows version "
                    f"{seen}: nothing is signed on top of an old one, for what was revoked since would be forgotten. "
                    f"Where the server was restored from a backup, delete {_SEEN} there"
                )
            self._proven[role] = content
            self.remember({role: content})
        return self._proven[role]

    def keys_of(self, role: str) -> RoleKeys:
        """Who may sign a role. Raises `NotFound`."""
        try:
            return role_keys(self.role(_delegator(role)))[role]
        except KeyError:
            raise NotFound(f"there is no role {role!r}; see: whimbrel keys status") from None

    def check_document(self, role: str, path: str, content: bytes) -> None:
        """Raises `UntrustedInput` unless `role` lists these bytes at `path`, and `NotFound` where it lists none."""
        listed = read_metadata(self.role(role), what=role).signed.targets.get(path)
        if listed is None:
            raise NotFound(f"{role} lists no {path}; was the model added with: whimbrel model add?")
        if listed.hashes.get("sha256") != digest_of(content):
            raise UntrustedInput(
                f"the server tells of a {path} that {role} did not sign: nothing is signed on top of it, and somebody "
                "may have changed the server's database"
            )

    def remember(self, documents: Mapping[str, bytes]) -> None:
        """Note the versions of roles that were proven, or that a server took from here."""
        if self._folder is None:
            return
        try:
            self._write(self._folder, documents)
        except OSError as error:
            self._note(
                f"{self._folder} cannot remember what was signed ({reason_of(error)}), so an old state of the server "
                "would not be noticed the next time"
            )

    def _write(self, folder: Path, documents: Mapping[str, bytes]) -> None:
        versions = dict(before := self._versions())
        for role, content in documents.items():
            if role == roles.ROOT:
                place = trusted_root_of(folder, self._namespace)
                if not place.exists() or place.read_bytes() != content:
                    write_durably(place, content, mode=PRIVATE)
            else:
                version = read_metadata(content, what=role).signed.version
                versions[role] = max(version, versions.get(role, 0))
        if versions != before:
            seen = RolesSeen(versions={**self._seen().versions, self._namespace: versions})
            write_durably(folder / _SEEN, encode(seen) + b"\n", mode=PRIVATE)

    def _versions(self) -> dict[str, int]:
        return self._seen().versions.get(self._namespace, {})

    def _seen(self) -> RolesSeen:
        if self._folder is None or not (self._folder / _SEEN).exists():
            return RolesSeen()
        place = self._folder / _SEEN
        return parse(RolesSeen, place.read_bytes(), what=str(place))

    def _check_roots(self, chain: list[Metadata[Any]]) -> None:
        for number, root in enumerate(chain):
            if root.signed.version != number + 1:
                raise UntrustedInput(f"the server tells of root version {root.signed.version}; expected {number + 1}")
            for signer in {max(0, number - 1), number}:
                _check_signed(chain[signer].signed, roles.ROOT, root)
        place = trusted_root_of(self._folder, self._namespace) if self._folder is not None else None
        if place is not None and place.exists():
            trusted = read_metadata(place.read_bytes(), what=str(place), kind=Root)
            if not any(trusted.signed == root.signed for root in chain):
                raise UntrustedInput(
                    f"the server's roots do not contain the root that {place} remembers (version "
                    f"{trusted.signed.version}): nothing is signed. Keys of another repository belong in another folder"
                )


def _delegator(role: str) -> str:
    return roles.ROOT if role in TOP_LEVEL_ROLE_NAMES else roles.TARGETS


def _check_signed(delegator: Any, role: str, metadata: Metadata[Any]) -> None:
    with suppress(RepositoryError, ValueError):
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        return
    raise UntrustedInput(
        f"the server tells of {role} version {metadata.signed.version}, and those who may sign it did not sign that: "
        "nothing is signed on top of it, and somebody may have changed the server's database"
    )
