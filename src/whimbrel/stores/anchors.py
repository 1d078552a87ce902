"""Signatures of anchors of the audit log: made with the server's timestamp key, and checked against a root.

The timestamp key is the one that already says, every hour, what was newest at a time. What is signed begins with a line
of its own, so that no anchor can be taken for metadata, nor metadata for an anchor.
"""

from securesystemslib.signer import Signature
from tuf.api.metadata import Root

from whimbrel.errors import UntrustedInput
from whimbrel.flows.audit_chain import Anchor
from whimbrel.stores.audit_log import AuditLog
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.signed_metadata import read_metadata
from whimbrel.stores.signer import Signer
from whimbrel.stores.tuf_repository import SignedRoles
from whimbrel.trust import roles


def newest_anchor(
    log: AuditLog, signed_roles: SignedRoles, signers: OnlineSigners, *, namespace: str, now: float
) -> Anchor:
    """An anchor of the log as it is now. `now`: POSIX seconds. Raises `Unavailable` where no timestamp key is held."""
    sequence, newest = log.head()
    keys = signed_roles.keys_of(roles.TIMESTAMP)
    (signer, *_) = signers.sign_for(roles.TIMESTAMP, keys)
    return sign_anchor(Anchor(namespace=namespace, sequence=sequence, hash=newest, at=now), signer)


def sign_anchor(anchor: Anchor, signer: Signer) -> Anchor:
    """The anchor with its signature."""
    signature = signer.sign(anchor.signed_bytes())
    return Anchor(
        namespace=anchor.namespace,
        sequence=anchor.sequence,
        hash=anchor.hash,
        at=anchor.at,
        keyid=signature.keyid,
        signature=signature.signature,
    )


def check_signature(anchor: Anchor, root: bytes) -> None:
    """Raise `UntrustedInput` unless a timestamp key of the root (signed metadata) signed the anchor."""
    metadata = read_metadata(root, what="the root", kind=Root)
    named = metadata.signed.roles[roles.TIMESTAMP].keyids
    if anchor.keyid not in named:
        raise UntrustedInput(
            f"the anchor of entry {anchor.sequence} is signed by the key {anchor.keyid[:12] or 'none'}, which is no "
            "timestamp key of this root; give the root of the anchor's time (metadata/<number>.root.json)"
        )
    try:
        metadata.signed.keys[anchor.keyid].verify_signature(
            Signature(anchor.keyid, anchor.signature), anchor.signed_bytes()
        )
    except Exception as error:  # securesystemslib raises several unrelated kinds, also for text that is no signature
        raise UntrustedInput(
            f"the signature of the anchor of entry {anchor.sequence} is wrong: it was changed, or made elsewhere"
        ) from error
