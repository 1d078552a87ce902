"""Which device has a proxy verified by its TLS certificate? A header, taken from the proxies alone that are named.

[client_certificates]                  # in whimbrel.toml
header = "X-Client-Subject"            # that the proxy sets, and takes out of what clients send
proxies = ["10.0.0.5/32"]              # addresses that may set it
form = "subject"                       # "subject": a DN (RFC 4514), whose CN is the id; "id": the id itself
required = false                       # true: requests of devices without it are refused

1. Whoever else sends the header is refused: he tries to be somebody.
2. The device of a request must be the one that the certificate names.
3. A certificate that names an id is a proof of it, as good as its key: it enrols without a token, and again.
"""

import ipaddress
from typing import Annotated, Literal

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID
from msgspec import Meta

from whimbrel.errors import NotAllowed
from whimbrel.model.documents import Document
from whimbrel.model.ids import DeviceId
from whimbrel.model.patterns import matching
from whimbrel.server.http import PEER, Scope

_HEADER_CHARS = 4096


class ClientCertificates(Document, frozen=True):
    """The settings. Raises `ValueError` where a proxy is no address or network."""

    header: Annotated[str, matching(r"^[A-Za-z0-9-]{1,64}\Z", "the name of an HTTP header: letters, digits and -")]
    proxies: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)]
    form: Literal["subject", "id"] = "subject"
    required: bool = False

    def __post_init__(self) -> None:
        for each in self.proxies:
            ipaddress.ip_network(each)  # raises ValueError, which names it

    def device_of(self, scope: Scope) -> str | None:
        """The id that a certificate names; None where a request has none, and needs none. Raises `NotAllowed`."""
        name = self.header.lower().encode()
        values = [value for key, value in scope["headers"] if key.lower() == name]
        if not values:
            if self.required:
                raise NotAllowed("this server takes devices with a TLS certificate alone; connect through its proxy")
            return None
        if not self._is_proxy(scope):
            raise NotAllowed(f"{self.header} is taken from the proxies of this server alone; do not send it")
        if len(values) > 1 or len(values[0]) > _HEADER_CHARS:
            raise NotAllowed(f"the proxy sent {self.header} {len(values)} times, or too long; expected one certificate")
        return self._named(values[0])

    def _is_proxy(self, scope: Scope) -> bool:
        try:
            peer = ipaddress.ip_address((scope.get(PEER) or scope.get("client") or ("",))[0])
        except ValueError:
            return False  # no address: a local socket
        return any(peer in ipaddress.ip_network(each) for each in self.proxies)

    def _named(self, value: bytes) -> str:
        try:
            text = value.decode()
            if self.form == "subject":
                (text,) = [
                    str(each.value)
                    for each in x509.Name.from_rfc4514_string(text).get_attributes_for_oid(NameOID.COMMON_NAME)
                ]
            return msgspec.convert(text, type=DeviceId)
        except (ValueError, msgspec.ValidationError) as error:
            raise NotAllowed(f"{self.header} names no device; expected {self._expected}") from error

    @property
    def _expected(self) -> str:
        return "a device's id" if self.form == "id" else "a subject like CN=board-1,O=Example, with one CN"
