"""`whimbrel device`: the devices of a fleet, and which of them may speak."""

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.device_history import device_history
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, ago, print_json, print_table, say, when
from whimbrel.errors import UntrustedInput
from whimbrel.health.report import Build
from whimbrel.server.admin.views.devices import (
    AllowAgain,
    DeviceDetail,
    DeviceModelView,
    DevicePageView,
    DeviceView,
    NewDeviceLabels,
    RemovedDevice,
)
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.admin.views.repository import AuditEntry

app = typer.Typer(
    help="Devices: what each runs and waits for, labels, and which of them may speak.",
    no_args_is_help=True,
    add_completion=False,
)

app.command("history")(device_history)

Device = Annotated[str, typer.Argument(help="A device's id, as `device list` shows it.", show_default=False)]
Why = Annotated[str, typer.Option("--because", help="The reason, for the audit log.")]

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)\Z")
_UNITS_S = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AUDIT_SHOWN = 10


@app.command("list")
@connected
def list_devices(
    client: Client,
    selector: Annotated[
        str,
        typer.Option("--selector", "-l", help="By label: region=NZ,os in (linux,android),ram_mb>512,!beta"),
    ] = "",
    model: Annotated[str | None, typer.Option(help="Devices that follow this model.")] = None,
    version: Annotated[
        str | None, typer.Option(help="And run this version of it, by any of its names; `none`: no version yet.")
    ] = None,
    silent_for: Annotated[
        str | None, typer.Option(help="Not heard for so long: 90s, 30min, 12h, 2d.", metavar="TIME")
    ] = None,
    blocked: Annotated[bool, typer.Option("--blocked", help="Blocked devices alone.")] = False,
    duplicate: Annotated[
        bool, typer.Option("--duplicate", help="Ids that two installations report with, such as a copied SD card.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")] = 100,
    after: Annotated[str, typer.Option(help="Only ids behind this one: where the last list ended.")] = "",
    json: Json = False,
) -> None:
    """Enrolled devices by id, with what they run, when they were heard last, and what they wait for."""
    page = _pages(
        client,
        limit=limit,
        after=after,
        selector=selector or None,
        model=model,
        version=version,
        silent_for_s=None if silent_for is None else span_s(silent_for),
        blocked=blocked or None,
        duplicate=duplicate or None,
    )
    if json:
        print_json(page)
        return
    rows = [row for device in page.devices for row in _rows(device, model=model)]
    print_table(["device", "model", "version", "for", "heard", "labels", "note"], rows, title="devices")
    if page.after is not None:
        say(f"there may be more: --after {page.after}")


@app.command("show")
@connected
def show(client: Client, device: Device, json: Json = False) -> None:
    """Everything that is known of one device."""
    detail = client.get(f"devices/{quoted(device)}", as_=DeviceDetail)
    if json:
        print_json(detail)
        return
    say(f"{detail.device_id}, enrolled {when(detail.enrolled_at)} UTC, last heard {ago(detail.heard_at)} ago")
    _say_access(detail)
    _say_admission(detail)
    say(f"  tells: {_words(detail.labels) or 'no labels (policies ask for none, or it has none of them)'}")
    if detail.operator_labels:
        say(f"  labels of operators: {_words(detail.operator_labels)}")
    rows = [
        [
            each.model,
            each.version or "none",
            _build_words(each.build),
            when(each.since),
            f"{ago(each.heard_at)} ago",
            _waits(each),
        ]
        for each in detail.models
    ]
    print_table(["model", "version", "build", "since (UTC)", "heard", "waits for"], rows, title="runs")
    if detail.cohorts:
        places = [
            [c.rollout, c.stage + 1, c.role, when(c.assigned_at), when(c.activated_at), when(c.reported_at), c.outcome]
            for c in detail.cohorts
        ]
        columns = ["rollout or experiment", "stage", "as", "since (UTC)", "activated", "first report", "outcome"]
        print_table(columns, places, title="counted in")
    entries = client.get("audit", as_=list[AuditEntry], device=device, limit=_AUDIT_SHOWN)
    if entries:
        rows = [[when(entry.at), entry.actor, entry.action, entry.because] for entry in entries]
        print_table(["when (UTC)", "who", "what", "because"], rows, title="history")


@app.command("label")
@connected
def label(
    client: Client,
    device: Device,
    labels: Annotated[
        list[str], typer.Argument(help="key=value sets a label; key- takes it away.", metavar="KEY=VALUE|KEY-...")
    ],
    because: Why = "",
    json: Json = False,
) -> None:
    """Give a device labels of your own, to find it by. No policy sees them: a device decides by its own labels."""
    given, without = _changes(labels)
    body = NewDeviceLabels(labels=given, without=tuple(without), because=because)
    detail = client.send("POST", f"devices/{quoted(device)}/labels", body, as_=DeviceDetail)
    if json:
        print_json(detail)
        return
    say(f"{device} has labels of operators: {_words(detail.operator_labels) or 'none'}")


@app.command("admit")
@connected
def admit(client: Client, device: Device, because: Why = "", json: Json = False) -> None:
    """Vouch for a device that a shared token let in after a rollout began: it counts there from its next window on."""
    detail = client.send("POST", f"devices/{quoted(device)}/admit", Reason(because=because), as_=DeviceDetail)
    if json:
        print_json(detail)
        return
    say(f"{device} is admitted by a person: it counts in every rollout and experiment, from its next report on")


@app.command("block")
@connected
def block(client: Client, device: Device, because: Why = "", json: Json = False) -> None:
    """Refuse what a device sends, within seconds and until it is unblocked. It goes on with the model that it has."""
    detail = client.send("POST", f"devices/{quoted(device)}/block", Reason(because=because), as_=DeviceDetail)
    if json:
        print_json(detail)
        return
    say(f"{device} is blocked: nothing that it sends is taken. Undo it with: whimbrel device unblock {device}")


@app.command("unblock")
@connected
def unblock(client: Client, device: Device, because: Why = "", json: Json = False) -> None:
    """Take again what a blocked device sends."""
    detail = client.send("POST", f"devices/{quoted(device)}/unblock", Reason(because=because), as_=DeviceDetail)
    if json:
        print_json(detail)
        return
    say(f"{device} is not blocked any more")


@app.command("allow-again")
@connected
def allow_again(
    client: Client,
    device: Device,
    within: Annotated[str, typer.Option("--for", help="It must come within so long: 1h, 2d.", metavar="TIME")] = "1d",
    key: Annotated[
        str | None,
        typer.Option(
            help="With this public key alone, which `whimbrel agent status` shows there; it needs no enrolment token."
        ),
    ] = None,
    because: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Let an enrolled id enrol once with another key: its disk was wiped, or its board was replaced."""
    if key is None:
        client.get(f"devices/{quoted(device)}")
        confirm(
            f"to allow {device} to enrol again",
            consequence="the first with an enrolment token that asks for this id has it; --key names the one",
            yes=yes,
        )
    body = AllowAgain(for_s=span_s(within), public_key=key, because=because)
    detail = client.send("POST", f"devices/{quoted(device)}/allow-again", body, as_=DeviceDetail)
    if json:
        print_json(detail)
        return
    until = when(detail.allowed_again_until)
    how = "with an enrolment token" if key is None else f"with the key {key}"
    say(f"{device} may enrol again until {until} UTC, once, {how}")


@app.command("remove")
@connected
def remove(client: Client, device: Device, because: Why = "", yes: Yes = False, json: Json = False) -> None:
    """Forget a device that is gone: it is listed and counted no more. Its id may enrol again, as a new device."""
    client.get(f"devices/{quoted(device)}")
    confirm(f"to remove {device}", consequence="what it told counts no more in rollouts that run", yes=yes)
    removed = client.send("POST", f"devices/{quoted(device)}/remove", Reason(because=because), as_=RemovedDevice)
    if json:
        print_json(removed)
        return
    left = f", and left {removed.cohorts} {'cohort' if removed.cohorts == 1 else 'cohorts'}" if removed.cohorts else ""
    say(f"{device} is removed{left}. Where it still has an enrolment token it enrols again; to keep it out, block it.")


def span_s(text: str) -> float:
    """Seconds of a span such as 90s, 30min, 12h or 2d. Raises `UntrustedInput`."""
    match = _SPAN.match(text.strip())
    if match is None:
        raise UntrustedInput(f"{text!r} is no span of time; expected one like 90s, 30min, 12h or 2d")
    return float(match[1]) * _UNITS_S[match[2]]


def _pages(client: Client, *, limit: int, after: str, **asked: object) -> DevicePageView:
    devices: list[DeviceView] = []
    cursor: str | None = after
    while cursor is not None and len(devices) < limit:
        most = min(limits.DEVICES_A_PAGE, limit - len(devices))
        page = client.get("devices", as_=DevicePageView, after=cursor, limit=most, **asked)
        devices += page.devices
        cursor = page.after
    return DevicePageView(devices=devices, after=cursor)


def _changes(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    without: list[str] = []
    for word in words:
        key, sign, value = word.partition("=")
        if sign:
            given[key] = value
        elif word.endswith("-") and len(word) > 1:
            without.append(word.removesuffix("-"))
        else:
            raise UntrustedInput(f"{word!r} is no label; expected key=value to set one, or key- to take it away")
    return given, without


def _rows(device: DeviceView, *, model: str | None) -> list[list[str]]:
    """A device's rows in the list: one a model, the first with what is the device's own."""
    marks = (["BLOCKED"] if device.blocked else []) + (["TWO INSTALLATIONS"] if device.duplicate else [])
    own = [device.device_id, f"{ago(device.heard_at)} ago", _words(device.labels | device.operator_labels)]
    shown = [each for each in device.models if model is None or each.model == model]
    if not shown:
        return [[own[0], "", "", "", *own[1:], "; ".join(marks)]]
    rows = []
    for number, each in enumerate(shown):
        name, heard, labels = own if number == 0 else ("", "", "")
        notes = [*(marks if number == 0 else []), *([f"waits: {each.waits_for}"] if each.waits_for else [])]
        since = ago(each.since) if each.since is not None else ""
        rows.append([name, each.model, each.version or "none", since, heard, labels, "; ".join(notes)])
    return rows


def _words(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _waits(each: DeviceModelView) -> str:
    if each.waits_for is None:
        return ""
    return each.waits_for if each.waits_told_at is None else f"{each.waits_for} (said {ago(each.waits_told_at)} ago)"


def _say_access(detail: DeviceDetail) -> None:
    if detail.blocked is not None:
        because = f": {detail.blocked.because}" if detail.blocked.because else ""
        say(f"  BLOCKED by {detail.blocked.actor}, {when(detail.blocked.since)} UTC{because}")
    twice = detail.duplicate
    if twice is not None:
        say(
            f"  TWO INSTALLATIONS report with this id since {when(twice.first_at)} UTC "
            f"({twice.signs} signs, the last {ago(twice.last_at)} ago): {twice.because}"
        )
        say("  was its disk or SD card copied? Give one of them another id: docs/howto/devices.md")


def _say_admission(detail: DeviceDetail) -> None:
    token = f" with the enrolment token {detail.enrol_token_name!r}" if detail.enrol_token_name else ""
    key = "proves a key of its own" if detail.has_key else "has no key: whoever has its credential is it"
    say(f"  came in as {detail.admission}, {when(detail.admitted_at)} UTC{token}; {key}")
    if detail.allowed_again_until is not None:
        say(f"  may enrol with another key until {when(detail.allowed_again_until)} UTC")
    if detail.granted_labels:
        say(f"  labels of the server: {_words(detail.granted_labels)}")


def _build_words(build: Build | None) -> str:
    """A build with what its probe measured, of its budgets: small (12 of 20 ms, 80 of 100 MiB)."""
    if build is None:
        return ""
    figures = [
        _of_budget(build.latency_ms, build.latency_ms_max, unit="ms"),
        _of_budget(build.memory_mib, build.memory_mib_max, unit="MiB"),
    ]
    told = ", ".join(each for each in figures if each)
    return f"{build.variant} ({told})" if told else build.variant


def _of_budget(measured: float | None, budget: float | None, *, unit: str) -> str:
    if budget is None:
        return "" if measured is None else f"{measured:.3g} {unit}"
    return f"at most {budget:g} {unit}" if measured is None else f"{measured:.3g} of {budget:g} {unit}"
