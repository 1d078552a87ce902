"""An alert in the form of each receiver: an HTTP body with its headers, or an e-mail.

1. Every form carries the same sentence, the figures behind it, and a key by which the receiver knows it again.
2. generic: our own JSON, signed where a secret is configured. Header `Whimbrel-Signature: t=<unix seconds>,v1=<hex>`,
   HMAC-SHA256 of "<t>.<body>".
3. slack: an incoming webhook's blocks. pagerduty: Events API v2; a rollout is one incident (`dedup_key`), resolved when
   it moves on or ends well. alertmanager: POST /api/v2/alerts; a rollout is one alert a severity, ended likewise.
4. email: text and HTML with the plot in it; a rollout's messages are one thread.

Pure: time comes in with the alert and with `now`. Called by the alert loop.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import msgspec

from whimbrel import limits
from whimbrel.flows.alerts import Alert
from whimbrel.flows.audit_chain import ALERT_FORMAT
from whimbrel.model.documents import encode
from whimbrel.plain_text import in_html, in_slack, plain_texts
from whimbrel.server.receivers import Destination

_DOMAIN = "whimbrel.invalid"  # of message ids: RFC 2606 keeps it from ever being somebody's
_ENDS_AFTER = timedelta(seconds=limits.ALERT_GIVE_UP_S)  # Alertmanager ends an alert that is not sent again
_SUMMARY_CHARS = 1024  # PagerDuty's bound
_TEXT_CHARS = 2900  # Slack's bound of a section is 3000
_EMOJI = {"critical": "🔴", "warning": "🟡", "info": "🟢"}


class Post(msgspec.Struct, frozen=True):
    """An HTTP POST of a JSON body."""

    body: bytes
    headers: dict[str, str]


def posted(alert: Alert, destination: Destination, *, plot: bytes | None, now: float) -> Post:
    """The request for a receiver that speaks HTTP."""
    alert = _plain(alert)
    forms: dict[str, Callable[[], Post]] = {
        "generic": lambda: _generic(alert, destination, plot=plot, now=now),
        "slack": lambda: Post(encode(_slack(alert)), {}),
        "pagerduty": lambda: Post(encode(_pagerduty(alert, routing_key=destination.secret)), {}),
        "alertmanager": lambda: _alertmanager(alert, destination, now=now),
    }
    made = forms[destination.receiver.form]()
    return Post(made.body, {"Content-Type": "application/json", "Idempotency-Key": alert.key} | made.headers)


def _plain(alert: Alert) -> Alert:
    """The alert without what hides in names, reasons and evidence: a receiver shows them on screens of its own."""
    return msgspec.convert(plain_texts(msgspec.to_builtins(alert)), Alert)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def document(alert: Alert) -> dict[str, Any]:
    """The alert as our own JSON. docs/reference/alerts.md"""
    return {
        "format": ALERT_FORMAT,
        "key": alert.key,
        "thread": alert.thread,
        "test": alert.test,
        "namespace": alert.namespace,
        "moment": alert.event,
        "severity": alert.severity,
        "status": alert.status,
        "at": _time(alert.at),
        "title": alert.title,
        "because": alert.because,
        "actor": alert.actor,
        **_subject(alert),
        "evidence": alert.evidence,
    }


def _subject(alert: Alert) -> dict[str, Any]:
    """What it is about."""
    if alert.is_of_namespace:
        return {}
    if alert.device:
        return {"device": alert.device}
    if alert.role:
        return {"role": alert.role}
    if alert.monitor:
        return {"model": alert.model, "version": alert.target, "monitor": alert.monitor}
    if alert.experiment:
        return {
            "model": alert.model,
            "experiment": alert.experiment,
            "arm": alert.arm,
            "baseline": alert.baseline,
            "target": alert.target,
        }
    return _of_rollout(alert)


def _of_rollout(alert: Alert) -> dict[str, Any]:
    return {
        "model": alert.model,
        "rollout": alert.rollout,
        "stage": alert.stage,
        "stage_name": alert.stage_name,
        "baseline": alert.baseline,
        "target": alert.target,
    }


def _generic(alert: Alert, destination: Destination, *, plot: bytes | None, now: float) -> Post:
    fields = document(alert)
    if plot is not None and destination.receiver.plot:
        fields["plot_png_base64"] = base64.b64encode(plot).decode()
    body = encode(fields)
    if not destination.secret:
        return Post(body, {})
    signed_at = f"{now:.0f}"
    signed = hmac.new(destination.secret.encode(), signed_at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return Post(body, {"Whimbrel-Signature": f"t={signed_at},v1={signed}"})


def _facts(alert: Alert) -> list[tuple[str, str]]:
    if alert.event == "audit_anchor":  # the whole line: it is what is to be kept
        return [("Anchor", encode(alert.evidence).decode())]
    if alert.event in {"keys_proposed", "keys_decided"}:
        return [("Changes", "; ".join(map(str, alert.evidence.get("changes", ())))), ("By", alert.actor)]
    if alert.device:
        return [("Device", alert.device), ("By", alert.actor)]
    if alert.role:
        return [("Role", alert.role), ("By", alert.actor)]
    if alert.monitor:
        return [("Model", f"{alert.model} {alert.target}"), ("Monitor", alert.monitor), ("By", alert.actor)]
    if alert.experiment:
        arm = [("Arm", f"{alert.arm} ({alert.target})")] if alert.arm else []
        return [("Model", alert.model), ("Experiment", alert.experiment), *arm, ("By", alert.actor)]
    facts = [
        ("Model", f"{alert.model} {alert.baseline} → {alert.target}"),
        ("Rollout", alert.rollout),
        ("Stage", f"{alert.stage_name} ({alert.stage + 1})"),
        ("By", alert.actor),
    ]
    evidence = alert.evidence
    if "log_e" in evidence and "log_e_needed" in evidence:
        facts.append(("Evidence", f"ln E {evidence['log_e']:.2f}, harm is proven at {evidence['log_e_needed']:.2f}"))
    counts = evidence.get("counts")
    if isinstance(counts, dict):
        facts.append(("Devices", f"{counts.get('activated_t', 0)} activated, {counts.get('reported_t', 0)} reported"))
    return facts


def _slack(alert: Alert) -> dict[str, Any]:
    """Blocks of plain text: what a person wrote as a reason calls nobody, and is no link and no heading."""

    def text(words: str, *, chars: int = _TEXT_CHARS) -> dict[str, Any]:
        return {"type": "plain_text", "text": in_slack(words)[:chars], "emoji": False}

    title = f"{_EMOJI[alert.severity]} {alert.title}"
    return {
        "text": in_slack(f"{title}: {alert.because}")[:_TEXT_CHARS],
        "mrkdwn": False,
        "blocks": [
            {"type": "header", "text": text(title, chars=150)},
            {"type": "section", "text": text(alert.because or "no reason was given")},
            {"type": "section", "fields": [_slack_fact(name, value) for name, value in _facts(alert)]},
            {"type": "context", "elements": [text(f"{_time(alert.at)} · {alert.key}")]},
        ],
    }


def _slack_fact(name: str, value: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": f"{name}\n{in_slack(value)[:1900]}", "emoji": False}


def _pagerduty(alert: Alert, *, routing_key: str) -> dict[str, Any]:
    event = {
        "routing_key": routing_key,
        "event_action": "resolve" if alert.status == "resolved" else "trigger",
        "dedup_key": alert.thread[:255],
    }
    if alert.status == "resolved":
        return event
    return event | {
        "client": "Whimbrel",
        "payload": {
            "summary": f"{alert.title}: {alert.because}"[:_SUMMARY_CHARS],
            "source": f"whimbrel/{alert.namespace}",
            "severity": alert.severity,
            "timestamp": _time(alert.at),
            "component": alert.model or alert.device or alert.role or alert.namespace,
            "group": alert.rollout or alert.experiment or f"{_about(alert)}s",
            "class": alert.event,
            "custom_details": document(alert),
        },
    }


def _alertmanager(alert: Alert, destination: Destination, *, now: float) -> Post:
    began = datetime.fromtimestamp(alert.at, UTC)
    over = alert.status == "resolved"
    ends = datetime.fromtimestamp(now, UTC) if over else began + _ENDS_AFTER
    severities = ("critical", "warning") if over else (alert.severity,)
    body = [
        {
            "labels": {
                "alertname": _alertname(alert),
                "severity": severity,
                "namespace": alert.namespace,
                **_labels(alert),
            },
            "annotations": {
                "summary": alert.title,
                "description": alert.because,
                "moment": alert.event,
                **({"stage": alert.stage_name} if alert.rollout else {}),
                "key": alert.key,
            },
            "startsAt": _time(alert.at if not over else min(alert.at, now)),
            "endsAt": _time(ends.timestamp()),
        }
        for severity in severities
    ]
    return Post(encode(body), {"Authorization": f"Bearer {destination.secret}"} if destination.secret else {})


def _about(alert: Alert) -> str:
    if alert.is_of_namespace:
        return "namespace"
    return "device" if alert.device else "monitor" if alert.monitor else "role" if alert.role else "rollout"


def _alertname(alert: Alert) -> str:
    if alert.experiment:
        return "WhimbrelExperiment"
    return f"Whimbrel{_about(alert).capitalize()}"


def _labels(alert: Alert) -> dict[str, str]:
    """What tells one alert from another at Alertmanager."""
    if alert.rollout:
        return {"model": alert.model, "rollout": alert.rollout}
    if alert.experiment:  # without its arm: the end of the experiment ends what was said of each
        return {"model": alert.model, "experiment": alert.experiment}
    if alert.is_of_namespace:
        return {"about": alert.thread.rpartition("/")[2]}
    return _subject(alert)


def mail(alert: Alert, destination: Destination, *, plot: bytes | None) -> EmailMessage:
    """The e-mail: text, and HTML with the plot."""
    alert = _plain(alert)
    message = EmailMessage(policy=SMTP)
    message["Subject"] = f"[{alert.severity}] {alert.title}"
    message["From"] = Address("Whimbrel", addr_spec=destination.receiver.sender or f"whimbrel@{_DOMAIN}")
    message["To"] = ", ".join(destination.receiver.to)
    message["Date"] = datetime.fromtimestamp(alert.at, UTC)
    message["Message-ID"] = f"<{_token(alert.key)}@{_DOMAIN}>"
    message["References"] = f"<{_token(alert.thread)}@{_DOMAIN}>"
    message["Auto-Submitted"] = "auto-generated"
    facts = "\n".join(f"{name:<10}{value}" for name, value in _facts(alert))
    message.set_content(f"{alert.title}\n\n{alert.because}\n\n{facts}\n{'At':<10}{_time(alert.at)}\n")
    rows = "".join(
        f'<tr><td style="padding:2px 16px 2px 0;color:#666">{in_html(name)}</td><td>{in_html(value)}</td></tr>'
        for name, value in [*_facts(alert), ("At", _time(alert.at))]
    )
    color = {"critical": "#b00020", "warning": "#b26a00", "info": "#1f6f8b"}[alert.severity]
    picture = '<p><img src="cid:plot" alt="evidence over time" width="640" style="max-width:100%"></p>' if plot else ""
    message.add_alternative(
        f'<div style="font-family:sans-serif;max-width:680px"><h2 style="color:{color};font-size:18px">'
        f"{in_html(alert.title)}</h2><p>{in_html(alert.because)}</p>"
        f'<table style="border-collapse:collapse;font-size:14px">{rows}</table>{picture}</div>',
        subtype="html",
    )
    if plot and (html := message.get_body(("html",))) is not None:
        html.add_related(plot, "image", "png", cid="<plot>", filename="evidence.png", disposition="inline")
    return message


def _token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
