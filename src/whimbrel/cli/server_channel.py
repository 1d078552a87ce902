"""How does a command reach a server, so that nobody on the way has the token? Who vouches for the server?

1. A token is shown over https, or to this machine. `WHIMBREL_INSECURE_HTTP=1` lets a command show it over plain HTTP to
   another machine, where a VPN or the like protects the way.
2. `WHIMBREL_CA_FILE` names the authorities that are trusted instead of the well-known ones.

Called by `connect` and `login`.
"""

import os
import ssl
from urllib.parse import urlsplit

import httpx

from whimbrel.errors import Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.server.oidc_settings import is_safe_url

_INSECURE = "WHIMBREL_INSECURE_HTTP"


def check_channel(url: str) -> None:
    """Raises `Refused` for plain HTTP to another machine, `UntrustedInput` for what is no address of a server."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UntrustedInput(f"{url!r} is no address of a server; expected such as https://models.example.com:8471")
    if not is_safe_url(url) and os.environ.get(_INSECURE) != "1":
        raise Refused(
            f"{url} is another machine and has no TLS: who listens on the way would have your token. Use https:// "
            f"(whimbrel serve --admin-tls-cert), or a tunnel to 127.0.0.1; where the way is safe, set {_INSECURE}=1"
        )


def authorities() -> ssl.SSLContext | bool:
    """Who vouches for a server: the file that WHIMBREL_CA_FILE names, or the well-known authorities."""
    file = os.environ.get("WHIMBREL_CA_FILE")
    if not file:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # of SSL, too
        raise UntrustedInput(f"WHIMBREL_CA_FILE names {file}, which holds no certificates in PEM form") from error


def provider_authorities() -> ssl.SSLContext:
    """Who vouches for a provider that people sign in with: the well-known authorities, and those of the file."""
    context = httpx.create_ssl_context()
    if file := os.environ.get("WHIMBREL_CA_FILE"):
        try:
            context.load_verify_locations(cafile=file)
        except OSError as error:
            raise UntrustedInput(f"WHIMBREL_CA_FILE names {file}, which holds no certificates in PEM form") from error
    return context


def no_answer(who: str, error: httpx.TransportError) -> Unavailable:
    """The sentence about a server that did not answer."""
    why = reason_of(error)
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return Unavailable(
            f"{who} shows a certificate that is not trusted here ({why}); where your own authority signed it, name its "
            "file: WHIMBREL_CA_FILE=ca.pem"
        )
    return Unavailable(f"{who} does not answer ({why}); is it running?")
