"""Changes of keys that wait, on every database: kept as they came, and tried without a trace."""

from datetime import UTC, datetime

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from whimbrel.errors import UntrustedInput
from whimbrel.flows.key_records import KeyProposal
from whimbrel.stores.database import Database
from whimbrel.stores.key_proposals import proposal_id
from whimbrel.stores.signed_metadata import SERIALIZER, add_signature
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.stores.tuf_repository import first_metadata

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROPOSAL = KeyProposal(
    id="a" * 64,
    documents={"root": b"\x00\xff{}", "targets": b"{}"},
    changes=["root: key 1 is added"],
    because="„why“\u202e",
    proposed_by="ada@example.com",
    at=5.0,
)


def test_a_proposal_is_kept_as_it_came_and_of_its_namespace(database: Database) -> None:
    later = msgspec.structs.replace(PROPOSAL, id="0" * 64, at=6.0)
    with transaction(database, "default") as stores:
        for each in (later, PROPOSAL):
            stores.key_proposals.add(each)
    with transaction(database, "default") as stores:
        assert stores.key_proposals.all() == [PROPOSAL, later]
        assert stores.key_proposals.count() == 2
        other = Stores(stores.connection, "other").key_proposals
        assert (other.all(), other.count()) == ([], 0)
        other.remove(PROPOSAL.id)
        other.remove_older(at=100.0)
        stores.key_proposals.remove_older(at=6.0)
        assert stores.key_proposals.all() == [later]
        stores.key_proposals.remove(later.id)
        assert stores.key_proposals.all() == []


def test_a_change_is_tried_and_leaves_nothing(database: Database) -> None:
    names = ("root", "targets", "snapshot", "timestamp", "new")
    keys = {name: CryptoSigner.generate_ed25519() for name in names}
    online = {name: keys[name].public_key for name in ("snapshot", "timestamp")}
    root, targets = first_metadata(root=keys["root"], targets=keys["targets"], **online, now=NOW)
    after: Metadata = Metadata.from_bytes(root.to_bytes(SERIALIZER))
    after.signed.version += 1
    after.signed.add_key(keys["new"].public_key, "root")
    after.signatures.clear()
    unsigned = {"root": after.to_bytes(SERIALIZER)}
    add_signature(after, keys["root"])
    documents = {"root": after.to_bytes(SERIALIZER)}
    assert proposal_id(documents) == proposal_id(unsigned) != proposal_id({"root": root.to_bytes(SERIALIZER)})
    with transaction(database, "default") as stores:
        stores.roles.add_role("root", root)
        stores.roles.add_role("targets", targets)
        tried = stores.keys.preview(documents, holds=lambda _: True, now=NOW)
        assert stores.roles.newest()["root"] == 1
        with pytest.raises(UntrustedInput, match="root is not signed"):
            stores.keys.preview(unsigned, holds=lambda _: True, now=NOW)
        assert stores.roles.newest()["root"] == 1
        assert stores.keys.accept(documents, holds=lambda _: True, now=NOW) == tried
    with transaction(database, "default") as stores:
        assert stores.roles.newest()["root"] == 2
