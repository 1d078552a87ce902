"""The provider that people sign in with hangs, drips, or is down: how long is it waited for, how often is it asked?"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from litestar.connection import ASGIConnection

from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.flows.accounts.permissions import Role
from whimbrel.server.admin.operations import address_of
from whimbrel.server.oidc import OidcProvider
from whimbrel.server.oidc_settings import OidcRole, OidcSettings


class Hostile(ThreadingHTTPServer):
    """`drips`: a byte now and then, without end; otherwise it says 503."""

    daemon_threads = True
    asked = 0

    def __init__(self, *, drips: bool) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                Hostile.asked += 1
                self.send_response(200 if drips else 503)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while drips:
                        self.wfile.write(b" ")
                        time.sleep(0.02)

            def log_message(self, format: str, *args: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


@contextlib.contextmanager
def hostile(*, drips: bool) -> Iterator[OidcProvider]:
    Hostile.asked = 0
    with Hostile(drips=drips) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        role = OidcRole(claim="groups", value="ml", roles=(Role.RELEASER,))
        issuer = f"http://127.0.0.1:{server.server_port}"
        yield OidcProvider(OidcSettings(issuer=issuer, client_id="whimbrel", roles=(role,)), clock=time.time)
        server.shutdown()


def test_a_provider_that_drips_is_given_up_at_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline was one of each read: a byte now and then held a sign-in for as long as the provider liked."""
    monkeypatch.setattr(limits, "OIDC_WAIT_S", 0.5)
    with hostile(drips=True) as provider:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"did not answer within 0.5 s"):
            asyncio.run(provider.endpoints())
        assert time.monotonic() - began < 5


def test_a_provider_that_is_down_is_asked_once_by_all_who_sign_in() -> None:
    """Each of a thousand sign-ins, which need no token, asked it again."""

    async def many(provider: OidcProvider) -> list[BaseException | tuple[str, str]]:
        return await asyncio.gather(*(provider.endpoints() for _ in range(50)), return_exceptions=True)

    with hostile(drips=False) as provider:
        answers = asyncio.run(many(provider))
        assert all(isinstance(each, Unavailable) for each in answers)
        assert Hostile.asked == 1


def test_all_addresses_of_one_client_count_as_one() -> None:
    """Whoever has an IPv6 network has 2^64 addresses, and each of them could try 20 tokens a minute."""
    places = [
        address_of(_connection(host))
        for host in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1", "::ffff:192.0.2.7", "192.0.2.7")
    ]
    assert places == ["2001:db8::/64", "2001:db8::/64", "2001:db8:0:1::/64", "192.0.2.7", "192.0.2.7"]


def _connection(host: str) -> Any:
    scope: Any = {"type": "http", "client": [host, 1]}
    return ASGIConnection(scope)
