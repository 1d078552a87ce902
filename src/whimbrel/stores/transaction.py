"""All stores of one namespace, within one transaction.

    with transaction(database, namespace) as stores:
        stores.fleet.note_heard(...)
        stores.audit.newest(...)

1. A unit of work is one transaction: it is committed at the end of the block, and rolled back by any exception.
2. A store is made when it is first used, so that a transaction costs no more than the stores that it needs.
3. What spans namespaces (the leases, the list of namespaces) works on `Database.transaction()`, the bare connection.

Everything that reads or writes the database on behalf of a namespace begins here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from sqlalchemy import Connection

from whimbrel.stores.accounts import Accounts
from whimbrel.stores.alerts import AlertDeliveries
from whimbrel.stores.audit_log import AuditLog
from whimbrel.stores.database import Database
from whimbrel.stores.deltas import Deltas
from whimbrel.stores.enrolments import Enrolments
from whimbrel.stores.experiments import Experiments
from whimbrel.stores.fleet import Fleet
from whimbrel.stores.health import Health
from whimbrel.stores.inventory import Inventory
from whimbrel.stores.key_changes import KeyChanges
from whimbrel.stores.key_proposals import KeyProposals
from whimbrel.stores.policy_history import PolicyHistory
from whimbrel.stores.registry import Registry, namespaces
from whimbrel.stores.role_expiry import RoleExpiries
from whimbrel.stores.run_histories import RunHistories
from whimbrel.stores.sealed_versions import SealedVersions
from whimbrel.stores.tickets import Tickets
from whimbrel.stores.tuf_repository import SignedRoles


class Stores:
    """The stores of one namespace. They share one connection, and so one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    @cached_property
    def registry(self) -> Registry:
        """Models, versions, aliases, artifacts, rollouts, quarantine and secrets."""
        return Registry(self.connection, self.namespace)

    @cached_property
    def fleet(self) -> Fleet:
        """Devices, cohorts, sequence marks and the tally of their reports."""
        return Fleet(self.connection, self.namespace)

    @cached_property
    def enrolments(self) -> Enrolments:
        """How devices are known again, and the tokens that let them in."""
        return Enrolments(self.connection, self.namespace)

    @cached_property
    def inventory(self) -> Inventory:
        """Devices as people look at them and govern them."""
        return Inventory(self.connection, self.namespace)

    @cached_property
    def run_histories(self) -> RunHistories:
        """Which versions were active on devices, as they signed it."""
        return RunHistories(self.connection, self.namespace)

    @cached_property
    def experiments(self) -> Experiments:
        """Experiments, and the phase of each."""
        return Experiments(self.connection, self.namespace)

    @cached_property
    def health(self) -> Health:
        """What devices told of each version by hour and day, and the episodes of monitors."""
        return Health(self.connection, self.namespace)

    @cached_property
    def roles(self) -> SignedRoles:
        """Signed metadata: every version of every role, and the documents that they list."""
        return SignedRoles(self.connection, self.namespace)

    @cached_property
    def keys(self) -> KeyChanges:
        """Who may sign the roles."""
        return KeyChanges(self.roles)

    @cached_property
    def key_proposals(self) -> KeyProposals:
        """Changes of keys that wait for a second person."""
        return KeyProposals(self.connection, self.namespace)

    @cached_property
    def role_expiries(self) -> RoleExpiries:
        """When offline roles expire, and of what was warned."""
        return RoleExpiries(self.connection, self.namespace)

    @cached_property
    def deltas(self) -> Deltas:
        """Patches that were tried."""
        return Deltas(self.connection, self.namespace)

    @cached_property
    def sealed(self) -> SealedVersions:
        """The keys of sealed versions, and the patches to them."""
        return SealedVersions(self.connection, self.namespace)

    @cached_property
    def alerts(self) -> AlertDeliveries:
        """What became of each alert for each receiver."""
        return AlertDeliveries(self.connection, self.namespace)

    @cached_property
    def policies(self) -> PolicyHistory:
        """Every policy that was signed."""
        return PolicyHistory(self.connection, self.namespace)

    @cached_property
    def audit(self) -> AuditLog:
        """Who did what, when and why, in a chain of hashes."""
        return AuditLog(self.connection, self.namespace)

    @cached_property
    def accounts(self) -> Accounts:
        """People and machines, and their tokens."""
        return Accounts(self.connection, self.namespace)

    @cached_property
    def tickets(self) -> Tickets:
        """Reports of users, by the number of their ticket."""
        return Tickets(self.connection, self.namespace)


@contextmanager
def transaction(database: Database, namespace: str) -> Iterator[Stores]:
    """One transaction with all stores of a namespace: committed at the end, rolled back by any exception."""
    with database.transaction() as connection:
        yield Stores(connection, namespace)


def all_namespaces(database: Database) -> list[str]:
    """Namespaces that have a repository, in a transaction of its own."""
    with database.transaction() as connection:
        return namespaces(connection)
