"""The deltas (patches) that should be there are built, beside the rounds. (Step 4 of the journey.)

Compares: the pairs of artifacts between which a patch should be there (`flows/publishing/build_deltas`) with those that
were tried.
Does: builds one patch after the other, whole files first, in a child process; stores the patch where it pays; and notes
in a row that the pair was tried, and with what result. The signed index follows in the next round (`publishing`).
Killed while it builds: nothing is noted, and the pair is tried again. Killed after the patch was stored and before it
was noted: it is built again, and stored under the name of its bytes.

What can go wrong, and what happens then:
1. An artifact is gone, or the encoder fails: the loop logs it, and tries again `_BUILD_PERIOD_S` later.
2. Two servers build the same patch (the lead moved while one was built, or a person asked for it): both store it, and
   the row of the first one stays. So building needs no lease, and a build that outlives the lead is not lost.
3. The encoder is not installed here (the extra `delta`): this server builds nothing, and devices fetch whole files.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from whimbrel.durable import trouble
from whimbrel.errors import Unavailable, WhimbrelError
from whimbrel.flows.publishing.build_deltas import DeltaRecord, Pair, wanted_pairs
from whimbrel.model.ways import NOTHING
from whimbrel.server.controllers.leader import Leader
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.deltas import build_delta, codec_is_installed
from whimbrel.stores.transaction import all_namespaces, transaction

log = logging.getLogger(__name__)

_BUILD_PERIOD_S = 2.0  # between looks for patches that are missing


class MissingDelta(msgspec.Struct, frozen=True):
    """A patch to try. `whole_bytes`: the size of the compressed whole file, where that was tried before."""

    model: str
    pair: Pair
    whole_bytes: int | None


class DeltaBuilding:
    """The controller that builds patches. It sets `wake` when the signed index has something new to list."""

    def __init__(
        self, leader: Leader, database: Database, blobs: Blobs, *, wake: asyncio.Event, clock: Callable[[], float]
    ) -> None:
        self._leader, self._database, self._blobs = leader, database, blobs
        self._wake, self._clock = wake, clock

    async def run(self) -> None:
        """Build what is missing, while this process leads, until cancelled."""
        while codec_is_installed():
            try:
                if await asyncio.to_thread(self._leader.leads_now):
                    for namespace in await asyncio.to_thread(all_namespaces, self._database):
                        await self.build_missing(namespace)
            except WhimbrelError as error:
                log.warning("a patch was not made: %s", error)
            except OSError as error:
                log.warning("%s", trouble(error, doing="making a patch"))
            except Exception:  # a bug must not end the loop for good
                log.exception("a patch was not made")
            await asyncio.sleep(_BUILD_PERIOD_S)

    async def build_missing(self, namespace: str, *, model: str | None = None) -> int:
        """Build what is missing now, of one model or of all (None). Returns how many patches were tried.

        Raises `Unavailable` where the codec is not installed here.
        """
        if not codec_is_installed():
            raise Unavailable("patches cannot be made here: pip install 'whimbrel[delta]'")
        tried = 0
        while (missing := await asyncio.to_thread(self.next_missing, namespace, model)) is not None:
            record = await build_delta(
                self._blobs, namespace, missing.model, missing.pair, whole_bytes=missing.whole_bytes
            )
            await asyncio.to_thread(self.note_tried, namespace, record)
            tried += 1
            self._wake.set()
        return tried

    def next_missing(self, namespace: str, only: str | None = None) -> MissingDelta | None:
        """The patch to try next, of one model or of any (None). None where no patch is missing."""
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
                for pair in (pair for pair in pairs if registry.artifact_size(pair.target) is not None):
                    if pair.base == NOTHING or registry.artifact_size(pair.base) is not None:
                        whole = (d.size_bytes for d in tried if (d.base, d.target) == (NOTHING, pair.target))
                        return MissingDelta(model.name, pair, next(whole, None))
        return None

    def note_tried(self, namespace: str, record: DeltaRecord) -> None:
        """Note that a patch was tried, and that its bytes are stored where it paid."""
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
