"""What the leader looks at now and then: roles that expire, signatures that wait, anchors, spikes of enrolments."""

from collections.abc import Callable

import pytest
from securesystemslib.signer import CryptoSigner
from sqlalchemy import delete

from support.rollouts_in_memory import audited, enrolled
from support.server_in_memory import MODEL, ServerInMemory
from support.values import quarantined
from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.flows.audit_chain import Anchor
from whimbrel.flows.publishing.set_floor import set_floor
from whimbrel.flows.publishing.set_line import set_line
from whimbrel.model.documents import convert, encode
from whimbrel.model.release import Floor, Line
from whimbrel.server.controllers.anchoring import Anchoring
from whimbrel.stores import audit_tables, schema
from whimbrel.stores.anchors import check_signature
from whimbrel.stores.floor_roles import delegate_floor, sign_floor
from whimbrel.stores.signer import load_signer
from whimbrel.trust import roles

HOUR_S, DAY_S = 3600.0, 86400.0
EXPIRES_S = 730 * DAY_S  # of the roles that people signed when the server was made


@pytest.fixture(autouse=True)
def leads(server: ServerInMemory) -> None:
    assert server.controllers.leader.take()


def forget(server: ServerInMemory) -> None:
    """Nothing was told yet: the next look tells it (again)."""
    with server.database.transaction() as connection:
        connection.execute(delete(schema.role_expiry))
        connection.execute(delete(audit_tables.audit))


# --- how often ---


def expiring(server: ServerInMemory) -> tuple[Callable[[], None], str]:
    server.clock.now += EXPIRES_S - DAY_S
    return lambda: server.controllers.expiry.warn("default"), "notice_expiry"


def drafted(server: ServerInMemory) -> tuple[Callable[[], None], str]:
    with server.stores() as stores:
        stores.registry.quarantine(quarantined(2, at=server.clock.now, because="it crashes"))
    return lambda: server.controllers.signatures.remind("default"), "draft_revocation"


@pytest.mark.parametrize(("begin", "period_s"), [(expiring, limits.EXPIRY_LOOK_S), (drafted, limits.SIGNATURES_LOOK_S)])
def test_the_leader_looks_once_a_period_and_at_once_where_its_clock_went_back(
    server: ServerInMemory, begin: Callable[[ServerInMemory], tuple[Callable[[], None], str]], period_s: float
) -> None:
    look, action = begin(server)

    def tells() -> bool:
        forget(server)
        look()
        return bool(audited(server, action))

    assert tells()
    server.clock.now += period_s - 0.5
    assert not tells()
    server.clock.now += 0.5
    assert tells()
    assert not tells()
    server.clock.now -= 1
    assert tells()


def test_a_look_is_of_one_namespace(server: ServerInMemory) -> None:
    server.clock.now += EXPIRES_S - DAY_S
    server.controllers.expiry.warn("other")
    assert audited(server, "notice_expiry") == []
    server.controllers.expiry.warn("default")
    assert audited(server, "notice_expiry") != []


@pytest.mark.parametrize("name", ["expiry", "signatures", "anchoring", "monitoring", "judging"])
def test_a_server_that_does_not_lead_writes_nothing(server: ServerInMemory, name: str) -> None:
    server.controllers.leader.resign()
    assert server.new_controllers().leader.take()
    looks: dict[str, Callable[[str], object]] = {
        "expiry": server.controllers.expiry.warn,
        "signatures": server.controllers.signatures.remind,
        "anchoring": anchoring(server, ["vault"]),
        "monitoring": server.controllers.monitoring.watch_models,
        "judging": server.controllers.judging.look_for_spike,
    }
    server.clock.now += 1
    with pytest.raises(Unavailable, match="another server leads now"):
        looks[name]("default")


# --- roles that expire ---


def test_people_hear_of_each_role_that_they_sign_before_it_expires(server: ServerInMemory) -> None:
    server.clock.now += EXPIRES_S - limits.EXPIRY_WARNING_S - 1
    server.controllers.expiry.warn("default")
    assert audited(server, "notice_expiry") == []
    server.clock.now += limits.EXPIRY_LOOK_S
    server.controllers.expiry.warn("default")
    told = audited(server, "notice_expiry")
    assert {entry.evidence["role"] for entry in told} == {"root", "targets", "publisher-wake"}
    assert {entry.actor for entry in told} == {"server"}


# --- what waits for an offline key ---


def remind(server: ServerInMemory) -> None:
    server.clock.now += limits.SIGNATURES_LOOK_S
    server.controllers.signatures.remind("default")


def test_a_version_that_only_the_policy_forbids_is_told_once_a_taking_back(server: ServerInMemory) -> None:
    remind(server)
    assert audited(server, "draft_revocation") == []
    at = server.clock.now
    with server.stores() as stores:
        stores.registry.quarantine(quarantined(2, at=at, because="it crashes"))
        version = stores.registry.version(MODEL, 2)
    for _ in range(2):
        remind(server)
    (entry,) = audited(server, "draft_revocation")
    assert (entry.model, entry.actor) == ("wake", "signatures")
    assert entry.because == (
        "2.0.0 was taken back (it crashes), and only the server's policy forbids it; sign its revocation with: "
        f"whimbrel version revoke {version.version} --model wake"
    )
    assert entry.evidence == {"monitor": "revocation", "version": version.version, "serial": 2, "at": at}


def test_two_versions_that_were_taken_back_are_told_each(server: ServerInMemory) -> None:
    server.publish()
    with server.stores() as stores:
        for serial in (2, 3):
            stores.registry.quarantine(quarantined(serial, at=server.clock.now, because=f"harm of {serial}"))
    remind(server)
    assert [entry.evidence["serial"] for entry in audited(server, "draft_revocation")] == [2, 3]


class Floors:
    """The floor of the model, and the key that signs it."""

    def __init__(self, server: ServerInMemory, *, days: int) -> None:
        self.server, self.days = server, days
        self.key = CryptoSigner.generate_ed25519()
        self._version = 0
        targets = load_signer(server.folder.offline_keys / "targets.pem")
        with server.stores() as stores:
            held = stores.roles.role_bytes(roles.TARGETS)
        self._sign(1, delegate_floor(held, MODEL, floor=self.key.public_key, signers=[targets], now=server.today))

    def sign(self, sequence: int) -> None:
        """Sign the floor anew: this line is the newest."""
        self._sign(sequence, None)

    def _sign(self, sequence: int, targets: bytes | None) -> None:
        self._version += 1
        floor = Floor(model=MODEL, sequence=sequence, days=self.days)
        document, role = sign_floor(floor, version=self._version, signers=[self.key], now=self.server.today)
        with self.server.stores() as stores:
            set_floor(
                stores.registry,
                stores.roles,
                MODEL,
                floor=document,
                role=role,
                targets=targets,
                actor="ana",
                now=self.server.clock.now,
            )


@pytest.fixture
def floors(server: ServerInMemory) -> Floors:
    return Floors(server, days=30)


def told_of_floor(server: ServerInMemory) -> list[str]:
    return [entry.because for entry in audited(server, "floor_expires")]


def test_a_floor_is_told_when_a_third_of_its_life_is_left_and_when_it_is_over(
    server: ServerInMemory, floors: Floors
) -> None:
    began = server.clock.now
    server.clock.now = began + 20 * DAY_S - limits.SIGNATURES_LOOK_S
    remind(server)
    assert told_of_floor(server) == []
    for _ in range(2):
        remind(server)
    (entry,) = audited(server, "floor_expires")
    assert entry.because == (
        "the floor of wake expires on 2026-01-31 00:00 UTC; without a fresh one devices take no new version; sign it "
        "anew with: whimbrel floor renew wake"
    )
    assert (entry.model, entry.actor) == ("wake", "signatures")
    assert entry.evidence == {"monitor": "floor", "expires_at": began + 30 * DAY_S, "line": 1}
    server.clock.now = began + 31 * DAY_S
    floors.sign(1)
    server.clock.now += 31 * DAY_S
    remind(server)
    assert told_of_floor(server)[1].startswith("the floor of wake expired on 2026-03-03 00:00 UTC; ")


def test_a_floor_of_an_older_line_is_told_at_once(server: ServerInMemory, floors: Floors) -> None:
    remind(server)
    assert told_of_floor(server) == []
    line = encode(Line(model=MODEL, sequence=2, revoked=(2,)))
    signed = server.signed(MODEL, {roles.line_path(MODEL): line})
    with server.stores() as stores:
        set_line(stores.registry, stores.roles, MODEL, line=line, publisher=signed, because="", now=server.clock.now)
    remind(server)
    (because,) = told_of_floor(server)
    assert because.startswith("the floor of wake is of line 1, and line 2 holds; without a fresh one devices take no")
    floors.sign(2)
    remind(server)
    assert len(told_of_floor(server)) == 1


# --- anchors of the audit log ---


def anchoring(server: ServerInMemory, names: list[str], *, period_s: float = DAY_S) -> Callable[[str], None]:
    """A look of a controller of anchors, for receivers of these names."""
    made = Anchoring(
        server.controllers.leader,
        server.signers,
        asking=lambda: names,
        period_s=period_s,
        clock=server.clock,
    )
    return made.anchor


def introduce(server: ServerInMemory, *names: str) -> None:
    with server.stores() as stores:
        stores.alerts.introduce(names, now=server.clock.now)


def anchors(server: ServerInMemory) -> int:
    return len(audited(server, "anchor_audit_log"))


def test_an_anchor_is_signed_over_the_newest_entry_and_names_its_hash(server: ServerInMemory) -> None:
    introduce(server, "vault")
    with server.stores() as stores:
        sequence, newest = stores.audit.head()
        root = stores.roles.role_bytes(roles.ROOT)
    anchoring(server, ["vault"])("default")
    (entry,) = audited(server, "anchor_audit_log")
    assert entry.because == (
        f"entry {sequence} has the hash {newest}; keep this where nobody can write who can write the database"
    )
    assert (entry.actor, entry.evidence["sequence"], entry.evidence["hash"]) == ("controller", sequence, newest)
    check_signature(convert(Anchor, entry.evidence, what="an anchor"), root)


def test_no_anchor_is_written_where_nobody_asks_or_none_would_be_sent(server: ServerInMemory) -> None:
    introduce(server, "vault")
    anchoring(server, [])("default")
    anchoring(server, ["another"])("default")
    assert anchors(server) == 0
    anchoring(server, ["another", "vault"])("default")
    assert anchors(server) == 1


def test_an_anchor_is_written_once_a_period(server: ServerInMemory) -> None:
    introduce(server, "vault")
    anchor = anchoring(server, ["vault"], period_s=HOUR_S)
    counts = []
    for step_s in (
        0,
        limits.AUDIT_ANCHOR_LOOK_S,
        HOUR_S - limits.AUDIT_ANCHOR_LOOK_S - 0.5,
        limits.AUDIT_ANCHOR_LOOK_S,
    ):
        server.clock.now += step_s
        anchor("default")
        counts.append(anchors(server))
    assert counts == [1, 1, 1, 2]


def test_whether_an_anchor_is_due_is_asked_every_few_seconds(server: ServerInMemory) -> None:
    anchor = anchoring(server, ["vault"])
    anchor("default")
    introduce(server, "vault")
    anchor("default")
    assert anchors(server) == 0
    server.clock.now += limits.AUDIT_ANCHOR_LOOK_S - 0.5
    anchor("default")
    assert anchors(server) == 0
    server.clock.now += 0.5
    anchor("default")
    assert anchors(server) == 1


# --- spikes of enrolments ---


def spike(server: ServerInMemory, name: str) -> None:
    """More devices than usual enrol within the last hour."""
    enrolled(server, *(f"{name}-{number}" for number in range(limits.SPIKE_DEVICES)), at=server.clock.now - 1)


def look(server: ServerInMemory) -> list[str]:
    server.controllers.judging.look_for_spike("default")
    return [entry.because for entry in audited(server, "notice_enrolments")]


def test_a_spike_of_enrolments_is_told_once_until_it_is_over(
    server: ServerInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled(server, "old", at=server.clock.now - 20 * DAY_S)
    assert look(server) == []
    spike(server, "new")
    assert look(server) == []  # it was looked at just now
    server.clock.now += limits.SPIKE_LOOK_S - 0.5
    assert look(server) == []
    server.clock.now += 0.5
    (because,) = look(server)
    assert because.startswith("50 devices enrolled with a shared token within the last hour, and 0 at most in an hour")
    assert [each.getMessage() for each in caplog.records] == [f"default: {because}"]
    server.clock.now += limits.SPIKE_LOOK_S
    assert look(server) == [because]
    server.clock.now += 15 * DAY_S  # it is over, and forgotten
    assert look(server) == [because]
    enrolled(server, *(f"more-{number}" for number in range(limits.SPIKE_DEVICES)), at=server.clock.now)
    server.clock.now += limits.SPIKE_LOOK_S
    assert len(look(server)) == 2


def test_a_new_leader_tells_of_a_spike_once_more(server: ServerInMemory) -> None:
    enrolled(server, "old", at=server.clock.now - 20 * DAY_S)
    spike(server, "new")
    assert len(look(server)) == 1
    server.controllers.leader.resign()
    server.controllers = server.new_controllers()
    assert len(look(server)) == 2
