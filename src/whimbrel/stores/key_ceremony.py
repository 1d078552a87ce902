"""A change of keys as a file that is passed around: what is signed now, what shall be signed, and the signatures.

1. A `Draft` holds the roles as they are now (`before`, with the chain of all roots) and their next versions (`after`).
   It is no secret, and needs no server: people sign it on machines that have no network.
2. `Ceremony` drafts: it adds and removes keys, sets thresholds, renews. A role that is not signed by its new keys is
   signed anew in the same draft: the root and targets change in one step, or not at all.
3. `signatures` says who must sign and who did. The next root needs the old keys and the new ones (TUF, section 5.3.4).
4. Whoever signs is shown the difference to what is signed now, and `check_before` proves that `before` is what the
   chain of roots leads to: a forged past cannot make a harmless change out of a harmful one.

Called by the command line. The server checks the outcome itself (stores/key_changes.py).
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, Metadata, Root, Targets

from whimbrel import limits
from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput, reason_of
from whimbrel.model.document_errors import no_json
from whimbrel.model.documents import Document, convert, digest_of, encode
from whimbrel.stores.delegation_rules import delegations_beyond_their_own
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.signed_metadata import (
    SERIALIZER,
    add_signature,
    expiry,
    read_metadata,
    role_keys,
)
from whimbrel.stores.signer import Key, check_id
from whimbrel.stores.tuf_repository import add_delegations
from whimbrel.trust import roles
from whimbrel.trust.role_keys import RoleKeys, key_changes, short

POLICY = "policy"  # stands for the policy roles of all models, which have one key
_DELEGATED_BY_ROOT = TOP_LEVEL_ROLE_NAMES


class Draft(Document, frozen=True):
    """The file. `roots`: every root, the first one first; `before` and `after`: signed metadata by role."""

    kind: Literal["whimbrel-key-ceremony-1"]
    namespace: str
    created: str
    summary: str
    roots: tuple[dict[str, Any], ...]
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]


class Signatures(NamedTuple):
    """Signatures that a role needs: `keys.threshold` of `keys.keyids`; `signed` are those that are there and right."""

    role: str
    keys: RoleKeys
    signed: frozenset[str]
    whose: str  # "" or which of two sets of keys

    @property
    def missing(self) -> int:
        """How many are needed still."""
        return max(0, self.keys.threshold - len(self.signed))


class Ceremony:
    """Drafts a change. `roots`: every root, the first one first; `current` gives the newest version of another role."""

    def __init__(
        self, namespace: str, roots: Iterable[bytes], current: Callable[[str], bytes], *, now: datetime
    ) -> None:
        self._namespace, self._current, self._today = namespace, current, now
        self._roots = [read_metadata(content, what="a root") for content in roots]
        self._before: dict[str, Metadata[Any]] = {roles.ROOT: self._roots[-1]}
        self._after: dict[str, Metadata[Any]] = {}

    def keys_of(self, role: str) -> RoleKeys:
        """The keys of a role as they are drafted by now. Raises `NotFound`."""
        try:
            return _keys_in(self._now_or_next(_delegator(role)))[role]
        except KeyError:
            raise NotFound(f"there is no role {role!r}; see: whimbrel keys status") from None

    def expand(self, role: str) -> list[str]:
        """The roles that a person's word means: `policy` is the policy role of every model. Raises `NotFound`."""
        if role != POLICY:
            self.keys_of(role)
            return [role]
        delegated = [name for name in _keys_in(self._now_or_next(roles.TARGETS)) if name.startswith("policy-")]
        if not delegated:
            raise NotFound("no model has a policy key yet; add one first: whimbrel model add NAME")
        return delegated

    def add(self, role: str, key: Key) -> None:
        """Let a key sign a role. Raises `Conflict` where it may already."""
        check_id(key)
        if key.keyid in self.keys_of(role).keyids:
            raise Conflict(f"the key {short(key.keyid)} may sign {role} already")
        self._next(_delegator(role)).signed.add_key(key, role)

    def revoke(self, role: str, keyid: str) -> None:
        """Take a key from a role. `keyid` may be its beginning. Raises `NotFound`, and `Refused` for an only key."""
        whole = self.find(role, keyid)
        if self.keys_of(role).keyids == (whole,):
            raise Refused(
                f"{short(whole)} is the only key of {role}, and nobody could sign it any more; replace it with: "
                f"whimbrel keys rotate {role}, or add another key first"
            )
        self._next(_delegator(role)).signed.revoke_key(whole, role)

    def delegate(self, model: str, *, publisher: Key, policy: Key) -> None:
        """Delegate a new model to its publisher's key and to the policy key. Raises `Conflict` where it is already."""
        add_delegations(self._next(roles.TARGETS).signed, model, publisher=publisher, policy=policy)

    def find(self, role: str, keyid: str) -> str:
        """The whole id of a role's key. Raises `NotFound` for none, or several, that begin so.

        Raises `UntrustedInput` for too few characters: a slip of the hand must not take another key away.
        """
        known = self.keys_of(role).keyids
        shown = ", ".join(short(each) for each in known)
        if len(keyid) < limits.KEY_ID_CHARS:
            raise UntrustedInput(
                f"{keyid!r} is too short to name a key; give at least {limits.KEY_ID_CHARS} characters of: {shown}"
            )
        matching = [each for each in known if each.startswith(keyid.lower())]
        if not matching:
            raise NotFound(f"{role} has no key {keyid!r}; it has: {shown}")
        if len(matching) > 1:
            raise NotFound(f"{role} has {len(matching)} keys that begin with {keyid!r}: {', '.join(matching)}")
        return matching[0]

    def set_threshold(self, role: str, threshold: int) -> None:
        """Have so many keys sign a role."""
        self.keys_of(role)
        signed = self._next(_delegator(role)).signed
        named = signed.roles if isinstance(signed, Root) else signed.delegations.roles
        named[role].threshold = threshold

    def renew(self, role: str) -> None:
        """Sign a role anew, with its whole life before it. Raises `Refused` for a role that the server signs."""
        if (model := roles.model_of_floor(role)) is not None:
            raise Refused(f"a floor names the line that holds now; sign it anew with: whimbrel floor renew {model}")
        if not roles.is_offline(role):
            raise Refused(f"{role} is signed anew by the server; people renew root, targets and publishers")
        self._next(role)

    def draft(self, summary: str) -> Draft:
        """The file. Raises `Refused` where a role could never be signed, and where nothing changes."""
        if not self._after:
            raise Refused("nothing would change")
        for delegator in (roles.ROOT, roles.TARGETS):
            if delegator in self._after:
                _check_thresholds(self._after[delegator])
        for role in self._offline_with_other_keys():
            if role not in self._after:
                signed = _signed_by(self._now_or_next(_delegator(role)).signed, role, self._now(role))
                if not self.keys_of(role).signed_by(set(signed)):
                    self._next(role)
        self._now(roles.TARGETS)
        needed = {roles.ROOT, roles.TARGETS, *self._after}
        return Draft(
            kind="whimbrel-key-ceremony-1",
            namespace=self._namespace,
            created=f"{self._today.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            summary=summary,
            roots=tuple(each.to_dict() for each in self._roots),
            before={role: each.to_dict() for role, each in self._before.items() if role in needed},
            after={role: self._after[role].to_dict() for role in _in_order(self._after)},
        )

    def _offline_with_other_keys(self) -> list[str]:
        """Roles that people sign, and whose keys the draft changes."""
        changed = []
        for delegator in (roles.ROOT, roles.TARGETS):
            if delegator in self._after:
                before, after = _keys_in(self._before[delegator]), _keys_in(self._after[delegator])
                changed += [
                    role
                    for role in after
                    if not roles.is_servers(role) and after[role] != before.get(role, after[role])
                ]
        return changed

    def _now(self, role: str) -> Metadata[Any]:
        if role not in self._before:
            self._before[role] = read_metadata(self._current(role), what=role)
        return self._before[role]

    def _now_or_next(self, role: str) -> Metadata[Any]:
        return self._after.get(role) or self._now(role)

    def _next(self, role: str) -> Metadata[Any]:
        if role not in self._after:
            copy: Metadata[Any] = Metadata.from_bytes(self._now(role).to_bytes(SERIALIZER))
            copy.signed.version += 1
            if roles.model_of_floor(role) is None:  # a change of its keys makes no floor last longer
                copy.signed.expires = expiry(self._today, roles.life_of(role))
            copy.signatures.clear()
            self._after[role] = copy
        return self._after[role]


def read_draft(content: bytes) -> Draft:
    """Read the file. Raises `UntrustedInput`."""
    if len(content) > limits.CEREMONY_BYTES:
        raise UntrustedInput(f"the draft has {len(content)} bytes; at most {limits.CEREMONY_BYTES} are read")
    try:
        value = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        why = no_json(str(error)) or reason_of(error)
        raise UntrustedInput(
            f"the draft cannot be read: {why}; expected a file of `whimbrel keys rotate` and the like"
        ) from error
    draft = convert(Draft, value, what="the draft")
    if not draft.roots or not draft.after or {roles.ROOT, roles.TARGETS} - draft.before.keys():
        raise UntrustedInput("the draft lacks the root, or what it changes; make it anew")
    if len(draft.roots) + len(draft.after) > limits.CEREMONY_ROLES:
        raise UntrustedInput(f"the draft has more than {limits.CEREMONY_ROLES} signed roles")
    return draft


def write_draft(draft: Draft) -> bytes:
    """The file's bytes."""
    return encode(draft) + b"\n"


def documents_of(draft: Draft) -> dict[str, bytes]:
    """The next version of each role, as the server takes it."""
    return {role: _metadata(body, role).to_bytes(SERIALIZER) for role, body in draft.after.items()}


def next_versions(draft: Draft) -> dict[str, int]:
    """The version that the draft makes of each role."""
    return {role: _metadata(body, role).signed.version for role, body in draft.after.items()}


def changes_of(draft: Draft) -> list[str]:
    """What the draft changes, a sentence each."""
    sentences = []
    for delegator in (roles.ROOT, roles.TARGETS):
        if delegator in draft.after:
            before, after = _metadata(draft.before[delegator], delegator), _metadata(draft.after[delegator], delegator)
            sentences += key_changes(_keys_in(before), _keys_in(after))
            sentences += _other_changes(delegator, before.signed, after.signed)
    for role in draft.after:
        now, then = (_metadata(side[role], role).signed for side in (draft.before, draft.after) if role in side)
        sentences.append(f"{role}: version {then.version} after {now.version}, valid until {then.expires:%Y-%m-%d}")
        if role not in {roles.ROOT, roles.TARGETS} and then.targets != now.targets:
            raise UntrustedInput(f"the draft changes what {role} lists, besides its keys; do not sign it")
        if roles.model_of_floor(role) is not None and then.expires != now.expires:
            raise UntrustedInput(f"the draft changes how long {role} holds, besides its keys; do not sign it")
        if role not in {roles.ROOT, roles.TARGETS} and then.delegations is not None:
            raise UntrustedInput(f"the draft lets others sign for {role}; do not sign it, and ask who made it")
    return sentences


def signatures(draft: Draft) -> list[Signatures]:
    """Who must sign each role of the draft, and who did."""
    before = {role: _metadata(body, role) for role, body in draft.before.items()}
    after = {role: _metadata(body, role) for role, body in draft.after.items()}
    wanted = []
    for role, metadata in after.items():
        delegators = {"": after.get(_delegator(role)) or before[_delegator(role)]}
        if role == roles.ROOT:
            delegators = {"the keys before": before[role], "the keys after": metadata}
            if _keys_in(before[role])[role] == _keys_in(metadata)[role]:
                delegators = {"": metadata}
        for whose, delegator in delegators.items():
            keys = _keys_in(delegator).get(role)
            if keys is None:
                raise UntrustedInput(f"the draft changes {role}, which nothing delegates; make it anew")
            wanted.append(Signatures(role, keys, frozenset(_signed_by(delegator.signed, role, metadata)), whose))
    return wanted


def check_before(draft: Draft, *, trusted_root: bytes | None) -> None:
    """Prove that the draft starts from what is signed. `trusted_root`: one that the signer trusts, of any version.

    Raises `UntrustedInput` where a root does not follow from the one before it, or the trusted one is not among them.
    """
    chain = [_metadata(body, roles.ROOT) for body in draft.roots]
    for number, root in enumerate(chain):
        if root.signed.version != chain[0].signed.version + number:
            raise UntrustedInput("the draft's chain of roots has a gap; make it anew")
        for signer in {max(0, number - 1), number}:
            _check_signed(chain[signer].signed, roles.ROOT, root)
    for role, body in draft.before.items():
        if role == roles.ROOT:
            if _metadata(body, role).to_dict() != chain[-1].to_dict():
                raise UntrustedInput("the draft changes another root than its chain ends with; do not sign it")
            continue
        delegator = chain[-1] if role in _DELEGATED_BY_ROOT else _metadata(draft.before[roles.TARGETS], roles.TARGETS)
        _check_signed(delegator.signed, role, _metadata(body, role))
    for role, body in draft.after.items():
        version = _metadata(body, role).signed.version
        if role not in draft.before or version != _metadata(draft.before[role], role).signed.version + 1:
            raise UntrustedInput(f"the draft's {role} is not the next version; make it anew")
    if trusted_root is not None:
        trusted = read_metadata(trusted_root, what="the trusted root", kind=Root)
        if not any(trusted.signed == root.signed for root in chain):
            raise UntrustedInput(
                f"the draft's roots do not contain the root that you trust (version {trusted.signed.version}); do not "
                "sign it, and ask who made it"
            )


def sign_draft(draft: Draft, folder: KeyFolder) -> tuple[Draft, list[str]]:
    """Add the signatures of the keys in `folder` that may sign. Returns the draft, and the ids of the keys that signed.

    Raises `NotFound` where the folder holds no key that is wanted, `Conflict` where all of them signed before.
    """
    after = {role: _metadata(body, role) for role, body in draft.after.items()}
    held, done_before = folder.held(), []
    signed: list[tuple[str, str]] = []
    for wanted in signatures(draft):
        for keyid in wanted.keys.keyids:
            if keyid not in held:
                continue
            if keyid in wanted.signed:
                done_before.append(keyid)
            elif (wanted.role, keyid) not in signed:
                add_signature(after[wanted.role], folder.signer(held[keyid]))
                signed.append((wanted.role, keyid))
    if not signed and done_before:
        raise Conflict(f"the keys in {folder.path} signed this draft already; pass it on, or submit it")
    if not signed:
        lacking = sorted({short(keyid) for each in signatures(draft) for keyid in each.keys.keyids})
        raise NotFound(
            f"{folder.path} holds none of the keys that may sign this ({', '.join(lacking)}); name another with --keys"
        )
    bodies = {role: metadata.to_dict() for role, metadata in after.items()}
    return msgspec.structs.replace(draft, after=bodies), list(dict.fromkeys(keyid for _, keyid in signed))


def root_fingerprint(draft: Draft) -> tuple[int, str]:
    """The version of the root that the draft starts from, and a digest that people compare by voice."""
    root = _metadata(draft.roots[-1], roles.ROOT)
    return root.signed.version, digest_of(root.signed_bytes)[:16]


def last_root(draft: Draft) -> bytes:
    """The root that the draft starts from."""
    return _metadata(draft.roots[-1], roles.ROOT).to_bytes(SERIALIZER)


def _metadata(body: Mapping[str, Any], role: str) -> Metadata[Any]:
    kind = {roles.ROOT: Root}.get(role, Targets)
    return read_metadata(encode(body), what=role, kind=kind)


def _keys_in(metadata: Metadata[Any]) -> dict[str, RoleKeys]:
    return role_keys(metadata.to_bytes(SERIALIZER))


def _delegator(role: str) -> str:
    return roles.ROOT if role in _DELEGATED_BY_ROOT else roles.TARGETS


def _signed_by(delegator: Any, role: str, metadata: Metadata[Any]) -> list[str]:
    """The ids of the role's keys whose signatures are right."""
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return list(result.signed)


def _check_signed(delegator: Any, role: str, metadata: Metadata[Any]) -> None:
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise UntrustedInput(
            f"the draft's past is not signed ({error}); do not sign it, and ask who made it"
        ) from error


def _check_thresholds(delegator: Metadata[Any]) -> None:
    for role, keys in _keys_in(delegator).items():
        if not 1 <= keys.threshold <= len(keys.keyids):
            raise Refused(
                f"{keys.threshold} of {len(keys.keyids)} keys would have to sign {role}, which nobody could; add "
                "keys, or lower the threshold first"
            )
        if len(keys.keyids) > limits.KEYS_OF_A_ROLE:
            raise Refused(f"{role} would have {len(keys.keyids)} keys; a role has at most {limits.KEYS_OF_A_ROLE}")


def _other_changes(role: str, before: Any, after: Any) -> list[str]:
    """What differs besides keys, versions and expiry: nothing, in an honest draft of a change of keys."""
    words = []
    if isinstance(after, Root):
        if not after.consistent_snapshot:
            words.append("root: files lose their version numbers; devices would find nothing. DO NOT SIGN")
        return words
    if cast("Targets", before).targets != cast("Targets", after).targets:
        words.append(f"{role}: lists other documents. DO NOT SIGN unless you know why")
    return words + [f"{each}. DO NOT SIGN" for each in delegations_beyond_their_own(after)]


def _in_order(names: Iterable[str]) -> list[str]:
    order = {roles.ROOT: 0, roles.TARGETS: 1}
    return sorted(names, key=lambda name: (order.get(name, 2), name))
