"""Who receives which alerts: receivers, as the operator writes them into `whimbrel.toml`. A plan only names them.

    [[receivers]]
    name = "oncall"
    form = "pagerduty"                        # generic, slack, pagerduty, alertmanager, email
    url = "https://events.pagerduty.com/v2/enqueue"
    secret_from = "file:pagerduty.key"        # or "env:NAME"; a path is beside this file
    on = ["slice_back", "rolled_back"]        # of every rollout, besides what plans ask for

1. Addresses come from this file alone: a plan, a device or an API call cannot make the server speak to an address.
2. Secrets are read when something is sent, and stand in no log, answer or audit entry. A URL that is itself a secret
   (Slack's) is named by `url_from`.
3. What is about a device and no rollout (`duplicate_identity`) can be asked for here alone.
"""

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.flows.alerts import Event
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name
from whimbrel.model.patterns import matching

Source = Annotated[str, matching("^(env:[A-Za-z_][A-Za-z0-9_]{0,127}|file:.{1,1024})$", "env:NAME or file:PATH")]
Address = Annotated[str, matching(r"^[^@\s<>,]{1,64}@[^@\s<>,]{1,255}$", "an e-mail address such as ops@example.com")]
_SCHEMES = {"email": ("smtp", "smtps", "smtp+starttls")}
_HTTP = ("http", "https")


class Receiver(Document, frozen=True):
    """One `[[receivers]]` table.

    `secret_from` signs the body (generic), is the routing key (pagerduty), a bearer token (alertmanager) or the
    password (email).
    """

    name: Name
    form: Literal["generic", "slack", "pagerduty", "alertmanager", "email"]
    url: Annotated[str, Meta(max_length=2048)] = ""
    url_from: Source | None = None
    secret_from: Source | None = None
    on: Annotated[tuple[Event, ...], Meta(max_length=32)] = ()
    plot: bool = False  # generic: with the picture in the body, as base64
    sender: Address | None = None  # email: From
    to: Annotated[tuple[Address, ...], Meta(max_length=limits.ALERT_ADDRESSES)] = ()
    user: Annotated[str, Meta(max_length=256)] = ""

    def __post_init__(self) -> None:
        if bool(self.url) == (self.url_from is not None):
            raise ValueError(f"receiver {self.name!r} needs `url`, or `url_from` where the address is a secret")
        if self.form == "pagerduty" and self.secret_from is None:
            raise ValueError(f"receiver {self.name!r} needs `secret_from`: PagerDuty's routing key")
        if self.form == "email" and (self.sender is None or not self.to):
            raise ValueError(f"receiver {self.name!r} needs `sender` and `to`")
        if self.url:
            self.check(self.url)

    def check(self, url: str) -> None:
        """Raises `ValueError` for an address that this form cannot be sent to."""
        schemes = _SCHEMES.get(self.form, _HTTP)
        try:
            parts = urlsplit(url)
            bad = parts.scheme not in schemes or not parts.hostname
            _ = parts.port
        except ValueError:
            bad = True
        if bad:
            expected = " or ".join(f"{scheme}://host" for scheme in schemes)
            raise ValueError(f"receiver {self.name!r}: its address is not understood; expected {expected}/...")


class Destination(msgspec.Struct, frozen=True):
    """Where one delivery goes: a receiver with its secrets."""

    receiver: Receiver
    url: str
    secret: str

    def without_secrets(self, text: str) -> str:
        """A receiver's answer, or an error, for the log and for people: it may repeat what it was sent."""
        for secret in (self.secret, self.url if self.receiver.url_from is not None else ""):
            text = text.replace(secret, "***") if secret else text
        return text


def reveal(receiver: Receiver, *, folder: Path) -> Destination:
    """Read a receiver's secrets. Raises `UntrustedInput` where one is missing, or the address is none."""
    url = receiver.url or _read(receiver.url_from, folder=folder, what=f"the address of receiver {receiver.name}")
    try:
        receiver.check(url)
    except ValueError as error:
        raise UntrustedInput(str(error)) from error
    secret = _read(receiver.secret_from, folder=folder, what=f"the secret of receiver {receiver.name}")
    return Destination(receiver, url, secret)


def _read(source: Source | None, *, folder: Path, what: str) -> str:
    if source is None:
        return ""
    kind, _, name = source.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
    else:
        try:
            with (folder / name).open("rb") as file:
                value = file.read(limits.SECRET_BYTES + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UntrustedInput(f"{what} cannot be read from {source}: {reason_of(error)}") from error
    value = value.strip()
    if not value or len(value) > limits.SECRET_BYTES or "\n" in value:
        raise UntrustedInput(f"{what} is expected in {source}, as one line of at most {limits.SECRET_BYTES} characters")
    return value
