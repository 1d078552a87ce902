"""Who keeps what is in step with what should be? Level-triggered controllers; the leader runs them, round by round.

A round: tally the inbox, judge the live rollouts and experiments whose window closed, write the policies that differ
from what the rows say, sign snapshot and timestamp, copy the files, and do what follows by itself (begin what was
scheduled or queued). Every step compares and does the difference, so a process that is killed anywhere leaves nothing
that the next round does not finish. A lease in the database keeps one leader; each transaction renews it, and so
holds its row: a leader that was too slow changes nothing any more.
"""

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection

from whimbrel.errors import Conflict, Unavailable, WhimbrelError
from whimbrel.flows.experiments.advance import advance_experiment
from whimbrel.flows.experiments.judge import ExperimentLedgers
from whimbrel.flows.ports import Inbox, Taken
from whimbrel.flows.publishing.build_deltas import DeltaRecord, Pair, wanted_pairs, write_index
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.judge_silence import judge_silence
from whimbrel.flows.reports.learn_delays import learn_delays
from whimbrel.flows.reports.user_reports import count_reports
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.judge import RolloutLedgers
from whimbrel.flows.rollouts.progress import MOVES_BY_ITSELF, follow
from whimbrel.model.documents import encode, parse
from whimbrel.model.ways import NOTHING
from whimbrel.plan.rollout_states import State
from whimbrel.policy.policy import Policy
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.deltas import build_delta, codec_is_installed
from whimbrel.stores.registry import drop_lease, namespaces, take_lease
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.stores.tuf_repository import OnlineSigners, copy_files
from whimbrel.trust import roles

log = logging.getLogger(__name__)

_LEASE = "leader"
_LEASE_LIFE_S = 10.0
_PERIOD_S = 0.25
_BUILD_PERIOD_S = 2.0  # between looks for patches that are missing
_RECORDS_A_ROUND = 2000
_SETTLE_WAIT_S = 20.0


class _LeadLost(Unavailable):
    """Another server took over."""


class Controllers:
    """The controllers of all namespaces of one database."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        inbox: Inbox,
        signers: OnlineSigners,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._database, self._blobs, self._inbox, self._signers = database, blobs, inbox, signers
        self._clock = clock
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._leads_until = 0.0
        self._ledgers = RolloutLedgers()
        self._books = ExperimentLedgers()
        self._judged: dict[str, int] = {}  # rollout -> the window up to which it was judged
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Lead where nobody else does, until cancelled. Trouble is logged and tried again."""
        trouble = 0
        try:
            while True:
                try:
                    if await asyncio.to_thread(self._lead):
                        await self.round()
                    trouble = 0
                except WhimbrelError as error:
                    trouble += 1
                    log.warning("a controller round failed (%s in a row): %s", trouble, error)
                except Exception:  # a bug must not end all judging while devices go on being served
                    trouble += 1
                    log.exception("a controller round failed (%s in a row)", trouble)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), _PERIOD_S * min(40, 1 + trouble))
                if self.wake.is_set():
                    self.wake.clear()
                    await asyncio.sleep(_PERIOD_S / 5)  # let more reports gather
        finally:
            await asyncio.to_thread(self._resign)

    async def run_builds(self) -> None:
        """Make the patches that should be there, while this process leads, until cancelled."""
        while codec_is_installed():
            try:
                if await asyncio.to_thread(self.leads_now):
                    for namespace in await asyncio.to_thread(self._namespaces):
                        await self.build_deltas(namespace)
            except WhimbrelError as error:
                log.warning("a patch was not made: %s", error)
            except Exception:  # as above: a bug ends no loop for good
                log.exception("a patch was not made")
            await asyncio.sleep(_BUILD_PERIOD_S)

    async def build_deltas(self, namespace: str, *, model: str | None = None) -> int:
        """Make what is missing now; returns how many were tried. Two processes may do so at once: nothing breaks.

        Raises `Unavailable` where the codec is not installed here.
        """
        if not codec_is_installed():
            raise Unavailable("patches cannot be made here: pip install 'whimbrel[delta]'")
        tried = 0
        while True:
            found = await asyncio.to_thread(self._next_pair, namespace, model)
            if found is None:
                return tried
            name, pair, whole_bytes = found
            record = await build_delta(self._blobs, namespace, name, pair, whole_bytes=whole_bytes)
            await asyncio.to_thread(self._keep_delta, namespace, record)
            tried += 1
            self.wake.set()

    async def settle(self) -> None:
        """Return when the signed metadata says what the registry says: do it, or wait for the leader to.

        Raises `Unavailable` where the leader does not do it in time.
        """
        deadline = time.monotonic() + _SETTLE_WAIT_S
        while True:
            if await asyncio.to_thread(self._lead):
                with suppress(_LeadLost):
                    await self.round()
                    return
            if await asyncio.to_thread(self._settled):
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    "what you asked for is stored, but the leading server did not sign it within "
                    f"{_SETTLE_WAIT_S:.0f} s; look at its log"
                )
            await asyncio.sleep(0.05)

    async def resign(self) -> None:
        """Stop leading, so that others may at once."""
        await asyncio.to_thread(self._resign)

    async def round(self) -> None:
        """One round of all controllers."""
        setbacks = await self._tally()
        spaces = await asyncio.to_thread(self._namespaces)
        for namespace in spaces:
            await asyncio.to_thread(self._judge, namespace, at_once=setbacks > 0)
            await asyncio.to_thread(self._judge_experiments, namespace, at_once=setbacks > 0)
            await asyncio.to_thread(self._write_policies, namespace)
            await self._publish(namespace)
            if await asyncio.to_thread(self._follow, namespace):
                await asyncio.to_thread(self._write_policies, namespace)
                await self._publish(namespace)
                await asyncio.to_thread(self._follow, namespace)

    async def _tally(self) -> int:
        setbacks = 0
        while True:
            taken: Taken = await self._inbox.take(_RECORDS_A_ROUND)
            if taken.records:
                setbacks += await asyncio.to_thread(self._ingest, taken)
            await self._inbox.done(taken)
            if len(taken.records) < _RECORDS_A_ROUND:
                return setbacks

    def _ingest(self, taken: Taken) -> int:
        setbacks = 0
        with self._database.transaction() as connection:
            self._hold(connection)
            for namespace in dict.fromkeys(record.namespace for record in taken.records):
                records = [record for record in taken.records if record.namespace == namespace]
                stores = Stores(connection, namespace)
                done = ingest(
                    stores.registry,
                    stores.fleet,
                    records,
                    now=self._clock(),
                    experiments=stores.experiments.all(live=True),
                )
                setbacks += done.setbacks
                if done.contradictions or done.unreadable:
                    log.warning(
                        "%s: %d contradictory and %d unreadable reports were not counted",
                        namespace,
                        done.contradictions,
                        done.unreadable,
                    )
        return setbacks

    def _judge(self, namespace: str, *, at_once: bool) -> None:
        now = self._clock()
        with self._leading(namespace) as stores:
            count_reports(stores.registry, stores.fleet, stores.tickets, now=now)
            live = stores.registry.rollouts(live=True)
        alive = {rollout.id for rollout in live}
        for gone in [name for name in self._ledgers if name not in alive]:
            del self._ledgers[gone]
        for rollout in live:
            window = rollout.window_at(now)
            if self._judged.get(rollout.id) == window and not at_once:
                continue
            with self._leading(namespace) as stores:
                report_s = min(stores.registry.model(rollout.model).settings.report_s, rollout.plan.window_s())
                judge_silence(stores.fleet, rollout, report_s=report_s, now=now)
                try:
                    rollout = learn_delays(stores.fleet, rollout, save=stores.registry.save_rollout, now=now)  # noqa: PLW2901 (the same, as stored)
                    verdict = advance(stores.registry, stores.fleet, rollout, now=now, ledgers=self._ledgers)
                except Conflict:
                    self._ledgers.pop(rollout.id, None)
                    continue  # a person moved it meanwhile; look again next round
            self._judged[rollout.id] = window
            if verdict.move != "wait":
                log.info("rollout %s: %s: %s", rollout.id, verdict.move, verdict.because)

    def _follow(self, namespace: str) -> bool:
        """What follows by itself for every rollout that has not ended; whether a policy has to be written for it."""
        now = self._clock()
        with transaction(self._database, namespace) as stores:
            unended = stores.registry.rollouts(unended=True)
        changed = False
        for each in unended:
            if each.state not in MOVES_BY_ITSELF:
                continue
            with self._leading(namespace) as stores:
                rollout = stores.registry.rollout(each.id)  # as it is now: another may have begun meanwhile
                asks = rollout.state in {State.ADVANCING, State.ROLLING_BACK}
                published = asks and _is_published(stores, rollout.model)
                try:
                    after = follow(stores.registry, stores.fleet, rollout, published=published, now=now)
                except Conflict:
                    continue  # a person moved it meanwhile; look again next round
            if after.state is not rollout.state:
                log.info("rollout %s is %s: %s", after.id, after.state.value, after.because)
                changed |= after.state is State.ADVANCING
        return changed

    def _judge_experiments(self, namespace: str, *, at_once: bool) -> None:
        now = self._clock()
        with transaction(self._database, namespace) as stores:
            live = stores.experiments.all(live=True)
        alive = {experiment.id for experiment in live}
        for gone in [name for name in self._books if name not in alive]:
            del self._books[gone]
        for experiment in live:
            window = experiment.window_at(now)
            if self._judged.get(experiment.id) == window and not at_once:
                continue
            with self._leading(namespace) as stores:
                report_s = min(stores.registry.model(experiment.model).settings.report_s, experiment.plan.window_s())
                judge_silence(stores.fleet, experiment, report_s=report_s, now=now)
                try:
                    known = learn_delays(stores.fleet, experiment, save=stores.experiments.save, now=now)
                    said = advance_experiment(
                        known,
                        registry=stores.registry,
                        fleet=stores.fleet,
                        experiments=stores.experiments,
                        tag=uuid.uuid4().hex[:6],
                        now=now,
                        ledgers=self._books,
                    )
                except Conflict:
                    self._books.pop(experiment.id, None)
                    continue  # a person ended it meanwhile; look again next round
            self._judged[experiment.id] = window
            if said.move != "wait":
                log.info("experiment %s: %s: %s", experiment.id, said.move, said.because)

    def _write_policies(self, namespace: str) -> None:
        now = datetime.fromtimestamp(self._clock(), UTC)
        with self._leading(namespace) as stores:
            for model, document in _policies_to_write(stores):
                path = roles.policy_path(model)
                stores.roles.write_policy(model, {path: document}, signer=self._signers.policy, now=now)
            for name in stores.deltas.unlisted_models():
                stores.roles.write_policy(name, _indices(stores, name), signer=self._signers.policy, now=now)
                stores.deltas.set_listed(name)
            for record in stores.registry.models():
                stores.roles.renew_policy(record.name, signer=self._signers.policy, now=now)
            stores.roles.sign_snapshot_and_timestamp(self._signers, now=now)

    async def _publish(self, namespace: str) -> None:
        def files() -> tuple[int, list[tuple[str, bytes]]]:
            with transaction(self._database, namespace) as stores:
                newest, published = stores.roles.newest()[roles.TIMESTAMP], stores.roles.published_timestamp()
                return newest, stores.roles.files_since(published) if newest != published else []

        newest, waiting = await asyncio.to_thread(files)
        if not waiting:
            return
        await copy_files(self._blobs, namespace, waiting)

        def mark() -> None:
            with self._leading(namespace) as stores:
                stores.roles.set_published(newest)

        await asyncio.to_thread(mark)

    def _next_pair(self, namespace: str, only: str | None) -> tuple[str, Pair, int | None] | None:
        with transaction(self._database, namespace) as stores:
            registry = stores.registry
            for model in registry.models():
                if only not in {None, model.name}:
                    continue
                tried = stores.deltas.of(model.name)
                pairs = wanted_pairs(
                    model,
                    published=registry.published(model.name),
                    rollouts=registry.rollouts(model=model.name, live=True),
                    arms=[
                        serial
                        for experiment in stores.experiments.all(model=model.name, live=True)
                        for serial in experiment.serials.values()
                    ],
                    inventory=stores.fleet.inventory(model.name),
                    tried=tried,
                )
                stored = [p for p in pairs if registry.artifact_size(p.target) is not None]
                for pair in stored:
                    if pair.base == NOTHING or registry.artifact_size(pair.base) is not None:
                        whole = (d.size_bytes for d in tried if (d.base, d.target) == (NOTHING, pair.target))
                        return model.name, pair, next(whole, None)
        return None

    def _keep_delta(self, namespace: str, record: DeltaRecord) -> None:
        now = self._clock()
        with transaction(self._database, namespace) as stores:
            stores.deltas.add(record, at=now)
            if record.sha256 is not None:
                stores.registry.add_artifact(record.sha256, size_bytes=record.size_bytes, at=now)
        log.info(
            "%s: patch %s -> %s: %d bytes for %d%s",
            record.model,
            record.base[:12],
            record.target[:12],
            record.size_bytes,
            record.target_bytes,
            "" if record.sha256 else " (not worth keeping)",
        )

    def _settled(self) -> bool:
        with self._database.transaction() as connection:
            for namespace in namespaces(connection):
                stores = Stores(connection, namespace)
                if stores.deltas.unlisted_models() or not _is_published(stores):
                    return False
                if any(rollout.state is State.ADVANCING for rollout in stores.registry.rollouts(live=True)):
                    return False
        return True

    def _namespaces(self) -> list[str]:
        with self._database.transaction() as connection:
            return namespaces(connection)

    def leads_now(self) -> bool:
        """Whether this process is the leader, as far as it knows."""
        return self._clock() < self._leads_until

    def _lead(self) -> bool:
        now = self._clock()
        if now < self._leads_until - _LEASE_LIFE_S / 2:
            return True
        with self._database.transaction() as connection:
            leads = take_lease(connection, _LEASE, holder=self._holder, now=now, life_s=_LEASE_LIFE_S)
        self._leads_until = now + _LEASE_LIFE_S if leads else 0.0
        return leads

    @contextmanager
    def _leading(self, namespace: str) -> Iterator[Stores]:
        """One transaction of the leader. Raises `_LeadLost` where another server leads now."""
        with transaction(self._database, namespace) as stores:
            self._hold(stores.connection)
            yield stores

    def _hold(self, connection: Connection) -> None:
        now = self._clock()
        if not take_lease(connection, _LEASE, holder=self._holder, now=now, life_s=_LEASE_LIFE_S):
            self._leads_until = 0.0
            raise _LeadLost("another server leads now, and does the rest")
        self._leads_until = now + _LEASE_LIFE_S

    def _resign(self) -> None:
        self._leads_until = 0.0
        with suppress(WhimbrelError), self._database.transaction() as connection:
            drop_lease(connection, _LEASE, holder=self._holder)


def _is_published(stores: Stores, model: str | None = None) -> bool:
    """Whether the files that devices fetch say of a model (of every one) what its rows say."""
    copied = stores.roles.published_timestamp() == stores.roles.newest().get(roles.TIMESTAMP)
    return copied and stores.roles.snapshot_is_current() and not _policies_to_write(stores, only=model)


def _indices(stores: Stores, model: str) -> dict[str, bytes]:
    """The delta index of every release of a model that any patch leads to, by its path."""
    tried = stores.deltas.of(model)
    indices = {}
    for version, release in stores.registry.published(model):
        index = write_index(release, tried)
        if index.steps:
            indices[roles.deltas_path(model, version.serial)] = encode(index)
    return indices


def _policies_to_write(stores: Stores, *, only: str | None = None) -> list[tuple[str, bytes]]:
    """Every model whose signed policy differs from what its rows say, with the document to sign."""
    registry = stores.registry
    waiting = []
    for model in registry.models():
        if only not in {None, model.name}:
            continue
        held = stores.roles.current_target(roles.policy_role(model.name), roles.policy_path(model.name))
        current = parse(Policy, held, what=f"the policy of {model.name}") if held else None
        sequence = current.sequence if current else 0
        wanted = render_policy(
            model,
            versions=registry.versions(model.name),
            rollouts=registry.rollouts(model=model.name, unended=True),
            quarantine=registry.quarantines(model.name),
            sequence=max(1, sequence),
            overrides=registry.overridden(model.name),
            experiments=stores.experiments.all(model=model.name, live=True),
        )
        if wanted != current:
            waiting.append((model.name, encode(msgspec.structs.replace(wanted, sequence=sequence + 1))))
    return waiting
