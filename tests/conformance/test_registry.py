"""One suite for the registry, the fleet and the signed roles, on every database."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from support.experiments import written
from support.values import EPOCH, T0, Town, cell, enrol, model, quarantined, release, rollout, seen, version
from whimbrel.errors import Conflict, NotAllowed, NotFound, UntrustedInput
from whimbrel.flows.device_records import FollowedModels, HeardDevice, Participation, RunningVersion, SequenceMark
from whimbrel.flows.devices.enrol import check_credential
from whimbrel.flows.records import AuditRecord, ExperimentRecord, ModelSettings
from whimbrel.gate.verdict import Counts
from whimbrel.health.device_window import DeviceWindow, Measured
from whimbrel.health.panel import Value
from whimbrel.health.tally import Cell, Moments
from whimbrel.model.documents import digest_of, encode
from whimbrel.plan.experiment_states import Phase
from whimbrel.plan.rollout_states import State
from whimbrel.stores.database import Database
from whimbrel.stores.enrolments import signed_key
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.registry import drop_lease, namespaces, take_lease
from whimbrel.stores.signer import CryptoSigner
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.stores.tuf_repository import SignedRoles, delegate_model, first_metadata, publish_documents
from whimbrel.trust.roles import PUBLISHER_LIFE

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def add(database: Database) -> None:
    with transaction(database, "default") as stores:
        here = Town(stores)
        here.registry.add_model(model())
        here.publish(1)
        here.publish(2)


# --- the registry ---


def test_records_come_back_as_they_were_written(database: Database) -> None:
    add(database)
    settings = ModelSettings(refresh_s=1.5, metrics_min={"accuracy": 0.5}, report_labels=("region",))
    with transaction(database, "default") as stores:
        registry = stores.registry
        registry.add_rollout(rollout(shares=(1, 2)), plan_text="text")
        registry.quarantine(quarantined(2))
        registry.write_audit(
            AuditRecord(namespace="default", at=T0, actor="me", action="x", because="é", evidence={"a": {"b": 1}})
        )
        registry.change_model("wake", settings=settings, baseline=2)
    with transaction(database, "default") as stores:
        registry = stores.registry
        assert registry.model("wake") == model(settings=settings, baseline=2)
        assert registry.versions("wake") == [version(1), version(2)]
        assert registry.release_bytes("wake", 2) == encode(release(2))
        assert registry.rollout("r1") == rollout(shares=(1, 2))
        assert registry.quarantines("wake") == [quarantined(2)]
        assert registry.audit_log()[0].evidence == {"a": {"b": 1}}


def test_a_rollout_is_watched_until_a_day_of_its_own_hours_after_it_ended(database: Database) -> None:
    add(database)
    with transaction(database, "default") as stores:
        for name, hour_s in (("of-days", 3600.0), ("of-seconds", 1.0)):
            ended = rollout(id=name, hour_s=hour_s, state=State.COMPLETED, ended_at=T0)
            stores.registry.add_rollout(ended, plan_text="")
        stores.registry.add_rollout(rollout(id="waits", state=State.QUEUED), plan_text="")
    with transaction(database, "default") as stores:

        def watched(later_s: float) -> list[str]:
            return [each.id for each in stores.registry.watched_rollouts("wake", now=T0 + later_s)]

        assert watched(23) == ["of-days", "of-seconds", "waits"]
        assert watched(25) == ["of-days", "waits"]
        assert watched(86401) == ["waits"]
        assert stores.registry.watched_rollouts("other", now=T0) == []


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with transaction(database, "default") as stores:
            stores.registry.add_model(model())
            stores.registry.model("sleep")

    with pytest.raises(NotFound):
        fail()
    with transaction(database, "default") as stores:
        assert stores.registry.models() == []


def test_what_exists_is_a_conflict(database: Database) -> None:
    add(database)
    with pytest.raises(Conflict, match="exists already"), transaction(database, "default") as stores:
        stores.registry.add_model(model())
    for same in ({"version": "2026.01.01.1"}, {"semantic_version": "1.0.0"}):
        with pytest.raises(Conflict, match="already"), transaction(database, "default") as stores:
            stores.registry.add_version(version(3, **same), release=b"{}", digests=())


def test_a_rollout_that_was_moved_meanwhile_is_a_conflict(database: Database) -> None:
    add(database)
    with transaction(database, "default") as stores:
        registry = stores.registry
        registry.add_rollout(rollout(), plan_text="")
        registry.save_rollout(rollout(state=State.PAUSED), before=rollout())
        with pytest.raises(Conflict, match="somebody else"):
            registry.save_rollout(rollout(stage=1), before=rollout())
        assert registry.rollout("r1").state is State.PAUSED


def test_experiments_come_back_and_are_changed_by_one_at_a_time(database: Database) -> None:
    add(database)
    begun = ExperimentRecord(
        namespace="default",
        id="e1",
        model="wake",
        plan=written(),
        phase=Phase.RUNNING,
        serials={"control": 1, "large": 2},
        hour_s=3600.0,
        created_at=T0,
        because="started",
        delays=(1.5, 2.0),
    )
    with transaction(database, "default") as stores:
        stores.experiments.add(begun, plan_text="text")
    with transaction(database, "default") as stores:
        rows = stores.experiments
        assert rows.one("e1") == begun
        with pytest.raises(Conflict, match="already"):
            rows.add(begun, plan_text="")
        stopped = msgspec.structs.replace(begun, stopped={"large": "it crashed"})
        rows.save(stopped, before=begun)
        with pytest.raises(Conflict, match="somebody else"):
            rows.save(msgspec.structs.replace(begun, phase=Phase.SHIPPED), before=begun)
        rows.save(msgspec.structs.replace(stopped, phase=Phase.KEPT), before=stopped)
        assert [each.phase for each in rows.all(model="wake")] == [Phase.KEPT]
        assert rows.all(live=True) == []
        assert Stores(stores.connection, "other").experiments.all() == []
        with pytest.raises(NotFound, match="whimbrel experiment list"):
            rows.one("e2")


def test_namespaces_do_not_meet(database: Database) -> None:
    add(database)
    with transaction(database, "other") as stores:
        other = stores.registry
        assert other.models() == []
        other.add_model(model(namespace="other", salt=7))
        assert Stores(stores.connection, "default").registry.model("wake").salt == 42


def test_aliases_move_and_go(database: Database) -> None:
    add(database)
    with transaction(database, "default") as stores:
        registry = stores.registry
        registry.set_alias("wake", "stable", 1)
        registry.set_alias("wake", "stable", 2)
        assert registry.aliases("wake") == {"stable": 2}
        registry.set_alias("wake", "stable", None)
        assert registry.aliases("wake") == {}


def test_only_artifacts_that_nothing_holds_are_collected(database: Database) -> None:
    add(database)
    with transaction(database, "default") as stores:
        registry, fleet = stores.registry, stores.fleet
        registry.add_artifact("a" * 64, size_bytes=5, at=T0)
        registry.add_artifact("b" * 64, size_bytes=6, at=T0)
        assert registry.collectable(older_than=T0) == []
        assert registry.collectable(older_than=T0 + 1) == [("b" * 64, 6)]
        for serial in (1, 2):
            registry.change_version("wake", serial, retired=True)
        assert ("a" * 64, 5) not in registry.collectable(older_than=T0 + 1)  # the baseline
        registry.change_model("wake", baseline=None)
        fleet.note_running(RunningVersion(device_id="dev-1", model="wake", serial=2, hardware_class="", at=T0))
        assert ("a" * 64, 5) not in registry.collectable(older_than=T0 + 1)  # a device
        fleet.note_running(RunningVersion(device_id="dev-1", model="wake", serial=None, hardware_class="", at=T0))
        registry.add_rollout(rollout(), plan_text="")
        assert ("a" * 64, 5) not in registry.collectable(older_than=T0 + 1)  # a live rollout
        registry.save_rollout(rollout(state=State.ABORTED), before=rollout())
        assert ("a" * 64, 5) in registry.collectable(older_than=T0 + 1)


def test_one_holds_the_lease_until_it_is_over_or_dropped(database: Database) -> None:
    with database.transaction() as connection:
        assert take_lease(connection, "leader", holder="a", now=T0, life_s=10)
        assert not take_lease(connection, "leader", holder="b", now=T0 + 9, life_s=10)
        assert take_lease(connection, "leader", holder="a", now=T0 + 9, life_s=10)
        assert take_lease(connection, "leader", holder="b", now=T0 + 20, life_s=10)
        drop_lease(connection, "leader", holder="a")
        assert not take_lease(connection, "leader", holder="a", now=T0 + 21, life_s=10)


# --- the fleet ---


def test_enrolling_again_replaces_the_credential_and_keeps_the_bucket(database: Database) -> None:
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        enrol(stores, "dev-1", labels={"a": "b"}, credential_sha256=digest_of(b"one"))
        ((key, labels),) = fleet.keys_and_labels("wake")
        enrol(stores, "dev-1", credential_sha256=digest_of(b"two"))
        check_credential(stores.enrolments.known("dev-1"), "two")
        assert (key, labels) == (10522668389010243576, {"a": "b"})
        assert list(fleet.keys_and_labels("wake")) == [(key, {})]
        for device, credential in (("dev-1", "one"), ("dev-2", "two")):
            with pytest.raises(NotAllowed, match="not enrolled with this credential"):
                check_credential(stores.enrolments.known(device), credential)
    assert signed_key("dev-1") < 0


def test_cells_add_up_by_key_and_come_in_order(database: Database) -> None:
    one = cell("treated", 1, n=2, latency={7: 3}, metrics={"accuracy": Moments(n=1, sum=0.5, sumsq=0.25)})
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        fleet.tally("r1", [one, one, cell("control", 0, n=1)])
        fleet.tally("r1", [one, cell("treated", 2, n=1)])
    with transaction(database, "default") as stores:
        first, second = stores.fleet.cells("r1", before_window=2)
        assert (first.window, second.at_risk, second.latency[7]) == (0, 6, 9)
        assert second.metrics["accuracy"] == Moments(n=3, sum=1.5, sumsq=0.75)


def test_counts_are_of_distinct_devices(database: Database) -> None:
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        for device, role, more in (
            ("a", "treated", {"activated_at": T0, "reported_at": T0}),
            ("b", "treated", {"outcome": "failed"}),
            ("c", "treated", {"activated_at": T0, "outcome": "went_back"}),
            ("d", "control", {"activated_at": T0}),
        ):
            entry = Participation(rollout="r1", stage=0, device_id=device, role=role, assigned_at=T0, **more)
            fleet.save_participation(entry)
            fleet.save_participation(msgspec.structs.replace(entry, hardware_class="x"))
        assert fleet.counts("r1") == {
            0: Counts(
                assigned_t=3,
                assigned_c=1,
                activated_t=2,
                placebo_c=1,
                reported_t=1,
                unused_t=1,
                failed_t=1,
                went_back_t=1,
            )
        }
        assert fleet.begun("r1", a_stage=9) == []
        assert fleet.first_silence("r1", activated_before=T0) == []


def test_a_first_report_is_asked_after_once_and_counted_by_group(database: Database) -> None:
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        for device, role, more in (
            ("a", "treated", {"activated_at": T0, "reported_at": T0}),
            ("b", "treated", {"activated_at": T0}),
            ("c", "treated", {"activated_at": T0 + 5}),
            ("d", "treated", {}),
            ("e", "control", {"activated_at": T0, "slices": {"os": "b"}}),
        ):
            fleet.save_participation(
                Participation(rollout="r1", stage=0, device_id=device, role=role, assigned_at=T0, **more)
            )
        looks = fleet.first_silence("r1", activated_before=T0 + 1)
        assert sorted((each.role, each.due, each.overdue, each.slices) for each in looks) == [
            ("control", 1, 1, {"os": "b"}),
            ("treated", 2, 1, {}),
        ]
        assert fleet.first_silence("r1", activated_before=T0 + 1) == []
        assert [each.due for each in fleet.first_silence("r1", activated_before=T0 + 6)] == [1]


def test_a_device_that_falls_silent_is_counted_once_and_by_its_habit(database: Database) -> None:
    def look(now: float) -> list[tuple[int, int, int]]:
        looks = stores.fleet.later_silence("r1", now=now, patience_s=900.0, age_edges_s=[3600.0, 10_800.0])
        return sorted((each.age_bucket, each.due, each.overdue) for each in looks)

    with transaction(database, "default") as stores:
        for device, more in (
            ("alive", {"heard_at": T0 + 1000, "hearing": "heard"}),
            ("dead", {"heard_at": T0 + 50, "hearing": "heard"}),
            ("seldom", {"heard_at": T0 + 50, "hearing": "heard", "gap_s": 3000.0}),
            ("older", {"heard_at": T0 + 1000, "hearing": "heard", "activated_at": T0 - 9000}),
            ("gone", {"heard_at": T0 + 50, "hearing": "left"}),
            ("never", {}),
            ("young", {"heard_at": T0 + 50, "hearing": "heard", "silence_judged": False}),
        ):
            values = {"activated_at": T0, "silence_judged": True} | more
            stores.fleet.save_participation(
                Participation(rollout="r1", stage=0, device_id=device, role="treated", assigned_at=T0, **values)
            )
        assert look(T0 + 950) == [(0, 3, 0), (1, 1, 0)]
        assert look(T0 + 951) == [(0, 3, 1), (1, 1, 0)]
        assert look(T0 + 1300) == [(0, 2, 0), (1, 1, 0)]
        assert look(T0 + 6051) == [(1, 2, 2), (2, 1, 1)]
        assert look(T0 + 9000) == []
        (missed,) = stores.fleet.participations(["r1"], ["dead"])
        assert (missed.hearing, missed.missed_at) == ("missed", T0 + 951)


def test_first_devices_of_each_stage_say_when_they_began(database: Database) -> None:
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        for stage, device, role, begun_at, more in (
            (0, "a", "treated", T0 + 3, {}),
            (0, "b", "treated", T0 + 1, {"activated_at": T0 + 9}),
            (0, "c", "treated", T0 + 2, {}),
            (0, "d", "treated", T0, {"outcome": "failed"}),
            (0, "e", "treated", None, {"activated_at": T0}),
            (0, "f", "control", T0, {}),
            (1, "g", "treated", T0, {}),
        ):
            fleet.save_participation(
                Participation(
                    rollout="r1", stage=stage, device_id=device, role=role, assigned_at=T0, begun_at=begun_at, **more
                )
            )
        assert fleet.begun("r1", a_stage=2) == [(T0 + 1, T0 + 9, ""), (T0 + 2, None, ""), (T0, None, "")]
        assert fleet.begun("r2", a_stage=2) == []


def test_what_a_device_told_in_the_open_window_is_kept_with_its_place(database: Database) -> None:
    told = DeviceWindow(
        window=7,
        role="treated",
        age_bucket=2,
        slices={"os": "a"},
        sessions=2**60,
        crashed=1,
        inferences=4,
        errors=1,
        metrics={"accuracy": Measured(n=3, sum=2.5)},
        latency=-7,
        timed=9,
        predictions={3: 4},
        shadow=seen(10),
        differences={"accuracy": -0.125},
    )
    with transaction(database, "default") as stores:
        place = Participation(rollout="r1", stage=0, device_id="a", role="treated", assigned_at=T0)
        later = msgspec.structs.replace(place, values={"crash": Value(n=2, total=1.0)}, device_window=told)
        for each in (place, later):
            stores.fleet.save_participation(each)
            assert stores.fleet.participations(["r1"], ["a"]) == [each]


def test_a_tally_that_changes_bring_below_zero_by_rounding_is_read_back(database: Database) -> None:
    """0.1 + 0.2 - 0.3 is a little more than nothing, and the other way round a little less."""
    sums = {"n": 0, "sum": 0.0}
    with transaction(database, "default") as stores:
        for share in (0.3, -0.1, -0.2, -1e-12):
            metrics = {"accuracy": Moments(**sums, sumsq=share)}
            stores.fleet.tally(
                "r1",
                [Cell(stage=0, window=1, role="treated", error_share=share, error_squares=share, metrics=metrics)],
            )
        (cell,) = stores.fleet.cells("r1", before_window=9)
        assert (cell.error_share, cell.error_squares, cell.metrics["accuracy"].sumsq) == (0.0, 0.0, 0.0)


def test_sequences_are_of_an_installation(database: Database) -> None:
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        newest, other = SequenceMark(2**53, T0, {2**53: "d" * 16, 7: "e" * 16}), SequenceMark(1)
        fleet.set_sequences({("dev-1", EPOCH): SequenceMark(7)})
        fleet.set_sequences({("dev-1", EPOCH): newest, ("dev-1", "f" * 16): other, ("dev-3", EPOCH): SequenceMark(3)})
        assert fleet.sequences(["dev-1", "dev-2"]) == {("dev-1", EPOCH): newest, ("dev-1", "f" * 16): other}


def test_more_devices_than_a_statement_may_name_are_asked_after(database: Database) -> None:
    devices = [f"dev-{number}" for number in range(1200)]
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        fleet.set_sequences({(device, EPOCH): SequenceMark(1) for device in devices})
        fleet.save_participation(
            *(Participation(rollout="r1", stage=0, device_id=each, role="control", assigned_at=T0) for each in devices)
        )
        assert len(fleet.sequences(devices)) == len(fleet.participations(["r1"], devices)) == 1200
        assert fleet.participations(["r2"], devices) == fleet.participations([], devices) == []


def test_labels_stay_where_a_device_says_nothing_of_them(database: Database) -> None:
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        for device in ("dev-1", "dev-2"):
            enrol(stores, device, labels={"a": "b"}, at=T0)
        fleet.note_heard(
            HeardDevice(device_id="dev-1", at=T0 + 1),
            HeardDevice(device_id="dev-2", at=T0 + 1, labels={"a": "c"}),
            HeardDevice(device_id="dev-3", at=T0 + 1, labels={"a": "d"}),
        )
        assert [labels for _, labels in fleet.keys_and_labels("wake")] == [{"a": "b"}, {"a": "c"}]


def fleet_of(stores: Stores, model: str) -> set[str]:
    return {labels["name"] for _, labels in stores.fleet.keys_and_labels(model)}


def test_a_models_fleet_is_who_follows_it_and_who_never_said(database: Database) -> None:
    """Every enrolled device of the namespace was counted, also boards that have another model."""
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        for name, models in (("a", ("wake",)), ("b", ("sleep",)), ("both", ("sleep", "wake")), ("old", ())):
            enrol(stores, name, labels={"name": name}, models=models, at=T0)
    with transaction(database, "other") as stores:
        enrol(stores, "a", labels={"name": "elsewhere"}, models=("wake",), at=T0)
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        assert fleet_of(stores, "wake") == {"a", "both", "old"}
        assert fleet_of(stores, "sleep") == {"b", "both", "old"}
        assert (fleet.count_devices("wake"), fleet.count_devices("no such"), fleet.count_enrolled()) == (3, 1, 4)
        assert (fleet.count_undeclared(), fleet.inventory("wake"), fleet.classes("wake")) == (1, {None: 2}, {})
        fleet.note_running(RunningVersion(device_id="old", model="sleep", serial=1, hardware_class="", at=T0))
        assert fleet_of(stores, "wake") == {"a", "both"}
        assert (fleet.count_undeclared(), fleet.classes("sleep")) == (0, {"": 1})


def test_what_a_device_follows_no_more_is_dropped_and_what_it_runs_stays(database: Database) -> None:
    with transaction(database, "default") as stores:
        fleet = stores.fleet
        enrol(stores, "a", labels={"name": "a"}, models=("wake", "sleep"), at=T0)
        runs = RunningVersion(device_id="a", model="wake", serial=2, hardware_class="pi", at=T0 + 1)
        fleet.note_running(runs)
        fleet.note_followed(FollowedModels(device_id="a", models=("wake", "walk"), at=T0 + 2))
        walks = RunningVersion(device_id="a", model="walk", serial=None, hardware_class="", at=T0 + 2)
        assert fleet.running_of("a") == {"wake": runs, "walk": walks}
        enrol(stores, "a", labels={"name": "a"}, at=T0 + 3)
        assert fleet.running_of("a") == {"wake": runs, "walk": walks}
        enrol(stores, "a", labels={"name": "a"}, models=("walk",), at=T0 + 3)
        assert fleet.running_of("a") == {"walk": walks}


def test_more_devices_than_a_statement_may_name_tell_their_models(database: Database) -> None:
    told = [FollowedModels(device_id=f"dev-{n}", models=("wake",), at=T0) for n in range(1200)]
    with transaction(database, "default") as stores:
        stores.fleet.note_followed(*told)
        stores.fleet.note_followed(*told)
        assert stores.fleet.inventory("wake") == {None: 1200}


# --- signed roles ---


@pytest.fixture(scope="module")
def keys() -> dict[str, CryptoSigner]:
    names = ("root", "targets", "snapshot", "timestamp", "policy", "publisher", "other")
    return {name: CryptoSigner.generate_ed25519() for name in names}


def online(keys: dict[str, CryptoSigner]) -> OnlineSigners:
    return OnlineSigners([keys["snapshot"], keys["timestamp"], keys["policy"]])


def begin(book: SignedRoles, keys: dict[str, CryptoSigner]) -> None:
    root, targets = first_metadata(
        root=keys["root"],
        targets=keys["targets"],
        snapshot=keys["snapshot"].public_key,
        timestamp=keys["timestamp"].public_key,
        now=NOW,
    )
    book.add_role("root", root)
    book.add_role("targets", targets)
    book.accept_delegation(
        delegate_model(
            book.role_bytes("targets"),
            "wake",
            publisher=keys["publisher"].public_key,
            policy=keys["policy"].public_key,
            signer=keys["targets"],
            now=NOW,
        ),
        of=("publisher-wake", "policy-wake"),
        now=NOW,
    )
    book.sign_snapshot_and_timestamp(online(keys), now=NOW)


def test_versions_of_a_role_are_a_compare_and_swap(database: Database, keys: dict[str, CryptoSigner]) -> None:
    with transaction(database, "default") as stores:
        book = stores.roles
        begin(book, keys)
        assert book.newest() == {"root": 1, "targets": 2, "snapshot": 1, "timestamp": 1}
        with pytest.raises(Conflict, match="targets version 2 came, 3 is next"):
            book.accept_delegation(book.role_bytes("targets"), of=(), now=NOW)
        assert namespaces(stores.connection) == ["default"]


def test_a_publisher_adds_and_never_changes(database: Database, keys: dict[str, CryptoSigner]) -> None:
    path, line = "models/wake/1.json", "models/wake/line.json"

    def sign(current: bytes | None, documents: dict[str, bytes], key: str = "publisher") -> bytes:
        return publish_documents(current, documents, signer=keys[key], now=NOW)

    with transaction(database, "default") as stores:
        book = stores.roles
        begin(book, keys)
        for key in ("other", "policy", "targets"):
            with pytest.raises(UntrustedInput, match="not signed by a key"):
                book.accept_publication("publisher-wake", sign(None, {path: b"{}"}, key), {path: b"{}"}, now=NOW)
        first = sign(None, {path: b"{}", line: b"1"})
        with pytest.raises(UntrustedInput, match="did not come with it or differs"):
            book.accept_publication("publisher-wake", first, {path: b"{ }", line: b"1"}, now=NOW)
        book.accept_publication("publisher-wake", first, {path: b"{}", line: b"1"}, now=NOW)
        for changed in (sign(first, {path: b"[]"}),):
            with pytest.raises(Exception, match="was published and never changes"):
                book.accept_publication("publisher-wake", changed, {path: b"[]"}, now=NOW)
        book.accept_publication("publisher-wake", sign(first, {line: b"2"}), {line: b"2"}, now=NOW)
        assert book.current_target("publisher-wake", line) == b"2"
        assert book.current_target("publisher-wake", path) == b"{}"
        with pytest.raises(UntrustedInput, match="not delegated"):
            book.accept_publication("publisher-sleep", first, {path: b"{}", line: b"1"}, now=NOW)


def test_a_publication_with_an_expired_role_is_refused(database: Database, keys: dict[str, CryptoSigner]) -> None:
    """It expires by the time that the server is given, and not by the clock of the machine."""
    documents = {"models/wake/1.json": b"{}"}
    signed = publish_documents(None, documents, signer=keys["publisher"], now=NOW)
    with transaction(database, "default") as stores:
        begin(stores.roles, keys)
        with pytest.raises(UntrustedInput, match="publisher-wake expired on"):
            stores.roles.accept_publication("publisher-wake", signed, documents, now=NOW + 2 * PUBLISHER_LIFE)
        stores.roles.accept_publication("publisher-wake", signed, documents, now=NOW + PUBLISHER_LIFE / 2)


def test_snapshot_and_timestamp_are_signed_when_something_changed_or_an_hour_is_over(
    database: Database, keys: dict[str, CryptoSigner]
) -> None:
    with transaction(database, "default") as stores:
        book = stores.roles
        begin(book, keys)
        assert not book.sign_snapshot_and_timestamp(online(keys), now=NOW + timedelta(minutes=59))
        assert book.sign_snapshot_and_timestamp(online(keys), now=NOW + timedelta(minutes=61))
        assert book.newest()["snapshot"] == 1
        book.write_policy("wake", {"policy/wake.json": b"{}"}, signers=online(keys), now=NOW)
        assert book.sign_snapshot_and_timestamp(online(keys), now=NOW + timedelta(minutes=62))
        assert (book.newest()["snapshot"], book.newest()["timestamp"]) == (2, 3)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"signed": {}, "signatures": []}', b"[" * 10_000])
def test_what_is_no_metadata_is_refused(database: Database, content: bytes) -> None:
    with transaction(database, "default") as stores, pytest.raises(UntrustedInput):
        stores.roles.accept_delegation(content, of=(), now=NOW)
