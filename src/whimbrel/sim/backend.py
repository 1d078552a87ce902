"""The real server on an in-memory database, and the people who use it.

1. The registry, the signed metadata, the device API with its group commit, the flows that the admin API calls, and the
   controllers are the product's own. Only the file store is modelled: a dictionary that the edge serves.
2. Everything runs in one thread: what the server would give to a thread is done at once.
3. A person publishes, starts, pauses and ends rollouts and experiments, and takes versions back; a publisher raises the
   floor. In some worlds rollouts begin in the shadow, or versions are alike and get patches.
"""

import asyncio
import gzip
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from sqlalchemy import Connection, StaticPool, create_engine

from whimbrel import limits
from whimbrel.delta.codec import encode_bytes
from whimbrel.errors import Refused, Unavailable, WhimbrelError
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.flows.experiments.advance import PersonAct, act_by_person
from whimbrel.flows.experiments.start import start_experiment
from whimbrel.flows.ports import Taken
from whimbrel.flows.publishing.accept_version import accept_version
from whimbrel.flows.publishing.add_model import add_model
from whimbrel.flows.publishing.build_deltas import DeltaRecord, worth_keeping
from whimbrel.flows.publishing.publish import identify, write_release
from whimbrel.flows.publishing.set_line import set_line
from whimbrel.flows.records import ExperimentRecord, ModelSettings, RolloutRecord
from whimbrel.flows.reports.proven import unproven_name
from whimbrel.flows.rollouts.move import PersonMove, move_by_person
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.health.tally import Cell
from whimbrel.model.documents import digest_of, encode, parse
from whimbrel.model.release import File, Line, Release, Training, Variant
from whimbrel.model.selector import Selector
from whimbrel.model.ways import NOTHING
from whimbrel.plan.experiment import Experiment, ExperimentVariant
from whimbrel.plan.plan import Plan, Rollback, Stage
from whimbrel.policy.policy import Conditions, Policy
from whimbrel.policy.shadow import ShadowStage
from whimbrel.server.auth import DeviceTokens, Gatekeeper
from whimbrel.server.bounded_acts import BoundedActs
from whimbrel.server.controllers import Controllers
from whimbrel.server.device_api import DeviceApi
from whimbrel.server.http import problem
from whimbrel.server.intake import Intake
from whimbrel.sim.checkers import cohort_key_of
from whimbrel.sim.inline_loop import InlineLoop
from whimbrel.sim.world import ACTIVATE_MAX_AGE_S, HOUR_S, MODEL, NAMESPACE, REFRESH_S, REPORT_S, Timeline
from whimbrel.stores import schema
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database, translated
from whimbrel.stores.inbox_table import InboxTable
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.stores.tuf_repository import delegate_model, first_metadata, publish_documents
from whimbrel.trust import roles

ENROL_TOKEN = "simulated-enrol-token"  # noqa: S105 (it opens a world that is played)
_COMPILED: dict[Any, Any] = {}  # SQL text by statement: the same in all worlds of a process
HARDWARE = ("board-a", "board-b", "board-c")


class _Database(Database):
    """A database in memory with one connection, because a new one would cost more than most transactions."""

    def __init__(self) -> None:
        super().__init__("sqlite://")
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None})
        self._connection = self.engine.connect().execution_options(compiled_cache=_COMPILED)
        schema.metadata.create_all(self._connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        sqlite: Any = self._connection.connection.driver_connection
        sqlite.execute("BEGIN IMMEDIATE")
        try:
            with translated():
                yield self._connection
        except BaseException:
            sqlite.execute("ROLLBACK")
            raise
        sqlite.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()
        super().close()


class Edge(Blobs):
    """The static files that the server copied, and all timestamps that it ever copied."""

    def __init__(self, timeline: Timeline) -> None:
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.timestamps: list[tuple[float, bytes]] = []
        self.fails = False
        self._timeline = timeline

    async def put(self, path: str, content: bytes) -> None:
        if self.fails:
            raise Unavailable("the store does not answer")
        self.keep(path, content)

    def keep(self, path: str, content: bytes) -> None:
        """Serve `content` at `path`."""
        self.files[path] = content
        self.tags[path] = f'"{digest_of(content)[:16]}"'
        if path.endswith("/timestamp.json"):
            self.timestamps.append((self._timeline.now, content))


class Inbox(InboxTable):
    """The inbox table. With `forgets_done` it acts as a process that is killed before it removes tallied messages."""

    forgets_done = False

    async def done(self, taken: Taken) -> None:
        if self.forgets_done and taken.records:
            raise Unavailable("killed before the messages were removed")
        await super().done(taken)


class Published(msgspec.Struct, frozen=True):
    """A version and its quality: good, bad_probe (fails its probe), crashes, sometimes_crashes, drifts."""

    release: Release
    quality: str


class Backend:
    """The server of one world."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.chance = timeline.chance("person")
        self._gentle = timeline.chance("shadows")
        self._likes = timeline.chance("patches")
        self._asks = timeline.chance("experiments")
        self.shadows, self.patches = self._gentle.random() < 0.5, self._likes.random() < 0.5
        self._bodies: dict[tuple[str, int], bytes] = {}  # of the newest version, by variant and part
        self.up = True
        self.published: dict[int, Published] = {}
        self.leads_to: dict[str, str] = {}  # patches: the artifact that each makes
        self.database = _Database()
        self.edge = Edge(timeline)
        self.inbox = Inbox(self.database)
        self._keys = {
            name: _signer(self.chance) for name in ("root", "targets", "publisher", "snapshot", "time", "policy")
        }
        keys = self._keys
        self._signers = OnlineSigners([keys["snapshot"], keys["time"], keys["policy"]])
        self.loop = InlineLoop()
        self.controllers = self._new_controllers()
        self._intake = Intake(self.inbox, written=lambda: None)
        self._writing = self.loop.create_task(self._intake.run())
        self._api = DeviceApi(
            self.database,
            DeviceTokens(self.chance.randbytes(32)),
            self._intake,
            clock=self._clock,
            gatekeeper=Gatekeeper(),
            acts=BoundedActs(self.database, clock=self._clock),
            draw_cohort_key=cohort_key_of,
        )
        self._set_up()

    def close(self) -> None:
        """Close the loop, the inbox and the database."""
        self._writing.cancel()
        self.loop.run_until_complete(asyncio.gather(self._writing, return_exceptions=True))
        self.loop.close()
        self.database.close()

    # --- what devices see ---

    def answer(self, name: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Answer a POST below `device/v1/` with the product's own handlers."""
        if not self.up:
            return 503, b""
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        scope = {"headers": [(b"authorization", headers.get("Authorization", "").encode())]}
        try:
            return self.loop.run_until_complete(self._api._handlers[name](scope, body, NAMESPACE))
        except WhimbrelError as error:
            status, answer, _ = problem(error)
            return status, answer

    # --- what the controllers do ---

    def waiting(self) -> tuple[DeviceMessage, ...]:
        """The messages that the next round will look at."""
        return self.loop.run_until_complete(self.inbox.take(10_000)).records

    def round(self) -> None:
        """One round of the controllers, and missing patches. Raises `Unavailable` where it was broken off."""
        self.loop.run_until_complete(self.controllers.round())
        if self.patches:
            self._make_patches()

    def _make_patches(self) -> None:
        """Make patches as `Controllers.build_deltas` does, without a process for each."""
        while (missing := self.controllers.deltas.next_missing(NAMESPACE, MODEL)) is not None:
            pair = missing.pair
            base = b"" if pair.base == NOTHING else self.edge.files[_artifact_path(pair.base)]
            content = encode_bytes(base, self.edge.files[_artifact_path(pair.target)])
            pays = worth_keeping(len(content), target_bytes=pair.target_bytes, whole_bytes=missing.whole_bytes)
            record = DeltaRecord(
                model=MODEL,
                base=pair.base,
                target=pair.target,
                target_bytes=pair.target_bytes,
                sha256=digest_of(content) if pays else None,
                size_bytes=len(content),
            )
            if record.sha256 is not None:
                self.edge.keep(_artifact_path(record.sha256), content)
                self.leads_to[record.sha256] = pair.target
            self.controllers.deltas.note_tried(NAMESPACE, record)

    def spoil_a_patch(self, *, lost: bool) -> None:
        """Damage a patch on the edge: from now on it is lost, or has other bytes of the same length."""
        if not self.leads_to:
            return
        path = _artifact_path(self._likes.choice(sorted(self.leads_to)))
        content = self.edge.files.pop(path, b"")
        if content and not lost:
            self.edge.keep(path, self._likes.randbytes(len(content)))

    def restart(self) -> None:
        """Let another process lead from now on."""
        self.controllers = self._new_controllers()

    def _clock(self) -> float:
        """The server's clock: the time of this world."""
        return self.timeline.now

    def _new_controllers(self) -> Controllers:
        return Controllers(self.database, self.edge, self.inbox, self._signers, clock=self._clock)

    # --- what is in the rows ---

    def rollouts(self) -> list[RolloutRecord]:
        """All of them, oldest first."""
        with transaction(self.database, NAMESPACE) as stores:
            return stores.registry.rollouts()

    def live(self) -> RolloutRecord | None:
        """The rollout that is live. None where none is."""
        return next((rollout for rollout in self.rollouts() if rollout.live), None)

    def cells(self, rollout: str) -> list[Cell]:
        """A rollout's tally, of all devices: some enrolled after it began, and are tallied apart."""
        with transaction(self.database, NAMESPACE) as stores:
            names = rollout, unproven_name(rollout)
            return [cell for name in names for cell in stores.fleet.cells(name, before_window=10**9)]

    def documents(self) -> tuple[Policy, Line]:
        """The signed policy and line, as they are now."""
        with transaction(self.database, NAMESPACE) as stores:
            policy = stores.roles.current_target(roles.policy_role(MODEL), roles.policy_path(MODEL)) or b""
            line = stores.roles.current_target(roles.publisher_role(MODEL), roles.line_path(MODEL)) or b""
        return parse(Policy, policy, what="the policy"), parse(Line, line, what="the line")

    # --- what people do ---

    @property
    def _today(self) -> datetime:
        return datetime.fromtimestamp(self.timeline.now, UTC)

    def _set_up(self) -> None:
        keys, now = self._keys, self._today
        root, targets = first_metadata(
            root=keys["root"],
            targets=keys["targets"],
            snapshot=keys["snapshot"].public_key,
            timestamp=keys["time"].public_key,
            now=now,
        )
        self.root = root.to_bytes()
        settings = ModelSettings(
            refresh_s=REFRESH_S,
            rollout_refresh_s=REFRESH_S,  # ten times the looks would be ten times the work, and no other world
            report_s=REPORT_S,
            activate_max_age_s=ACTIVATE_MAX_AGE_S,
            report_labels=("hardware",),
            conditions=Conditions(
                start_jitter_s=self.chance.choice([0.0, 0.0, 120.0]), charging=self.chance.random() < 0.4
            ),
            on_revoked=self.chance.choice(["keep", "keep", "stop"]),
            delta_bases=1,
        )
        line = encode(Line(model=MODEL, sequence=1))
        with transaction(self.database, NAMESPACE) as stores:
            terms = EnrolTokenTerms(rate_per_min=limits.ENROLMENTS_A_MINUTE_MAX)
            stores.enrolments.add_token("all", [ENROL_TOKEN], terms=terms, at=self.timeline.now)
            stores.roles.add_role(roles.ROOT, root, content=self.root)
            stores.roles.add_role(roles.TARGETS, targets)
            add_model(
                stores.registry,
                stores.roles,
                MODEL,
                targets=delegate_model(
                    stores.roles.role_bytes(roles.TARGETS),
                    MODEL,
                    publisher=keys["publisher"].public_key,
                    policy=keys["policy"].public_key,
                    signer=keys["targets"],
                    now=now,
                ),
                publisher=publish_documents(None, {roles.line_path(MODEL): line}, signer=keys["publisher"], now=now),
                line=line,
                salt=self.chance.randrange(2**40),
                settings=settings,
                now=self._clock(),
            )
        self.publish("good")
        self.round()

    def publish(self, quality: str) -> int:
        """The next version; its bytes say what it is like."""
        with transaction(self.database, NAMESPACE) as stores:
            before = stores.registry.versions(MODEL)
            variants = []
            for name, selector in (("a", Selector(match_labels={"hardware": HARDWARE[0]})), ("any", Selector())):
                files = []
                for part in range(self.chance.choice([1, 1, 2])):
                    head = f"{quality}\n{len(before) + 1} {name} {part}\n".encode()
                    content = head + self._body(name, part)
                    digest = digest_of(content)
                    self.edge.keep(_artifact_path(digest), content)
                    stores.registry.add_artifact(digest, size_bytes=len(content), at=self.timeline.now)
                    place = "" if part == 0 else "weights/"  # beside the entry, as weights of a Hugging Face folder are
                    path = f"{place}part-{part}.onnx"
                    files.append(File(name=path, size_bytes=len(content), sha256=digest, format="onnx"))
                variants.append(Variant(name=name, files=tuple(files), selector=selector))
            identity = identify(before, variants=variants, version=None, semantic_version=None, now=self._today)
            release = write_release(
                MODEL, identity, variants=variants, training=Training(), metrics={}, changelog=(), now=self._today
            )
            publisher = self._sign(stores, {roles.release_path(MODEL, release.serial): encode(release)})
            accept_version(
                stores.registry,
                stores.roles,
                MODEL,
                release=encode(release),
                publisher=publisher,
                now=self._clock(),
            )
        self.published[release.serial] = Published(release, quality)
        return release.serial

    def _body(self, variant: str, part: int) -> bytes:
        """The bytes of a version's file: any bytes, or a few bytes different from the version before."""
        body = self.chance.randbytes(self.chance.randrange(400, 4000))
        before = self._bodies.get((variant, part))
        if self.patches and before is not None and self._likes.random() < 0.8:
            place = self._likes.randrange(len(before))
            body = before[:place] + self._likes.randbytes(self._likes.randrange(1, 40)) + before[place + 4 :]
        self._bodies[variant, part] = body
        return body

    def _sign(self, stores: Stores, documents: dict[str, bytes]) -> bytes:
        held = stores.roles.role_bytes(roles.publisher_role(MODEL))
        return publish_documents(held, documents, signer=self._keys["publisher"], now=self._today)

    def set_line(self, *, floor: int, revoked: tuple[int, ...]) -> None:
        """Publish a line: which versions may still run."""
        _, before = self.documents()
        line = encode(Line(model=MODEL, sequence=before.sequence + 1, minimum_serial=floor, revoked=revoked))
        with transaction(self.database, NAMESPACE) as stores:
            signed = self._sign(stores, {roles.line_path(MODEL): line})
            set_line(stores.registry, stores.roles, MODEL, line=line, publisher=signed, because="", now=self._clock())

    def start(self, serial: int) -> None:
        """Begin a rollout of `serial`."""
        shares = self.chance.choice([(20.0, 60.0, 100.0), (30.0, 100.0), (10.0, 50.0, 100.0)])
        stages = tuple(
            Stage(name=f"stage-{n}", target_percent=share, duration_hours=0 if share == 100 else 2)
            for n, share in enumerate(shares)
        )
        plan = Plan(
            model_version=self._version_name(serial),
            stages=(*self._in_the_shadow(), *stages),
            rollback=Rollback(health_check_interval_sec=REPORT_S),
            min_devices=2,
            holdback_percent=self.chance.choice([0.0, 10.0]),
        )
        with transaction(self.database, NAMESPACE) as stores:
            start_rollout(
                stores.registry,
                stores.fleet,
                plan,
                plan_text="",
                tag=self.chance.randbytes(3).hex(),
                hour_s=HOUR_S,
                actor="person",
                now=self.timeline.now,
            )

    def _version_name(self, serial: int) -> str:
        return f"{MODEL}@{self.published[serial].release.version}"

    def _in_the_shadow(self) -> tuple[Stage, ...]:
        if not self.shadows or self._gentle.random() < 0.4:
            return ()
        asked = ShadowStage(sample_percent=100, min_inputs=6, agreement_min=0.8)
        shares = self._gentle.choice([(50.0,), (30.0, 60.0)])
        return tuple(
            Stage(name=f"shadow-{n}", target_percent=share, duration_hours=1, shadow=asked)
            for n, share in enumerate(shares)
        )

    def experiment(self) -> ExperimentRecord | None:
        """The one that still has a say."""
        with transaction(self.database, NAMESPACE) as stores:
            return next(iter(stores.experiments.all(model=MODEL, live=True)), None)

    def compare(self, serial: int) -> None:
        """Begin an experiment: `serial` against the baseline, on a part of the devices."""
        share, low = self._asks.choice([0.5, 0.3]), self._asks.choice([0.0, 20.0])
        policy, _ = self.documents()
        if policy.baseline is None:
            return
        plan = Experiment(
            name="as they like",
            variants=(
                ExperimentVariant(id="control", model_version=self._version_name(policy.baseline)),
                ExperimentVariant(id="other", model_version=self._version_name(serial)),
            ),
            allocation={"control": 0.5, "other": share},
            range_percent=(low, self._asks.choice([60.0, 100.0])),
            primary_metric="crash_rate",
            minimum_sample_size=2,
            duration_days=1.0,
            check_interval_sec=REPORT_S,
        )
        with transaction(self.database, NAMESPACE) as stores, suppress(Refused):  # the baseline was taken back
            start_experiment(
                stores.registry,
                stores.experiments,
                plan,
                plan_text="",
                tag=self._asks.randbytes(3).hex(),
                salt=self._asks.randrange(2**40),
                hour_s=HOUR_S,
                actor="person",
                now=self.timeline.now,
            )
            self.timeline.occurred["experiment"] += 1

    def conclude(self, identifier: str, act: PersonAct) -> None:
        """Stop an experiment, keep the baseline, or ship what was compared with it."""
        with transaction(self.database, NAMESPACE) as stores, suppress(Refused):  # the arm was stopped meanwhile
            act_by_person(
                identifier,
                act,
                registry=stores.registry,
                fleet=stores.fleet,
                experiments=stores.experiments,
                tag="end",
                arm="other" if act == "ship" else None,
                because="as they like",
                actor="person",
                now=self.timeline.now,
            )

    def move(self, identifier: str, move: PersonMove) -> None:
        """Pause, resume, abort or roll back."""
        with transaction(self.database, NAMESPACE) as stores:
            move_by_person(
                stores.registry,
                stores.fleet,
                identifier,
                move,
                because="as they like",
                actor="person",
                now=self.timeline.now,
            )


def _artifact_path(digest: str) -> str:
    return f"{NAMESPACE}/artifacts/{digest}"


def _signer(chance: random.Random) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(chance.randbytes(32)))
