"""Who is told of what, and what is no news."""

from typing import Any

import msgspec
import pytest

from support.values import plan
from whimbrel import limits
from whimbrel.flows.alerts import SAID_OF_EXPERIMENTS, Alert, EarlierAlert, event_of, grouped, wants
from whimbrel.flows.records import AuditRecord
from whimbrel.plan.experiment_states import Act
from whimbrel.plan.governance import AlertRule
from whimbrel.server.alert_forms import mail, posted
from whimbrel.server.receivers import Destination, Receiver


def told(event: str = "held", stage: int = 0, at: float = 0.0) -> EarlierAlert:
    return EarlierAlert(receiver="team", event=event, stage=stage, at=at)


def alert(event: str) -> Alert:
    return Alert(
        key="k",
        namespace="default",
        receiver="team",
        event=event,
        at=0.0,
        because="b",
        actor="gate",
        model="wake",
        rollout="r1",
        stage=0,
        stage_name="canary",
        baseline="1.0.0",
        target="2.0.0",
    )


def test_a_receiver_is_told_what_it_or_the_plan_asks_for() -> None:
    asked = plan(alerts=(AlertRule(to="team", on=("held",)),))
    assert wants(asked, "team", on=(), event="held")
    assert not wants(asked, "team", on=(), event="advanced")
    assert not wants(asked, "others", on=(), event="held")
    assert wants(asked, "others", on=("held",), event="held")


def test_the_same_of_the_same_stage_is_news_again_after_a_while() -> None:
    assert grouped("held", 0, at=100.0, before=[told(at=50.0)], within_s=60.0)
    assert not grouped("held", 1, at=100.0, before=[told(at=50.0)], within_s=60.0)
    assert not grouped("paused", 0, at=100.0, before=[told(at=50.0)], within_s=60.0)
    assert not grouped("held", 0, at=111.0, before=[told(at=50.0)], within_s=60.0)


def test_what_ends_well_clears_what_was_said() -> None:
    assert [alert(event).status for event in ("held", "rolled_back", "advanced", "completed", "started")] == [
        "firing",
        "firing",
        "resolved",
        "resolved",
        "note",
    ]


def test_an_entry_about_no_rollout_alerts_nobody() -> None:
    entry = AuditRecord(namespace="default", at=0.0, actor="me", action="start", because="b")
    assert event_of(entry) is None


def test_an_entry_about_a_device_is_told_to_those_who_ask_for_it_and_to_no_plan() -> None:
    entry = AuditRecord(namespace="default", at=0.0, actor="tally", action="notice_duplicate", because="b", device="d")
    event = event_of(entry)
    assert event == "duplicate_identity"
    assert wants(None, "team", on=("duplicate_identity",), event=event)
    assert not wants(None, "team", on=("held",), event=event)
    blocked = AuditRecord(namespace="default", at=0.0, actor="ana", action="block_device", because="b", device="d")
    assert event_of(blocked) is None


@pytest.mark.parametrize("form", ["generic", "slack", "pagerduty", "alertmanager"])
def test_every_form_tells_of_a_device_without_a_rollout(form: str) -> None:
    told = Alert(
        key="k",
        namespace="default",
        receiver="team",
        event="duplicate_identity",
        at=0.0,
        because="two installations report",
        actor="tally",
        device="board-1",
    )
    assert (told.thread, told.severity, told.status) == ("default/device/board-1", "warning", "firing")
    url = "https://hooks.example.com/x"
    receiver = Receiver(name="team", form=form, url=url, secret_from="env:KEY")
    body = posted(told, Destination(receiver, url, "s"), plot=None, now=0.0).body.decode()
    assert "board-1" in body
    assert "two installations report" in body
    assert '"rollout":' not in body
    written = mail(told, Destination(receiver, url, "s"), plot=None)
    assert "device board-1: two installations report with this id" in str(written["Subject"])


def monitor_alert(event: str, outcome: str = "alert") -> Alert:
    return Alert(
        key="k",
        namespace="default",
        receiver="team",
        event=event,
        at=0.0,
        because="error_rate is 50%",
        actor="monitor",
        monitor="error_rate <= 0.05 hour",
        model="wake",
        target="2.0.0",
        evidence={"outcome": outcome},
    )


def test_a_monitor_of_a_model_is_told_of_by_its_own_words() -> None:
    entry = AuditRecord(
        namespace="default", at=0.0, actor="monitor", action="break_objective", because="b", model="wake"
    )
    assert event_of(entry) == "objective_broken"
    fired = monitor_alert("objective_broken")
    assert fired.title == "wake 2.0.0: error_rate <= 0.05 hour is not kept"
    assert [monitor_alert("anomaly", outcome).severity for outcome in ("alert", "taken_back", "not_taken_back")] == [
        "warning",
        "critical",
        "critical",
    ]


def test_the_end_of_an_episode_resolves_the_incident_that_it_opened() -> None:
    destination = Destination(Receiver(name="team", form="pagerduty", url="http://x", secret_from="env:X"), "u", "s")
    fired, over = (
        msgspec.json.decode(posted(monitor_alert(event), destination, plot=None, now=0.0).body)
        for event in ("objective_broken", "recovered")
    )
    assert (fired["event_action"], over["event_action"]) == ("trigger", "resolve")
    assert fired["dedup_key"] == over["dedup_key"] == "default/model/wake/2.0.0/error_rate <= 0.05 hour"
    details = fired["payload"]["custom_details"]
    assert (details["model"], details["version"], details["monitor"]) == ("wake", "2.0.0", "error_rate <= 0.05 hour")
    assert "rollout" not in details


def test_two_models_are_two_alerts_at_alertmanager() -> None:
    destination = Destination(Receiver(name="team", form="alertmanager", url="http://x"), "u", "")
    (body,) = msgspec.json.decode(posted(monitor_alert("anomaly"), destination, plot=None, now=0.0).body)
    assert body["labels"] == {
        "alertname": "WhimbrelMonitor",
        "severity": "warning",
        "namespace": "default",
        "model": "wake",
        "version": "2.0.0",
        "monitor": "error_rate <= 0.05 hour",
    }
    text = mail(
        monitor_alert("anomaly"),
        Destination(Receiver(name="m", form="email", url="smtp://x", sender="a@b", to=("c@d",)), "u", ""),
        plot=None,
    )
    assert "Monitor" in str(text.get_body(("plain",)))


def experiment_alert(event: str, arm: str = "") -> Alert:
    return Alert(
        key="k",
        namespace="default",
        receiver="team",
        event=event,
        at=0.0,
        because="large is stopped: recall is worse",
        actor="gate",
        experiment="e1",
        arm=arm,
        model="wake",
        baseline="1.0.0",
        target="2.0.0" if arm else "",
    )


@pytest.mark.parametrize(
    ("action", "event", "status"),
    [
        ("start experiment", "experiment_started", "note"),
        ("experiment stop arm", "arm_stopped", "firing"),
        ("experiment stop slice", "arm_stopped_in_slice", "firing"),
        ("experiment ship", "experiment_shipped", "resolved"),
        ("experiment keep", "experiment_kept", "resolved"),
        ("experiment end", "experiment_inconclusive", "resolved"),
        ("experiment stop", "experiment_stopped", "resolved"),
    ],
)
def test_what_happens_to_an_experiment_is_told_and_its_end_clears_it(action: str, event: str, status: str) -> None:
    entry = AuditRecord(namespace="default", at=0.0, actor="gate", action=action, because="b", model="w", rollout="e1")
    assert event_of(entry) == event
    assert experiment_alert(event).status == status


def test_every_act_on_an_experiment_has_its_event() -> None:
    assert set(SAID_OF_EXPERIMENTS) == {"start experiment"} | {f"experiment {act.replace('_', ' ')}" for act in Act}


def test_the_title_says_that_a_slice_of_an_arm_is_stopped() -> None:
    told = experiment_alert("arm_stopped_in_slice", "large")
    assert (told.severity, told.title) == ("critical", "wake: the experiment e1 stops a slice of the arm large")


@pytest.mark.parametrize("form", ["generic", "slack", "pagerduty", "alertmanager"])
def test_every_form_tells_of_a_stopped_arm_and_of_no_stage(form: str) -> None:
    told = experiment_alert("arm_stopped", "large")
    assert (told.thread, told.severity) == ("default/experiment/e1", "critical")
    url = "https://hooks.example.com/x"
    receiver = Receiver(name="team", form=form, url=url, secret_from="env:KEY")
    body = posted(told, Destination(receiver, url, "s"), plot=None, now=0.0).body.decode()
    assert "wake: the experiment e1 stops the arm large" in body
    assert "recall is worse" in body
    assert '"stage' not in body
    assert "large (2.0.0)" in str(mail(told, Destination(receiver, url, "s"), plot=None))


def test_the_end_of_an_experiment_ends_what_was_said_of_its_arms_at_alertmanager() -> None:
    destination = Destination(Receiver(name="team", form="alertmanager", url="http://x"), "u", "")
    (fired,), ended = (
        msgspec.json.decode(posted(each, destination, plot=None, now=0.0).body)
        for each in (experiment_alert("arm_stopped", "large"), experiment_alert("experiment_kept"))
    )
    assert fired["labels"] in [each["labels"] for each in ended]
    assert fired["labels"]["alertname"] == "WhimbrelExperiment"


# --- one line, a thread and a severity for each event ---

ROLLOUT = {"model": "wake", "target": "2.0.0", "baseline": "1.0.0", "rollout": "r1", "stage": 1, "stage_name": "early"}
EXPERIMENT = {"model": "wake", "experiment": "e1", "baseline": "1.0.0"}
MONITOR = {"model": "wake", "target": "2.0.0", "monitor": "crash"}


@pytest.mark.parametrize(
    ("event", "about", "severity", "status", "title", "thread"),
    [
        ("scheduled", ROLLOUT, "info", "note", "wake 2.0.0: the rollout is scheduled (stage early)", "ns/r1"),
        ("queued", ROLLOUT, "info", "note", "wake 2.0.0: the rollout is queued (stage early)", "ns/r1"),
        ("started", ROLLOUT, "info", "note", "wake 2.0.0: the rollout is started (stage early)", "ns/r1"),
        (
            "waiting_for_approval",
            ROLLOUT,
            "warning",
            "firing",
            "wake 2.0.0: the rollout waits for approval (stage early)",
            "ns/r1",
        ),
        ("advanced", ROLLOUT, "info", "resolved", "wake 2.0.0: the rollout is advanced (stage early)", "ns/r1"),
        ("held", ROLLOUT, "warning", "firing", "wake 2.0.0: the rollout holds (stage early)", "ns/r1"),
        ("paused", ROLLOUT, "warning", "firing", "wake 2.0.0: the rollout is paused (stage early)", "ns/r1"),
        (
            "slice_back",
            ROLLOUT,
            "critical",
            "firing",
            "wake 2.0.0: the rollout takes a slice back (stage early)",
            "ns/r1",
        ),
        ("rolled_back", ROLLOUT, "critical", "firing", "wake 2.0.0: the rollout is taken back (stage early)", "ns/r1"),
        ("completed", ROLLOUT, "info", "resolved", "wake 2.0.0: the rollout is completed (stage early)", "ns/r1"),
        ("aborted", ROLLOUT, "info", "resolved", "wake 2.0.0: the rollout is aborted (stage early)", "ns/r1"),
        ("experiment_started", EXPERIMENT, "info", "note", "wake: the experiment e1 is started", "ns/experiment/e1"),
        (
            "arm_stopped",
            EXPERIMENT | {"arm": "large"},
            "critical",
            "firing",
            "wake: the experiment e1 stops the arm large",
            "ns/experiment/e1",
        ),
        (
            "experiment_shipped",
            EXPERIMENT | {"arm": "large"},
            "info",
            "resolved",
            "wake: the experiment e1 ships large",
            "ns/experiment/e1",
        ),
        (
            "experiment_kept",
            EXPERIMENT,
            "info",
            "resolved",
            "wake: the experiment e1 keeps its control",
            "ns/experiment/e1",
        ),
        (
            "experiment_inconclusive",
            EXPERIMENT,
            "info",
            "resolved",
            "wake: the experiment e1 ends, and nothing is decided",
            "ns/experiment/e1",
        ),
        (
            "experiment_stopped",
            EXPERIMENT,
            "info",
            "resolved",
            "wake: the experiment e1 is stopped without a decision",
            "ns/experiment/e1",
        ),
        (
            "duplicate_identity",
            {"device": "dev-1"},
            "warning",
            "firing",
            "device dev-1: two installations report with this id",
            "ns/device/dev-1",
        ),
        (
            "enrolment_spike",
            {"device": "dev-1", "evidence": {"devices": 330}},
            "warning",
            "firing",
            "330 devices enrolled within an hour, far more than usual",
            "ns/enrolments",
        ),
        (
            "enrolment_spike",
            {"device": "dev-1"},
            "warning",
            "firing",
            "many devices enrolled within an hour, far more than usual",
            "ns/enrolments",
        ),
        (
            "objective_broken",
            MONITOR,
            "warning",
            "firing",
            "wake 2.0.0: crash is not kept",
            "ns/model/wake/2.0.0/crash",
        ),
        ("anomaly", MONITOR, "warning", "firing", "wake 2.0.0: crash is an anomaly", "ns/model/wake/2.0.0/crash"),
        (
            "recovered",
            MONITOR,
            "info",
            "resolved",
            "wake 2.0.0: crash is well again, or watched no more",
            "ns/model/wake/2.0.0/crash",
        ),
        (
            "floor_expires",
            MONITOR | {"monitor": "floor", "target": ""},
            "warning",
            "firing",
            "wake: floor must be signed anew",
            "ns/model/wake//floor",
        ),
        (
            "revocation_drafted",
            MONITOR | {"monitor": "revocation"},
            "warning",
            "firing",
            "wake 2.0.0: revocation waits for the publisher's key",
            "ns/model/wake/2.0.0/revocation",
        ),
        (
            "metadata_expires",
            {"role": "targets", "evidence": {"left_s": limits.EXPIRY_URGENT_S + 1}},
            "warning",
            "firing",
            "the signed role targets expires",
            "ns/role/targets",
        ),
        (
            "metadata_expires",
            {"role": "targets", "evidence": {"left_s": limits.EXPIRY_URGENT_S}},
            "critical",
            "firing",
            "the signed role targets expires",
            "ns/role/targets",
        ),
        ("metadata_expires", {"role": "root"}, "critical", "firing", "the signed role root expires", "ns/role/root"),
        (
            "metadata_renewed",
            {"role": "targets", "evidence": {"left_s": 0.0}},
            "info",
            "resolved",
            "the signed role targets was signed anew",
            "ns/role/targets",
        ),
        (
            "audit_anchor",
            {"evidence": {"sequence": 7}},
            "info",
            "note",
            "anchor of the audit log of ns: entry 7",
            "ns/audit",
        ),
        ("keys_proposed", {}, "warning", "firing", "a change of keys of ns waits for a second person", "ns/keys"),
        ("keys_decided", {}, "info", "resolved", "a change of keys of ns was taken, or rejected", "ns/keys"),
    ],
)
def test_each_event_has_its_line_its_thread_and_its_severity(
    event: str, about: dict[str, Any], severity: str, status: str, title: str, thread: str
) -> None:
    fields = {
        "key": "k",
        "namespace": "ns",
        "receiver": "team",
        "event": event,
        "at": 0.0,
        "because": "b",
        "actor": "a",
    }
    told = Alert(**fields | about)
    assert (told.severity, told.status, told.title, told.thread) == (severity, status, title, thread)
    assert msgspec.structs.replace(told, test=True).title == f"TEST: {title}"
    assert told.is_of_namespace is (event in {"audit_anchor", "keys_proposed", "keys_decided"})


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (
            {"rollout": "r1", "model": "wake"},
            {
                "schedule": "scheduled",
                "queue": "queued",
                "start": "started",
                "await_approval": "waiting_for_approval",
                "advance": "advanced",
                "hold": "held",
                "pause": "paused",
                "slice_back": "slice_back",
                "roll_back": "rolled_back",
                "finish": "completed",
                "abort": "aborted",
                "reject": "aborted",
                "fail_to_begin": "aborted",
                "approve": None,
                "move_with_set": None,
                "break_objective": None,
            },
        ),
        (
            {"device": "dev-1"},
            {"notice_duplicate": "duplicate_identity", "notice_enrolments": "enrolment_spike", "hold": None},
        ),
        (
            {"model": "wake"},
            {
                "break_objective": "objective_broken",
                "notice_anomaly": "anomaly",
                "recover": "recovered",
                "floor_expires": "floor_expires",
                "draft_revocation": "revocation_drafted",
                "hold": None,
                "notice_expiry": None,
            },
        ),
        (
            {},
            {
                "notice_expiry": "metadata_expires",
                "renew_role": "metadata_renewed",
                "anchor_audit_log": "audit_anchor",
                "propose keys": "keys_proposed",
                "change keys": "keys_decided",
                "reject keys": "keys_decided",
                "recover": None,
            },
        ),
    ],
)
def test_an_entry_says_what_its_action_says_of_what_it_is_about(
    about: dict[str, str], said: dict[str, str | None]
) -> None:
    entries = {
        action: AuditRecord(namespace="ns", at=0.0, actor="a", action=action, because="b", **about) for action in said
    }
    assert {action: event_of(entry) for action, entry in entries.items()} == said


def test_what_was_told_exactly_so_long_ago_or_later_than_this_is_news() -> None:
    for earlier_at, is_old in ((100.0, True), (40.001, True), (40.0, False), (100.001, False)):
        assert grouped("held", 0, at=100.0, before=[told(at=earlier_at)], within_s=60.0) is is_old
    assert not grouped("held", 0, at=100.0, before=[], within_s=60.0)
    assert grouped("held", 0, at=100.0, before=[told(at=0.0), told(at=99.0)], within_s=60.0)


def test_what_is_about_no_rollout_is_asked_for_in_the_settings_alone() -> None:
    asked = plan(alerts=(AlertRule(to="team", on=("held", "paused")), AlertRule(to="boss", on=("rolled_back",))))
    assert [wants(asked, to, on=(), event="rolled_back") for to in ("team", "boss")] == [False, True]
    assert wants(asked, "team", on=(), event="paused")
    assert not wants(None, "team", on=("held",), event="paused")
