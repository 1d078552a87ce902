"""The controllers: what the server does by itself, round by round.

**Reconciliation.** A controller is not told what happened. It compares what should be with what is, and does the
difference; where there is none, it does nothing. So it does not matter why something differs (a person's command, a
message of a device, the time, a process that was killed half-way), and an event that was missed is no harm: the next
round sees the same difference. Each controller is a file, here in the order of a round:

    file        what it does                             what it compares
    leader      says which server does all this          the lease's row <-> this process
    tallying    counts the messages of devices           the inbox <-> an empty one
    judging     asks the gates, and does what they say   the window that is open <-> the one that was judged last
    publishing  signs and copies what devices fetch      what the rows say <-> what is signed <-> what is copied
    progress    lets rollouts move by themselves         a rollout's state <-> what has happened since
    expiry      warns of roles that people must sign     when they expire <-> the time
    anchoring   writes anchors of the audit log          the last anchor <-> the time, for receivers that ask
    monitoring  reads the standing monitors of models    what devices told <-> objectives, the past, versions beside
    signatures  tells what waits for an offline key      floors and quarantines <-> the time, the line, what was told
    deltas      builds patches, beside the rounds        pairs that should have a patch <-> pairs that were tried

**Killed at any point.** Every step is one transaction, or writes files that never change (the timestamp does, and is
written last). Before its transaction is committed, a step has not happened; after it, the next step finds the new rows.
Nothing that matters is kept in memory: ledgers and marks there save time, and a new process does without them.
`tests/e2e/test_turns.py` kills a server after each of its transactions in turn; the outcome is always the same.

**What can go wrong, and what happens then:**
1. The server dies, or is suspended: its lease runs out, and another server does the rest. A leader that wakes up too
   late changes no row, since each of its transactions holds the lease (`leader`).
2. Anything is `Unavailable` (database, inbox, blob store): the round ends there, is logged, and is tried again after a
   wait that grows with the failures in a row, up to 10 s. What was done before it stays done.
3. A person changes a row while a controller works on it (`Conflict`): the person wins, and the next round looks again.
4. A bug raises something unforeseen, or a row cannot be read: it is logged, and rounds go on. What fails so stops
   nothing beside it (`failures`): other rollouts are judged, and what people asked for is signed. Only where messages
   cannot be counted nothing is judged, since devices that told would look silent.

Each file says the same of its own part. The rules are in `flows/`; nothing is decided here.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

from whimbrel.durable import trouble
from whimbrel.errors import Unavailable, WhimbrelError
from whimbrel.flows.ports import Inbox
from whimbrel.flows.reports.proven import EvidenceRule
from whimbrel.plan.rollout_states import State
from whimbrel.server.controllers.anchoring import Anchoring
from whimbrel.server.controllers.deltas import DeltaBuilding
from whimbrel.server.controllers.expiry import Expiry
from whimbrel.server.controllers.failures import Failures
from whimbrel.server.controllers.judging import Judging
from whimbrel.server.controllers.leader import Leader, LeadLost
from whimbrel.server.controllers.monitoring import Monitoring
from whimbrel.server.controllers.progress import Progress
from whimbrel.server.controllers.publishing import Publishing, is_published
from whimbrel.server.controllers.signatures import Signatures
from whimbrel.server.controllers.tallying import Tallying
from whimbrel.server.logs import fields
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.registry import namespaces
from whimbrel.stores.transaction import Stores, all_namespaces

log = logging.getLogger(__name__)

_PERIOD_S = 0.25  # between rounds
_LONGEST_WAIT = 40  # periods that are waited after many failures in a row
_SETTLE_WAIT_S = 20.0
_DOES = {"leader": "leads: it tallies, judges and signs", "follower": "follows: another one leads"}


class Controllers:
    """The controllers of all namespaces of one database. `wake`: set it, and the next round begins soon."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        inbox: Inbox,
        signers: OnlineSigners,
        *,
        clock: Callable[[], float],
        evidence: EvidenceRule = "proven",
        asking_for_anchors: Callable[[], Collection[str]] = tuple,
        anchor_period_s: float = 86400.0,
    ) -> None:
        """`evidence`: which devices' reports move rollouts and experiments.

        `asking_for_anchors`: the receivers to which anchors of the audit log go, every `anchor_period_s` seconds.
        """
        self._database = database
        self._clock = clock
        self.wake = asyncio.Event()
        self.leader = Leader(database, clock=clock)
        self.tallying = Tallying(self.leader, database, inbox, clock=clock, evidence=evidence)
        self.judging = Judging(self.leader, database, clock=clock)
        self.monitoring = Monitoring(self.leader, clock=clock)
        self.signatures = Signatures(self.leader, clock=clock)
        self.publishing = Publishing(self.leader, database, blobs, signers, clock=clock)
        self.expiry = Expiry(self.leader, clock=clock)
        self.anchoring = Anchoring(
            self.leader, signers, asking=asking_for_anchors, period_s=anchor_period_s, clock=clock
        )
        self.progress = Progress(self.leader, database, clock=clock)
        self.deltas = DeltaBuilding(self.leader, database, blobs, wake=self.wake, clock=clock)

    async def round(self) -> None:
        """One round of all controllers. What fails by itself stops no other step, and is raised at the end.

        Raises `Unavailable` where the round was broken off, or another server leads.
        """
        failures = Failures()
        judges, at_once = False, False
        with failures.apart("counting messages"):
            at_once = await self.tallying.empty_inbox() > 0
            judges = True
        for namespace in await asyncio.to_thread(all_namespaces, self._database):
            for doing, step in self._steps(judges=judges, at_once=at_once):
                with failures.apart(f"{doing} of {namespace}"):
                    await asyncio.to_thread(step, namespace)
            with failures.apart(f"publishing and moving of {namespace}"):
                await self.publishing.publish(namespace)
                if await asyncio.to_thread(self.progress.follow_rollouts, namespace):
                    await self.publishing.publish(namespace)
                    await asyncio.to_thread(self.progress.follow_rollouts, namespace)
        failures.raise_first()

    def _steps(self, *, judges: bool, at_once: bool) -> list[tuple[str, Callable[[str], object]]]:
        """What is done of each namespace before its metadata is signed. `judges`: all messages are counted."""
        judging: list[tuple[str, Callable[[str], object]]] = [
            ("judging rollouts", partial(self.judging.judge_rollouts, at_once=at_once)),
            ("judging experiments", partial(self.judging.judge_experiments, at_once=at_once)),
            ("watching models", self.monitoring.watch_models),
        ]
        return [
            ("looking for a spike", self.judging.look_for_spike),
            *(judging if judges else ()),
            ("reminding of signatures", self.signatures.remind),
            ("warning of what expires", self.expiry.warn),
            ("anchoring", self.anchoring.anchor),
        ]

    async def run(self) -> None:
        """Lead where nobody else does, until cancelled. Trouble is logged and tried again."""
        failures = 0  # in a row
        role = ""
        try:
            while True:
                try:
                    leads = await asyncio.to_thread(self.leader.take)
                    if role != (role := "leader" if leads else "follower"):
                        log.info("this server %s", _DOES[role], extra=fields(role=role))
                    if leads:
                        await self.round()
                    failures = 0
                except WhimbrelError as error:
                    failures += 1
                    log.warning("a controller round failed (%s in a row): %s", failures, error)
                except OSError as error:
                    failures += 1
                    reason = trouble(error, doing="a controller round")
                    log.warning("%s (%s in a row)", reason, failures)
                except Exception:  # a bug must not end all judging while devices go on being served
                    failures += 1
                    log.exception("a controller round failed (%s in a row)", failures)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), _PERIOD_S * min(_LONGEST_WAIT, 1 + failures))
                if self.wake.is_set():
                    self.wake.clear()
                    await asyncio.sleep(_PERIOD_S / 5)  # let more reports gather
        finally:
            await asyncio.to_thread(self.leader.resign)

    async def run_builds(self) -> None:
        """Build the patches that should be there, while this process leads, until cancelled."""
        await self.deltas.run()

    async def build_deltas(self, namespace: str, *, model: str | None = None) -> int:
        """Build the patches that are missing now. Returns how many were tried.

        Raises `Unavailable` where the codec is not installed here.
        """
        return await self.deltas.build_missing(namespace, model=model)

    async def settle(self) -> None:
        """Return when the signed metadata says what the registry says: do it, or wait for the leader to.

        Raises `Unavailable` where the leader does not do it in time.
        """
        deadline = time.monotonic() + _SETTLE_WAIT_S
        while True:
            if await asyncio.to_thread(self.leader.take):
                try:
                    await self.round()
                    return
                except LeadLost:
                    pass
                except Exception:
                    if not await asyncio.to_thread(self._is_settled):
                        raise
                    log.exception("what was asked for is signed, and another part of the round failed")
                    return
            if await asyncio.to_thread(self._is_settled):
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    "what you asked for is stored, but the leading server did not sign it within "
                    f"{_SETTLE_WAIT_S:.0f} s; look at its log"
                )
            await asyncio.sleep(0.05)

    def leads_now(self) -> bool:
        """Whether this process is the leader, as far as it knows."""
        return self.leader.leads_now()

    async def resign(self) -> None:
        """Stop leading, so that another server may lead at once."""
        await asyncio.to_thread(self.leader.resign)

    def _is_settled(self) -> bool:
        """Whether nothing waits to be published in any namespace."""
        with self._database.transaction() as connection:
            for namespace in namespaces(connection):
                stores = Stores(connection, namespace)
                if stores.deltas.unlisted_models() or not is_published(stores, now=self._clock()):
                    return False
                if any(rollout.state is State.ADVANCING for rollout in stores.registry.rollouts(live=True)):
                    return False
        return True
