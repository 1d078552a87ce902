"""An alert in the form of each receiver, whole: what it shows people, and by what it is known again."""

import base64
import json
from typing import Any

import pytest

from whimbrel.flows.alerts import Alert
from whimbrel.server.alert_forms import document, mail, posted
from whimbrel.server.receivers import Destination, Receiver

T0 = 1_767_225_600.25  # 2026-01-01T00:00:00.250Z
EVIDENCE = {"log_e": 4.626, "log_e_needed": 4.605, "counts": {"activated_t": 40, "reported_t": 37}}


def alert(event: str = "rolled_back", **changes: Any) -> Alert:
    """A rollout is taken back, unless something else is said."""
    fields: dict[str, Any] = {
        "key": "default/7/team",
        "namespace": "default",
        "receiver": "team",
        "event": event,
        "at": T0,
        "because": "harm is proven: error",
        "actor": "gate",
        "model": "wake",
        "rollout": "wake-2-t",
        "stage": 1,
        "stage_name": "early",
        "baseline": "1.0.0",
        "target": "2.0.0",
    }
    return Alert(**fields | changes)


def about(event: str, **fields: Any) -> Alert:
    """Of no rollout."""
    none = {"model": "", "rollout": "", "stage": 0, "stage_name": "", "baseline": "", "target": ""}
    return alert(event, **none | fields)


DEVICE = about("duplicate_identity", device="dev-1")
ROLE = about("metadata_expires", role="root")
MONITOR = about("anomaly", model="wake", target="2.0.0", monitor="crash_rate")
EXPERIMENT = about("arm_stopped", model="wake", experiment="e1", arm="large", baseline="1.0.0", target="2.0.0")
NAMESPACE = about("keys_proposed", evidence={"changes": ["one", "two"]})


def to(form: str, *, secret: str = "", **changes: Any) -> Destination:
    fields: dict[str, Any] = {"name": "team", "form": form, "url": "https://hooks.example.com/x"}
    if form == "pagerduty":
        fields["secret_from"] = "env:KEY"
    if form == "email":
        fields |= {"url": "smtp://mx.example.com", "sender": "w@b.c", "to": ("d@e.f", "g@h.i")}
    return Destination(Receiver(**fields | changes), fields["url"], secret)


def body(told: Alert, form: str, *, now: float = T0 + 60, plot: bytes | None = None, **changes: Any) -> Any:
    return json.loads(posted(told, to(form, **changes), plot=plot, now=now).body)


def headers(told: Alert, form: str, **changes: Any) -> dict[str, str]:
    return posted(told, to(form, **changes), plot=None, now=T0 + 60).headers


# --- generic ---


def test_our_own_form_has_every_field() -> None:
    assert body(alert(evidence=EVIDENCE), "generic") == {
        "format": "whimbrel-alert-1",
        "key": "default/7/team",
        "thread": "default/wake-2-t",
        "test": False,
        "namespace": "default",
        "moment": "rolled_back",
        "severity": "critical",
        "status": "firing",
        "at": "2026-01-01T00:00:00.250Z",
        "title": "wake 2.0.0: the rollout is taken back (stage early)",
        "because": "harm is proven: error",
        "actor": "gate",
        "model": "wake",
        "rollout": "wake-2-t",
        "stage": 1,
        "stage_name": "early",
        "baseline": "1.0.0",
        "target": "2.0.0",
        "evidence": EVIDENCE,
    }


@pytest.mark.parametrize(
    ("told", "subject"),
    [
        (DEVICE, {"device": "dev-1"}),
        (ROLE, {"role": "root"}),
        (MONITOR, {"model": "wake", "version": "2.0.0", "monitor": "crash_rate"}),
        (
            EXPERIMENT,
            {"model": "wake", "experiment": "e1", "arm": "large", "baseline": "1.0.0", "target": "2.0.0"},
        ),
        (NAMESPACE, {}),
    ],
)
def test_what_an_alert_is_about_stands_in_it_and_nothing_else(told: Alert, subject: dict[str, str]) -> None:
    rest = document(told).keys() - document(NAMESPACE).keys()
    assert {name: document(told)[name] for name in rest} == subject


def test_every_form_says_what_it_is_and_names_the_alert() -> None:
    for form in ("generic", "slack", "pagerduty", "alertmanager"):
        assert headers(alert(), form) == {"Content-Type": "application/json", "Idempotency-Key": "default/7/team"}


def test_our_own_form_is_signed_where_there_is_a_secret_and_has_the_plot_where_that_is_asked_for() -> None:
    signed = headers(alert(), "generic", secret="s3cret")["Whimbrel-Signature"]
    at, _, mac = signed.partition(",v1=")
    assert (at, len(mac)) == ("t=1767225660", 64)
    assert "plot_png_base64" not in body(alert(), "generic", plot=b"png")
    asked = Destination(Receiver(name="team", form="generic", url="https://x", plot=True), "https://x", "")
    shown = json.loads(posted(alert(), asked, plot=b"png", now=T0).body)
    assert base64.b64decode(shown["plot_png_base64"]) == b"png"
    assert "plot_png_base64" not in json.loads(posted(alert(), asked, plot=None, now=T0).body)


# --- slack ---


def test_slack_gets_a_heading_a_reason_the_figures_and_the_key() -> None:
    told = body(alert(evidence=EVIDENCE), "slack")
    assert (told["text"], told["mrkdwn"]) == (
        "🔴 wake 2.0.0: the rollout is taken back (stage early): harm is proven: error",
        False,
    )
    heading, reason, figures, context = told["blocks"]
    assert heading == {
        "type": "header",
        "text": {
            "type": "plain_text",
            "text": "🔴 wake 2.0.0: the rollout is taken back (stage early)",
            "emoji": False,
        },
    }
    assert (reason["type"], reason["text"]["text"]) == ("section", "harm is proven: error")
    assert [each["text"] for each in figures["fields"]] == [
        "Model\nwake 1.0.0 → 2.0.0",
        "Rollout\nwake-2-t",
        "Stage\nearly (2)",
        "By\ngate",
        "Evidence\nln E 4.63, harm is proven at 4.61",
        "Devices\n40 activated, 37 reported",
    ]
    assert {each["type"] for each in figures["fields"]} == {"plain_text"}
    (key,) = context["elements"]
    assert (context["type"], key["text"]) == ("context", "2026-01-01T00:00:00.250Z · default/7/team")


def test_slack_gets_no_more_than_it_takes() -> None:
    told = body(alert(because="x" * 5000, rollout="r" * 5000, stage_name="s" * 500), "slack")
    heading, reason, figures, _ = told["blocks"]
    assert (len(told["text"]), len(heading["text"]["text"]), len(reason["text"]["text"])) == (2900, 150, 2900)
    assert len(figures["fields"][1]["text"]) == len("Rollout\n") + 1900
    assert body(alert(because=""), "slack")["blocks"][1]["text"]["text"] == "no reason was given"


@pytest.mark.parametrize(
    ("told", "facts"),
    [
        (DEVICE, ["Device\ndev-1", "By\ngate"]),
        (ROLE, ["Role\nroot", "By\ngate"]),
        (MONITOR, ["Model\nwake 2.0.0", "Monitor\ncrash_rate", "By\ngate"]),
        (EXPERIMENT, ["Model\nwake", "Experiment\ne1", "Arm\nlarge (2.0.0)", "By\ngate"]),
        (
            about("experiment_kept", model="wake", experiment="e1"),
            ["Model\nwake", "Experiment\ne1", "By\ngate"],
        ),
        (NAMESPACE, ["Changes\none; two", "By\ngate"]),
        (about("keys_decided"), ["Changes\n", "By\ngate"]),
        (about("audit_anchor", evidence={"sequence": 7}), ['Anchor\n{"sequence":7}']),
        (alert(evidence={"log_e": 1.0}), None),
        (alert(evidence={"log_e_needed": 1.0, "counts": 7}), None),
        (
            alert(evidence={"counts": {}}),
            [
                "Model\nwake 1.0.0 → 2.0.0",
                "Rollout\nwake-2-t",
                "Stage\nearly (2)",
                "By\ngate",
                "Devices\n0 activated, 0 reported",
            ],
        ),
    ],
)
def test_the_figures_are_those_of_what_it_is_about(told: Alert, facts: list[str] | None) -> None:
    plain = ["Model\nwake 1.0.0 → 2.0.0", "Rollout\nwake-2-t", "Stage\nearly (2)", "By\ngate"]
    shown = [each["text"] for each in body(told, "slack")["blocks"][2]["fields"]]
    assert shown == (plain if facts is None else facts)


# --- pagerduty ---


def test_pagerduty_opens_an_incident_of_the_rollout() -> None:
    told = alert(evidence=EVIDENCE)
    assert body(told, "pagerduty", secret="routing") == {
        "routing_key": "routing",
        "event_action": "trigger",
        "dedup_key": "default/wake-2-t",
        "client": "Whimbrel",
        "payload": {
            "summary": "wake 2.0.0: the rollout is taken back (stage early): harm is proven: error",
            "source": "whimbrel/default",
            "severity": "critical",
            "timestamp": "2026-01-01T00:00:00.250Z",
            "component": "wake",
            "group": "wake-2-t",
            "class": "rolled_back",
            "custom_details": document(told),
        },
    }


def test_pagerduty_closes_the_incident_when_the_rollout_goes_on() -> None:
    assert body(alert("advanced"), "pagerduty", secret="routing") == {
        "routing_key": "routing",
        "event_action": "resolve",
        "dedup_key": "default/wake-2-t",
    }
    assert body(alert("started"), "pagerduty")["event_action"] == "trigger"  # a note


@pytest.mark.parametrize(
    ("told", "component", "group"),
    [
        (DEVICE, "dev-1", "devices"),
        (ROLE, "root", "roles"),
        (MONITOR, "wake", "monitors"),
        (EXPERIMENT, "wake", "e1"),
        (NAMESPACE, "default", "namespaces"),
    ],
)
def test_pagerduty_groups_what_is_about_no_rollout(told: Alert, component: str, group: str) -> None:
    payload = body(told, "pagerduty")["payload"]
    assert (payload["component"], payload["group"]) == (component, group)


def test_pagerduty_gets_no_more_than_it_takes() -> None:
    told = body(alert(because="x" * 2000, rollout="r" * 300), "pagerduty")
    assert (len(told["payload"]["summary"]), len(told["dedup_key"])) == (1024, 255)


# --- alertmanager ---


def test_alertmanager_gets_an_alert_that_ends_by_itself_after_a_day() -> None:
    assert body(alert(), "alertmanager") == [
        {
            "labels": {
                "alertname": "WhimbrelRollout",
                "severity": "critical",
                "namespace": "default",
                "model": "wake",
                "rollout": "wake-2-t",
            },
            "annotations": {
                "summary": "wake 2.0.0: the rollout is taken back (stage early)",
                "description": "harm is proven: error",
                "moment": "rolled_back",
                "stage": "early",
                "key": "default/7/team",
            },
            "startsAt": "2026-01-01T00:00:00.250Z",
            "endsAt": "2026-01-02T00:00:00.250Z",
        }
    ]


@pytest.mark.parametrize(("now", "begins"), [(T0 + 60, T0), (T0 - 60, T0 - 60)])
def test_alertmanager_ends_what_was_open_of_either_severity(now: float, begins: float) -> None:
    over = body(alert("completed"), "alertmanager", now=now)
    assert [each["labels"]["severity"] for each in over] == ["critical", "warning"]
    minutes = {T0: "2026-01-01T00:00:00.250Z", T0 + 60: "2026-01-01T00:01:00.250Z", T0 - 60: "2025-12-31T23:59:00.250Z"}
    assert {(each["startsAt"], each["endsAt"]) for each in over} == {(minutes[begins], minutes[now])}


@pytest.mark.parametrize(
    ("told", "name", "labels"),
    [
        (DEVICE, "WhimbrelDevice", {"device": "dev-1"}),
        (ROLE, "WhimbrelRole", {"role": "root"}),
        (MONITOR, "WhimbrelMonitor", {"model": "wake", "version": "2.0.0", "monitor": "crash_rate"}),
        (EXPERIMENT, "WhimbrelExperiment", {"model": "wake", "experiment": "e1"}),
        (NAMESPACE, "WhimbrelNamespace", {"about": "keys"}),
    ],
)
def test_alertmanager_tells_one_alert_from_another(told: Alert, name: str, labels: dict[str, str]) -> None:
    (shown,) = body(told, "alertmanager")
    common = {"alertname": name, "severity": told.severity, "namespace": "default"}
    assert shown["labels"] == common | labels
    assert "stage" not in shown["annotations"]


def test_alertmanager_is_shown_a_secret_as_a_bearer_token() -> None:
    secret = headers(alert(), "alertmanager", secret="s3cret")
    assert secret["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in headers(alert(), "alertmanager")


# --- e-mail ---


def test_a_mail_says_all_in_plain_text() -> None:
    message = mail(alert(evidence=EVIDENCE), to("email"), plot=None)
    assert str(message["Subject"]) == "[critical] wake 2.0.0: the rollout is taken back (stage early)"
    assert (str(message["From"]), str(message["To"])) == ("Whimbrel <w@b.c>", "d@e.f, g@h.i")
    assert str(message["Date"]) == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_body(("plain",))
    assert text is not None
    assert text.get_content().replace("\r\n", "\n") == (
        "wake 2.0.0: the rollout is taken back (stage early)\n\n"
        "harm is proven: error\n\n"
        "Model     wake 1.0.0 → 2.0.0\n"
        "Rollout   wake-2-t\n"
        "Stage     early (2)\n"
        "By        gate\n"
        "Evidence  ln E 4.63, harm is proven at 4.61\n"
        "Devices   40 activated, 37 reported\n"
        "At        2026-01-01T00:00:00.250Z\n"
    )


def test_mails_of_one_rollout_are_one_thread_and_each_is_its_own() -> None:
    first, second = (
        mail(alert(event, key=f"default/{number}/m"), to("email"), plot=None)
        for number, event in enumerate(("held", "advanced"))
    )
    assert first["References"] == second["References"]
    assert first["Message-ID"] != second["Message-ID"]
    assert str(first["Message-ID"]).endswith("@whimbrel.invalid>")
    other = mail(alert(rollout="another"), to("email"), plot=None)
    assert other["References"] != first["References"]


@pytest.mark.parametrize(("event", "color"), [("rolled_back", "#b00020"), ("held", "#b26a00"), ("advanced", "#1f6f8b")])
def test_a_mail_shows_how_bad_it_is_and_its_plot(event: str, color: str) -> None:
    bare = mail(alert(event), to("email"), plot=None).get_body(("html",))
    assert bare is not None
    assert color in bare.get_content()
    assert "cid:plot" not in bare.get_content()
    message = mail(alert(event), to("email"), plot=b"png")
    html = message.get_body(("html",))
    assert html is not None
    assert 'src="cid:plot"' in html.get_content()
    (picture,) = (part for part in message.walk() if part.get_content_type() == "image/png")
    assert (picture.get_content(), picture["Content-ID"], picture.get_filename()) == (b"png", "<plot>", "evidence.png")
    assert picture.get_content_disposition() == "inline"


def test_a_mail_with_words_that_are_markup_shows_them_as_words() -> None:
    html = mail(alert(because="<b>bad</b>"), to("email"), plot=None).get_body(("html",))
    assert html is not None
    assert "&lt;b&gt;bad&lt;/b&gt;" in html.get_content()
    assert "<td>wake 1.0.0 → 2.0.0</td>" in html.get_content()
