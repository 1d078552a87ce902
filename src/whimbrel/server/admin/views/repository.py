"""What the admin API answers about a whole namespace: its state, its online keys, its audit log, its tokens."""

from typing import Annotated, Any, Literal

import msgspec

from whimbrel.server.admin.views.reason import Because

NOTICE = "whimbrel-notice"  # a header of every answer: what the operator should know, such as what expires soon


class SentView(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that went out of the server's process since it started, without headers."""

    artifact_bytes: int
    document_bytes: int


class NextExpiryView(msgspec.Struct, frozen=True, kw_only=True):
    """The signed role that expires first, of those that people sign."""

    role: str
    expires: float  # POSIX seconds


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """That the server works, and how much there is."""

    version: str  # of Whimbrel
    namespace: str
    models: int
    devices: int
    live_rollouts: int
    live_experiments: int
    timestamp_version: int
    sent: SentView
    next_expiry: NextExpiryView | None = None  # absent: the server is older, or has not looked yet


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A public key, as TUF metadata writes it (section 4.2.1), and its id."""

    keyid: str
    keytype: str
    scheme: str
    keyval: dict[str, str]


class RoleStateView(msgspec.Struct, frozen=True, kw_only=True):
    """Who may sign a role, and until when its newest version is valid."""

    role: str
    version: int  # 0: it is delegated, and nothing is signed yet
    expires: float | None  # POSIX seconds
    threshold: int
    keys: list[KeyView]
    offline: bool  # people sign it
    held: list[str] = []  # the ids of its keys that this server holds: of online roles
    warning: str | None = None


class RoleStatesView(msgspec.Struct, frozen=True, kw_only=True):
    """Who may sign what. The policy roles of models with the same keys are one entry, `policy`."""

    roles: list[RoleStateView]
    unused: list[str] = []  # the ids of keys that this server holds, and that nothing names: it never signs with them


class NewOnlineKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For which role the server is to make a key."""

    role: Literal["snapshot", "timestamp", "policy"]


class NewKeyChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Next versions of root, targets and publishers, signed. All of them are taken, or none."""

    documents: dict[str, bytes]
    because: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class KeyChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """What changed, a sentence each; or what will change when another person approves the `proposal`."""

    changes: list[str]
    proposal: str | None = None  # its id. None: the change was taken


class KeyProposalView(msgspec.Struct, frozen=True, kw_only=True):
    """A change of keys that waits for a second person. `id`: a SHA-256 of what it says. Times in POSIX seconds."""

    id: str
    changes: list[str]  # a sentence each
    roles: list[str]
    because: str
    proposed_by: str  # the account of who handed it in
    at: float
    until: float  # afterwards it is forgotten


class NewTokenKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`at_once`: tokens of the old key are refused from now on; else they are good until they end, for an hour."""

    at_once: bool = False
    because: Because = ""


class TokenKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """Until when tokens of the key before are taken. POSIX seconds."""

    old_until: float


class SealingKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of the server's sealing key (`age1...`), to which publishers seal release keys; None: none yet.

    `path`: where the private half lies on the server; only who makes it is told.
    """

    recipient: str | None
    path: str | None = None


class NewSealingKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST keys/sealing/replace. `lost`: the key before is lost, and so are the keys of all that was sealed to it."""

    lost: bool = False
    because: Because = ""


class ReplacedSealingKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """The new sealing key. `sealed_anew`: kept release keys that were sealed to it; `unopened`: those that the key
    before did not open, which are as they were.
    """

    recipient: str
    path: str
    sealed_anew: int
    unopened: int


class KeysView(msgspec.Struct, frozen=True, kw_only=True):
    """The online keys that a model is delegated to."""

    policy: KeyView


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, why, and on what evidence. The evidence is of any shape: each action tells its own."""

    namespace: str
    at: float  # POSIX seconds
    actor: str
    action: str
    because: str
    model: str | None
    rollout: str | None
    device: str | None = None  # absent: the server is older
    evidence: dict[str, Any]
    sequence: int = 0  # in the chain of the namespace; 0: the server is older
    previous: str = ""  # the hash of the entry before it
    hash: str = ""
