"""Changes of keys that one person handed in, and that wait for another: the signed roles, as they came.

A change is known by what it says, whoever signed it: two drafts with the same content are one proposal.
"""

from sqlalchemy import Column, Connection, Float, String, Table, Text, delete, func, insert, select

from whimbrel.flows.key_records import KeyProposal
from whimbrel.model.documents import digest_of, encode, parse
from whimbrel.stores.binary import LargeBinary
from whimbrel.stores.schema import metadata
from whimbrel.stores.signed_metadata import read_metadata

key_proposals = Table(  # until they are approved, rejected or over
    "key_proposal",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("documents", LargeBinary, nullable=False),
    Column("changes", LargeBinary, nullable=False),
    Column("because", Text, nullable=False),
    Column("proposed_by", String(128), nullable=False),
    Column("at", Float, nullable=False),
)


def proposal_id(documents: dict[str, bytes]) -> str:
    """What a change is called: a SHA-256 over what each of its roles says, without the signatures.

    So a person who holds the draft knows that what is approved is what the draft says. Raises `UntrustedInput`.
    """
    return digest_of(
        encode({role: digest_of(read_metadata(content, what=role).signed_bytes) for role, content in documents.items()})
    )


class KeyProposals:
    """The proposals of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def id_of(self, documents: dict[str, bytes]) -> str:
        """What a change is called. Raises `UntrustedInput`."""
        return proposal_id(documents)

    def add(self, proposal: KeyProposal) -> None:
        """Keep a proposal."""
        values = {
            "namespace": self.namespace,
            "id": proposal.id,
            "documents": encode(proposal.documents),
            "changes": encode(proposal.changes),
            "because": proposal.because,
            "proposed_by": proposal.proposed_by,
            "at": proposal.at,
        }
        self.connection.execute(insert(key_proposals).values(**values))

    def all(self) -> list[KeyProposal]:
        """The proposals, the oldest first."""
        table = key_proposals.c
        rows = self.connection.execute(
            select(key_proposals).where(table.namespace == self.namespace).order_by(table.at, table.id)
        )
        return [
            KeyProposal(
                id=row.id,
                documents=parse(dict[str, bytes], bytes(row.documents), what="a stored change of keys"),
                changes=parse(list[str], bytes(row.changes), what="a stored change of keys"),
                because=row.because,
                proposed_by=row.proposed_by,
                at=row.at,
            )
            for row in rows
        ]

    def count(self) -> int:
        """How many wait."""
        query = select(func.count()).select_from(key_proposals).where(key_proposals.c.namespace == self.namespace)
        return self.connection.execute(query).scalar_one()

    def remove(self, identifier: str) -> None:
        """Forget a proposal."""
        table = key_proposals.c
        self.connection.execute(delete(key_proposals).where(table.namespace == self.namespace, table.id == identifier))

    def remove_older(self, *, at: float) -> None:
        """Forget those that were handed in before `at`."""
        table = key_proposals.c
        self.connection.execute(delete(key_proposals).where(table.namespace == self.namespace, table.at < at))
