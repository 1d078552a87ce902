"""The stores on SQLite in memory: what is written comes back, in order, within its bound, and in its namespace "
"alone."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.values import T0, Town, model, quarantined, release, rollout, town, version
from whimbrel import limits
from whimbrel.errors import Conflict, NotFound
from whimbrel.flows.accounts.permissions import Role
from whimbrel.flows.accounts.records import AccountRecord, TokenRecord
from whimbrel.flows.alerts import EarlierAlert
from whimbrel.flows.device_records import RunningVersion, UserReportRecord
from whimbrel.flows.publishing.build_deltas import DeltaRecord
from whimbrel.flows.records import ApprovalRecord, AuditRecord, RoleExpiry, VerdictRecord
from whimbrel.model.documents import encode
from whimbrel.model.ways import Step
from whimbrel.plan.rollout_states import State
from whimbrel.stores.alerts import AlertDelivery
from whimbrel.stores.transaction import Stores

DAY = 86400.0


@pytest.fixture
def here() -> Iterator[Town]:
    with town() as made:
        yield made


@pytest.fixture
def other(here: Town) -> Stores:
    """Another namespace, in the same database."""
    return Stores(here.stores.connection, "other")


# --- accounts and tokens ---


def token(identifier: str, **changes: Any) -> TokenRecord:
    fields = {
        "id": identifier,
        "name": f"name-{identifier}",
        "account": "ada",
        "kind": "person",
        "roles": (Role.VIEWER,),
    }
    times = {"source": "made", "created_at": T0, "created_by": "admin"}
    return TokenRecord(**fields | times | changes)


@pytest.fixture
def ada(here: Town) -> Town:
    here.stores.accounts.add_account(AccountRecord(name="ada", kind="person", created_at=T0))
    return here


def test_a_token_is_good_by_its_secret_in_its_namespace_until_its_end(ada: Town, other: Stores) -> None:
    accounts = ada.stores.accounts
    made = token("a", roles=(Role.ADMIN, Role.VIEWER), expires_at=T0 + 10)
    accounts.add_token(made, secret="s" * 32)
    assert accounts.signed_in("s" * 32, now=T0 + 9.9) == made
    assert accounts.signed_in("s" * 32, now=T0 + 10) is None
    assert accounts.signed_in("t" * 32, now=T0) is None
    assert other.accounts.signed_in("s" * 32, now=T0) is None
    assert other.accounts.tokens() == []


def test_when_a_token_was_used_is_known_to_five_minutes(ada: Town) -> None:
    accounts = ada.stores.accounts
    accounts.add_token(token("a"), secret="s")
    used = []
    for at in (T0, T0 + 299, T0 + 300, T0 + 300.1, T0 + 600.1, T0 + 600.2):
        accounts.signed_in("s", now=at)
        used.append(accounts.token("a", now=at).used_at)
    assert used == [T0, T0, T0, T0 + 300.1, T0 + 300.1, T0 + 600.2]


def test_a_token_is_found_by_its_id_or_by_its_name_while_it_is_good(ada: Town) -> None:
    accounts = ada.stores.accounts
    accounts.add_token(token("old", name="ci", revoked_at=T0), secret="1")
    accounts.add_token(token("new", name="ci", expires_at=T0 + 5), secret="2")
    accounts.add_token(token("ci", name="x"), secret="3")
    assert accounts.token("ci", now=T0).id == "ci"  # an id goes before a name
    assert accounts.token("old", now=T0).revoked_at == T0
    assert accounts.token("x", now=T0).id == "ci"
    with pytest.raises(NotFound) as absent:
        accounts.token("name", now=T0)
    assert str(absent.value) == "there is no token 'name' that is good; see: whimbrel token list"
    accounts.add_token(token("gone", name="gone", expires_at=T0), secret="4")
    with pytest.raises(NotFound):
        accounts.token("gone-name", now=T0)
    assert accounts.count_live(now=T0) == 2
    assert accounts.count_live(now=T0 + 5) == 1


def test_sessions_that_are_long_over_are_forgotten_with_the_next_token(ada: Town) -> None:
    accounts = ada.stores.accounts
    for name, source, expires_at in (
        ("month", "sign-in", T0 - 30 * DAY),
        ("older", "sign-in", T0 - 30 * DAY - 1),
        ("made", "made", T0 - 99 * DAY),
    ):
        accounts.add_token(token(name, source=source, expires_at=expires_at, created_at=T0 - 99 * DAY), secret=name)
    accounts.add_token(token("new"), secret="new")
    assert {each.id for each in accounts.tokens()} == {"month", "made", "new"}


def test_an_account_is_bound_to_one_person_of_the_provider(ada: Town, other: Stores) -> None:
    accounts = ada.stores.accounts
    with pytest.raises(Conflict, match="there is an account 'ada' already; look again"):
        accounts.add_account(AccountRecord(name="ada", kind="machine", created_at=T0))
    accounts.bind("ada", issuer="i", subject="s")
    assert accounts.account_of(issuer="i", subject="s") == AccountRecord(
        name="ada", kind="person", created_at=T0, issuer="i", subject="s"
    )
    assert accounts.account_of(issuer="i", subject="t") is accounts.account_of(issuer="j", subject="s") is None
    assert other.accounts.account("ada") is other.accounts.account_of(issuer="i", subject="s") is None
    with pytest.raises(Conflict, match="ada is the account of another person of the provider"):
        accounts.bind("ada", issuer="i", subject="s")


def test_a_nonce_is_taken_once_and_of_too_many_the_oldest_goes(
    here: Town, other: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIGN_INS_PENDING", 3)
    accounts = here.stores.accounts
    for number in range(4):
        accounts.add_nonce(f"n{number}", at=T0 + number, made_after=0.0)
    assert not other.accounts.take_nonce("n3", made_after=0.0)
    assert [accounts.take_nonce(f"n{number}", made_after=T0 + 2) for number in range(4)] == [False, False, True, True]
    assert not accounts.take_nonce("n3", made_after=0.0)
    assert accounts.take_nonce("n1", made_after=0.0)
    accounts.add_nonce("old", at=T0, made_after=0.0)
    accounts.add_nonce("new", at=T0 + 9, made_after=T0 + 1)
    assert not accounts.take_nonce("old", made_after=0.0)


# --- alerts ---


def entry(action: str, *, at: float = T0, **changes: Any) -> AuditRecord:
    return AuditRecord(namespace="default", at=at, actor="a", action=action, because="b", **changes)


def test_entries_that_may_be_alerts_come_oldest_first_and_once(
    here: Town, other: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        entry("hold", rollout="r1", model="wake", evidence={"x": 1}),
        entry("hold"),  # about nothing
        entry("approve", rollout="r1"),
        entry("experiment ship", rollout="e1"),
        entry("notice_duplicate", device="d"),
        entry("notice_duplicate", rollout="r1"),
        entry("recover", model="wake"),
        entry("renew_role"),
        entry("change keys"),
        entry("hold", rollout="r1", at=T0 - limits.ALERT_HORIZON_S),
        entry("pause", rollout="r1", at=T0 - limits.ALERT_HORIZON_S + 1),
    ]
    for each in told:
        here.registry.write_audit(each)
    here.registry.audit_log()  # they are written
    found = here.stores.alerts.entries(now=T0, without=())
    assert [each for _, each in found] == [told[place] for place in (0, 3, 4, 6, 7, 8, 10)]
    first, second = found[0][0], found[1][0]
    assert here.stores.alerts.entry(first) == told[0]
    monkeypatch.setattr(limits, "ALERTS_A_ROUND", 2)
    assert [number for number, _ in here.stores.alerts.entries(now=T0, without={first})] == [second, found[2][0]]
    assert here.stores.alerts.entries(now=T0, without={number for number, _ in found}) == []
    assert other.alerts.entries(now=T0, without=()) == []


def delivery(audit_id: int, **changes: Any) -> AlertDelivery:
    fields = {"receiver": "team", "audit_id": audit_id, "rollout": "r1", "event": "held", "stage": 0, "at": T0}
    return AlertDelivery(**fields | {"state": "waiting", "tries": 0, "next_at": T0, "said": ""} | changes)


def test_what_became_of_an_alert_is_kept_for_each_receiver(
    here: Town, other: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = here.stores.alerts
    rows = [delivery(2), delivery(1, next_at=T0 + 5), delivery(2, receiver="boss", stage=1), delivery(3, state="sent")]
    for row in rows:
        alerts.add(row)
    assert alerts.waiting(now=T0) == [rows[0], rows[2]] or alerts.waiting(now=T0) == [rows[2], rows[0]]
    assert [each.audit_id for each in alerts.waiting(now=T0 + 5)] == [1, 2, 2]
    assert [(each.audit_id, each.receiver) for each in alerts.newest(limit=3)] == [
        (3, "team"),
        (2, "boss"),
        (2, "team"),
    ]
    assert [alerts.has("boss", number) for number in (1, 2)] == [False, True]
    assert alerts.earlier("boss", "r1") == [EarlierAlert(receiver="boss", event="held", stage=1, at=T0)]
    assert alerts.earlier("boss", "r2") == []
    alerts.save(delivery(2, state="sent", tries=3, next_at=T0 + 9, said="200"))
    saved = {(each.audit_id, each.receiver): each for each in alerts.newest(limit=9)}
    assert saved[2, "team"] == delivery(2, state="sent", tries=3, next_at=T0 + 9, said="200")
    assert saved[2, "boss"] == rows[2]
    assert (other.alerts.newest(limit=9), other.alerts.waiting(now=T0 + 9), other.alerts.has("boss", 2)) == (
        [],
        [],
        False,
    )
    monkeypatch.setattr(limits, "ALERTS_A_ROUND", 1)
    assert [each.audit_id for each in alerts.waiting(now=T0 + 5)] == [1]


def test_a_receiver_is_new_once(here: Town, other: Stores) -> None:
    here.stores.alerts.introduce(["team", "boss"], now=T0)
    here.stores.alerts.introduce(["team", "late"], now=T0 + 5)
    assert here.stores.alerts.since() == {"team": T0, "boss": T0, "late": T0 + 5}
    assert other.alerts.since() == {}


# --- tickets, deltas, sealed versions, expiries ---


def test_tickets_are_kept_by_their_number_and_counted_by_device(here: Town, other: Stores) -> None:
    tickets = here.stores.tickets
    rows = [
        UserReportRecord(ticket=f"Z-{number}", model=name, device_id="d", serial=None, at=T0 + at, text=f"t{number}")
        for number, name, at in ((1, "wake", 5), (2, "wake", 5), (3, "wake", 1), (4, "nap", 9))
    ]
    for row in rows:
        tickets.file(row)
    tickets.file(UserReportRecord(ticket="Z-1", model="wake", device_id=None, serial=2, at=T0))
    assert tickets.count() == 4
    assert tickets.waiting(limit=3) == [rows[2], rows[0], rows[1]]
    assert tickets.newest(model="wake", limit=2) == [rows[0], rows[1]]
    tickets.decide("Z-1", fate="counted", at=T0 + 20)
    assert [tickets.counted_since("d", model="wake", since=T0 + since) for since in (20, 20.1)] == [True, False]
    assert not tickets.counted_since("e", model="wake", since=T0)
    assert not tickets.counted_since("d", model="nap", since=T0)
    tickets.decide("Z-3", fate="nowhere", at=T0 + 30)
    assert not tickets.counted_since("d", model="wake", since=T0 + 21)
    assert [each.ticket for each in tickets.waiting(limit=9)] == ["Z-2", "Z-4"]
    assert [tickets.is_filed(number) for number in ("Z-1", "Z-9")] == [True, False]
    assert (other.tickets.count(), other.tickets.waiting(limit=9), other.tickets.is_filed("Z-1")) == (0, [], False)
    tickets.heard("wake", at=T0)
    tickets.heard("wake", at=T0 + 7)
    assert here.fleet.user_reports_heard_at("wake") == T0 + 7
    assert here.fleet.user_reports_heard_at("nap") is other.fleet.user_reports_heard_at("wake") is None


def test_patches_are_noted_once_and_forgotten_with_either_end(here: Town, other: Stores) -> None:
    def patch(base: str, target: str, *, name: str = "wake", kept: bool = True) -> DeltaRecord:
        sha256 = "f" * 64 if kept else None
        return DeltaRecord(
            model=name, base=base, target=target, target_bytes=9, sha256=sha256, size_bytes=1, advice="x"
        )

    deltas = here.stores.deltas
    rows = [patch("a", "c"), patch("a", "b"), patch("b", "c", kept=False), patch("x", "y", name="nap", kept=False)]
    for row in rows:
        deltas.add(row, at=T0)
    deltas.add(patch("a", "b", kept=False), at=T0 + 1)
    assert deltas.of("wake") == [rows[1], rows[0], rows[2]]
    assert deltas.unlisted_models() == ["wake"]  # of the other nothing was kept
    deltas.set_listed("nap")
    assert deltas.unlisted_models() == ["wake"]
    deltas.set_listed("wake")
    assert (deltas.unlisted_models(), [each.listed for each in deltas.of("wake")]) == ([], [True] * 3)
    deltas.forget_target("b")
    assert [(each.base, each.target) for each in deltas.of("wake")] == [("a", "c")]
    assert (other.deltas.of("wake"), other.deltas.unlisted_models()) == ([], [])


def test_the_key_of_a_sealed_version_is_kept_as_it_came(here: Town, other: Stores) -> None:
    step = Step(base="b" * 64, target="a" * 64, target_bytes=9, sha256="c" * 64, size_bytes=1, sealed=True)
    sealed = here.stores.sealed
    sealed.add("wake", 1, release_key=b"one", steps=(), at=T0)
    sealed.add("wake", 2, release_key=b"two", steps=(step,), at=T0)
    sealed.add("wake", 2, release_key=b"again", steps=(), at=T0)
    sealed.add("nap", 2, release_key=b"nap", steps=(step,), at=T0)
    assert [sealed.release_key("wake", serial) for serial in (1, 2)] == [b"one", b"two"]
    assert sealed.steps("wake") == {1: (), 2: (step,)}
    assert sealed.unlisted_models() == ["nap", "wake"]
    sealed.set_listed("wake")
    assert sealed.unlisted_models() == ["nap"]
    sealed.set_release_key("wake", 2, b"anew")
    assert sorted(sealed.all_keys()) == [("nap", 2, b"nap"), ("wake", 1, b"one"), ("wake", 2, b"anew")]
    for store, serial in ((sealed, 3), (other.sealed, 1)):
        with pytest.raises(NotFound) as absent:
            store.release_key("wake", serial)
        assert str(absent.value) == (
            f"wake has no sealed version with serial {serial}; whoever has its files can open them"
        )
    assert other.sealed.all_keys() == []


def test_the_role_that_expires_first_is_first(here: Town, other: Stores) -> None:
    rows = [RoleExpiry(role=role, version=1, expires=T0 + at) for role, at in (("a", 9), ("b", 5), ("c", 5))]
    for row in rows:
        here.stores.role_expiries.save(row)
    assert here.stores.role_expiries.all() == [rows[1], rows[2], rows[0]]
    newer = RoleExpiry(role="a", version=2, expires=T0 + 1, warned_s=7.0)
    here.stores.role_expiries.save(newer)
    assert here.stores.role_expiries.first() == newer
    assert other.role_expiries.first() is None


# --- the registry ---


def test_a_model_that_is_not_there_says_which_are_and_how_to_make_it(here: Town, other: Stores) -> None:
    with pytest.raises(NotFound) as absent:
        here.registry.model("na p")
    assert str(absent.value) == "there is no model 'na p' (models: wake); make it with: whimbrel model add 'na p'"
    with pytest.raises(NotFound, match=r"\(models: none yet\)"):
        other.registry.model("wake")


def test_what_is_not_there_says_where_to_look(here: Town) -> None:
    for what, said in (
        (lambda: here.registry.rollout("r9"), "there is no rollout 'r9'; see: whimbrel rollout list"),
        (
            lambda: here.registry.version("wake", 9),
            "wake has no version with serial 9; see: whimbrel version list --model wake",
        ),
        (lambda: here.stores.experiments.one("e9"), "there is no experiment 'e9'; see: whimbrel experiment list"),
        (lambda: here.stores.inventory.device("d9"), "no device 'd9' is enrolled; see: whimbrel device list"),
    ):
        with pytest.raises(NotFound) as absent:
            what()
        assert str(absent.value) == said


def test_rollouts_come_oldest_first_by_what_is_asked(here: Town, other: Stores) -> None:
    here.registry.add_model(model(name="nap"))
    rows = [
        rollout(id="b", state=State.QUEUED, shares=()),
        rollout(id="a", state=State.RUNNING),
        rollout(id="c", state=State.COMPLETED, ended_at=T0, created_at=T0 - 1),
        rollout(id="d", state=State.HOLDING, model="nap"),
        rollout(id="e", state=State.ROLLING_BACK, created_at=T0 + 1),
    ]
    for row in rows:
        here.registry.add_rollout(row, plan_text="")

    def ids(**asked: Any) -> str:
        return "".join(each.id for each in here.registry.rollouts(**asked))

    assert (ids(), ids(model="wake"), ids(live=True), ids(unended=True), ids(model="wake", unended=True)) == (
        "cabde",
        "cabe",
        "ad",
        "abde",
        "abe",
    )
    assert other.registry.rollouts() == []
    with pytest.raises(Conflict, match="there is a rollout 'a' already"):
        here.registry.add_rollout(rows[1], plan_text="")


def test_a_rollout_is_written_by_who_looked_last(here: Town) -> None:
    before = rollout()
    here.registry.add_rollout(before, plan_text="")
    for changes in ({"state": State.PAUSED}, {"stage": 1, "shares": (1, 2)}):
        with pytest.raises(Conflict) as refused:
            here.registry.save_rollout(before, before=rollout(**changes))
        assert str(refused.value) == "rollout r1 was moved by somebody else meanwhile; look again"
    here.registry.save_rollout(rollout(because="new"), before=before)
    assert here.registry.rollout("r1").because == "new"


def test_quarantines_are_lifted_by_version_and_remembered(here: Town) -> None:
    for serial, because in ((2, "one"), (1, "other"), (2, "two")):
        here.registry.quarantine(quarantined(serial, because=because))
    here.registry.lift_quarantines("wake", 2, at=T0 + 5)
    assert [each.because for each in here.registry.quarantines("wake")] == ["other"]
    assert here.registry.overridden("wake") == [2]
    here.registry.quarantine(quarantined(2, because="three"))
    assert [each.because for each in here.registry.quarantines("wake")] == ["other", "three"]
    assert (here.registry.quarantines("nap"), here.registry.overridden("nap")) == ([], [])


def test_approvals_and_verdicts_come_in_the_order_in_which_they_were_given(here: Town) -> None:
    approvals = [
        ApprovalRecord(rollout="r1", stage=1, by=by, note="n", at=T0 - place) for place, by in enumerate("cab")
    ]
    verdicts = [
        VerdictRecord(rollout="r1", at=T0 - n, window=n, situation=b"x", move="wait", because="b", sha256="f" * 64)
        for n in range(3)
    ]
    for approval, verdict in zip(approvals, verdicts, strict=True):
        here.registry.add_approval(approval)
        here.registry.write_verdict(verdict)
    assert (here.registry.approvals("r1"), here.registry.verdicts("r1")) == (approvals, verdicts)
    assert (here.registry.approvals("r2"), here.registry.verdicts("r2")) == ([], [])


def test_versions_that_came_in_sets_name_their_leads_once(here: Town) -> None:
    here.registry.add_model(model(name="nap"))
    for place, (member, lead, target) in enumerate((("m1", "l1", 2), ("m2", "l1", 2), ("m3", "l2", 3))):
        if place != 1:
            here.registry.add_rollout(rollout(id=lead, model="nap", target=target + 5), plan_text="")
        here.registry.add_rollout(
            rollout(id=member, target=target, lead=lead, created_at=T0 + place, salt=1), plan_text=""
        )
    here.registry.add_rollout(rollout(id="alone"), plan_text="")
    told = [(each.serial, each.model, each.lead_serial) for each in here.registry.set_leads("wake")]
    assert told == [(2, "nap", 7), (3, "nap", 8)]
    assert here.registry.set_leads("nap") == []


# --- what nothing holds ---


def held(here: Town, digest: str) -> bool:
    return digest not in dict(here.registry.collectable(older_than=T0 + 1))


@pytest.mark.parametrize("holds", ["retired", "published", "baseline", "rollout", "device", "ended"])
def test_what_a_version_holds_as_long_as_it_may_run(here: Town, holds: str) -> None:
    digest = "9" * 64
    here.registry.add_artifact(digest, size_bytes=5, at=T0)
    record, document = version(3), release(3)
    here.registry.add_version(record, release=encode(document), digests=[digest])
    if holds != "published":
        here.registry.change_version("wake", 3, retired=True)
    if holds == "baseline":
        here.registry.change_model("wake", baseline=3)
    if holds in {"rollout", "ended"}:
        state = State.RUNNING if holds == "rollout" else State.COMPLETED
        here.registry.add_rollout(rollout(baseline=3, state=state), plan_text="")
    if holds == "device":
        here.fleet.note_running(RunningVersion(device_id="d", model="wake", serial=3, hardware_class="", at=T0))
    assert held(here, digest) is (holds not in {"retired", "ended"})


def test_a_patch_is_held_as_long_as_what_it_leads_to_is_there(here: Town) -> None:
    patch, target = "8" * 64, "7" * 64
    for digest in (patch, target):
        here.registry.add_artifact(digest, size_bytes=5, at=T0)
    here.stores.deltas.add(
        DeltaRecord(model="wake", base="b" * 64, target=target, target_bytes=5, sha256=patch, size_bytes=5), at=T0
    )
    assert (held(here, patch), held(here, target)) == (True, False)
    here.registry.forget_artifact(target)
    assert not held(here, patch)
