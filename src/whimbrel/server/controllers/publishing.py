"""The signed metadata that devices fetch says what the rows say. (Step 5 of the journey.)

Compares, one after the other, and does the difference:
1. The policy that a model's rows give (`flows/render_policy`) with the one that is signed: a difference is signed, with
   the next sequence number.
2. The deltas that are kept with those that the signed indexes list: where one is missing, the model's are signed anew.
3. The age of each policy role with its life, and its signatures with the keys that may sign it now: one whose life is
   half over, or whose key was replaced, is signed anew.
4. The newest roles with those that the snapshot lists, and the snapshot with the timestamp: both are signed anew, and
   the timestamp also when it is an hour old; and each where the root names another key for it. 1 to 4 are one
   transaction (`sign`).
5. The newest timestamp and root with those whose files are all copied: what is missing is copied, the timestamp last,
   and then its number is noted (`copy`).

Killed while it signs: the transaction is rolled back, and the next round signs. Killed while it copies: devices see
the old timestamp and everything that it lists, since no file but the timestamp ever changes, and that is copied last.
The next round copies everything once more, to the same bytes. Killed before the number is noted: likewise.

What can go wrong, and what happens then:
1. Another server leads since: `sign` is rolled back. `copy` writes what the database holds, under the same names, so
   that two servers that copy at once write the same files. Only the timestamp may fall back to an older one, until the
   next one is copied. A device never goes back to an older timestamp.
2. The blob store does not answer: the round ends with `Unavailable`; the rows are signed, and the next round copies.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from whimbrel.flows.publishing.build_deltas import write_index
from whimbrel.flows.render_policy import render_policy
from whimbrel.model.documents import encode, parse
from whimbrel.policy.policy import Policy
from whimbrel.server.controllers.leader import Leader
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.stores.tuf_repository import copy_files
from whimbrel.trust import roles


class Publishing:
    """The controller that signs the online metadata and copies it to where devices fetch it."""

    def __init__(
        self,
        leader: Leader,
        database: Database,
        blobs: Blobs,
        signers: OnlineSigners,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._leader, self._database, self._blobs, self._signers = leader, database, blobs, signers
        self._clock = clock

    async def publish(self, namespace: str) -> None:
        """Sign what differs, and copy what is missing."""
        await asyncio.to_thread(self.sign, namespace)
        await self.copy(namespace)

    def sign(self, namespace: str) -> None:
        """Sign what differs: policies, delta indexes, roles whose life is half over, snapshot and timestamp."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        with self._leader.transaction(namespace) as stores:
            for model, document in _policies_to_sign(stores, now=now.timestamp()):
                path = roles.policy_path(model)
                stores.roles.write_policy(model, {path: document}, signers=self._signers, now=now)
            for model in sorted({*stores.deltas.unlisted_models(), *stores.sealed.unlisted_models()}):
                stores.roles.write_policy(model, _delta_indexes(stores, model), signers=self._signers, now=now)
                stores.deltas.set_listed(model)
                stores.sealed.set_listed(model)
            for record in stores.registry.models():
                stores.roles.renew_policy(record.name, signers=self._signers, now=now)
            stores.roles.sign_snapshot_and_timestamp(self._signers, now=now)

    async def copy(self, namespace: str) -> None:
        """Copy the files that are missing, and note that they are there."""
        newest, files = await asyncio.to_thread(self._files_to_copy, namespace)
        if not files:
            return
        await copy_files(self._blobs, namespace, files)
        await asyncio.to_thread(self._note_copied, namespace, newest)

    def _files_to_copy(self, namespace: str) -> tuple[dict[str, int], list[tuple[str, bytes]]]:
        """The newest versions, and the files, in order, that are not copied yet.

        A root whose online keys have not signed yet waits for the next round: no device is to see it without them.
        """
        with transaction(self._database, namespace) as stores:
            held, newest = stores.roles, stores.roles.newest()
            if held.is_copied() or not all(map(held.has_its_signatures, (roles.SNAPSHOT, roles.TIMESTAMP))):
                return newest, []
            return newest, held.files_since(held.published_timestamp(), root=held.published_root())

    def _note_copied(self, namespace: str, newest: dict[str, int]) -> None:
        with self._leader.transaction(namespace) as stores:
            stores.roles.set_published(newest[roles.TIMESTAMP], newest[roles.ROOT])


def is_published(stores: Stores, model: str | None = None, *, now: float) -> bool:
    """Whether the files that devices fetch say of a model (None: of every model) what its rows say at `now`."""
    return (
        stores.roles.is_copied()
        and stores.roles.snapshot_is_current()
        and not _policies_to_sign(stores, now=now, only=model)
    )


def _policies_to_sign(stores: Stores, *, now: float, only: str | None = None) -> list[tuple[str, bytes]]:
    """Every model whose signed policy differs from what its rows say, with the document to sign."""
    registry = stores.registry
    to_sign = []
    for model in registry.models():
        if only not in {None, model.name}:
            continue
        signed = stores.roles.current_target(roles.policy_role(model.name), roles.policy_path(model.name))
        current = parse(Policy, signed, what=f"the policy of {model.name}") if signed else None
        sequence = current.sequence if current else 0
        rendered = render_policy(
            model,
            versions=registry.versions(model.name),
            rollouts=registry.watched_rollouts(model.name, now=now),
            quarantine=registry.quarantines(model.name),
            sequence=max(1, sequence),
            overrides=registry.overridden(model.name),
            experiments=stores.experiments.all(model=model.name, live=True),
            set_leads=registry.set_leads(model.name),
        )
        if rendered != current:
            to_sign.append((model.name, encode(msgspec.structs.replace(rendered, sequence=sequence + 1))))
    return to_sign


def _delta_indexes(stores: Stores, model: str) -> dict[str, bytes]:
    """The delta index of every release of a model that any patch leads to, by its path."""
    tried, sealed = stores.deltas.of(model), stores.sealed.steps(model)
    indexes = {}
    for version, release in stores.registry.published(model):
        index = write_index(release, tried, sealed=sealed.get(version.serial, ()))
        if index.steps:
            indexes[roles.deltas_path(model, version.serial)] = encode(index)
    return indexes
