"""A person signs in with a provider in the browser, and the answer comes back to this command. (RFC 8252, RFC 7636)

1. The command is a public client: it holds no secret. What the browser brings back is worth nothing without the
   verifier that never left this process (PKCE, S256), and is of this sign-in (`state`).
2. The provider sends the browser to a port of this machine, or, where the browser is on another machine, the person
   pastes the address that the browser ended at. Whatever else asks that port (any page that a browser shows can) is
   no answer, and neither ends the sign-in nor holds it up.
3. Only an https:// address is opened, whatever the server says.
"""

import base64
import hashlib
import hmac
import http.server
import queue
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec

from whimbrel import limits
from whimbrel.cli.server_channel import provider_authorities
from whimbrel.errors import Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.model.document_errors import sentence
from whimbrel.server.admin.views.accounts import SignInView
from whimbrel.server.oidc_settings import is_safe_url

WAIT_S = 300.0  # for a person: half of the life of the server's nonce
_NOWHERE = "http://127.0.0.1:1/callback"  # a port that nothing listens on: the address bar keeps the answer
_PAGE = (
    b"<!doctype html><title>Whimbrel</title><p>Whimbrel has the answer. Close this page, and go back to the terminal.\n"
)


def id_token_by_browser(begun: SignInView, *, open_url: Callable[[str], None]) -> str:
    """The ID token of who signs in. `open_url` shows a person the address. Raises `Unavailable` where nobody did."""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if not flow.is_answer(self.path):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(_PAGE)))
            self.end_headers()
            with suppress(OSError):  # a browser that is gone has given its answer all the same
                self.wfile.write(_PAGE)
            answers.put(self.path)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the address holds the code."""

    with _Listener(("127.0.0.1", 0), Handler) as listener:
        flow = _Flow(begun, redirect_uri=f"http://127.0.0.1:{listener.server_port}/callback")
        threading.Thread(target=listener.serve_forever, args=(0.1,), daemon=True).start()
        try:
            open_url(flow.url)
            answer = answers.get(timeout=WAIT_S)
        except queue.Empty:
            raise Unavailable(f"nobody signed in within {WAIT_S:.0f} s; try again") from None
        finally:
            listener.shutdown()
    return flow.id_token(answer)


class _Listener(http.server.ThreadingHTTPServer):
    """Each connection has a thread: a browser opens some ahead of need, and whoever says nothing holds up nobody."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a browser may close whenever it likes."""


def id_token_by_paste(begun: SignInView, *, ask: Callable[[str], str]) -> str:
    """The same, where the browser is on another machine. `ask` shows the address, and gives what was pasted."""
    flow = _Flow(begun, redirect_uri=_NOWHERE)
    return flow.id_token(ask(flow.url))


class _Flow:
    """One sign-in: the address to open, and the exchange of the code that comes back."""

    def __init__(self, begun: SignInView, *, redirect_uri: str) -> None:
        for url in (begun.authorization_endpoint, begun.token_endpoint):
            if not is_safe_url(url):  # it is opened on this machine, and a browser opens more than web pages
                raise UntrustedInput(f"the server says to sign in at {url[:200]!r}; expected an https:// URL")
        self._begun = begun
        self._redirect_uri = redirect_uri
        self._state, self._verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)

    @property
    def url(self) -> str:
        """Where the person signs in."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self._verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._begun.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._begun.scopes),
            "state": self._state,
            "nonce": self._begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = self._begun.authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def is_answer(self, path: str) -> bool:
        """Whether a request is the provider's answer to this sign-in. Others change nothing."""
        parts = urlsplit(path)
        return parts.path == "/callback" and self._is_ours(parse_qs(parts.query).get("state", [""])[0])

    def _is_ours(self, state: str) -> bool:
        return hmac.compare_digest(state.encode(), self._state.encode())

    def id_token(self, answer: str) -> str:
        """The ID token for what came back. Raises `Refused` where the provider said no, `UntrustedInput`."""
        given = {name: values[0] for name, values in parse_qs(urlsplit(answer.strip()).query).items()}
        if not self._is_ours(given.get("state", "")):
            raise UntrustedInput("the answer is of another sign-in; begin again: whimbrel login")
        if given.get("iss", self._begun.issuer) != self._begun.issuer:  # RFC 9207
            raise UntrustedInput(f"the answer is of {given['iss']!r}; expected {self._begun.issuer!r}")
        if "error" in given:
            why = given.get("error_description") or given["error"]
            raise Refused(f"the provider did not let you in: {why[:200]}")
        if "code" not in given:
            raise UntrustedInput("the answer has no code; copy the whole address from the browser")
        return self._exchange(given["code"])

    def _exchange(self, code: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": self._begun.client_id,
            "code_verifier": self._verifier,
        }
        try:
            answer = httpx.post(
                self._begun.token_endpoint, data=form, timeout=limits.OIDC_WAIT_S, verify=provider_authorities()
            )
            given = msgspec.json.decode(answer.content, type=dict[str, object])
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise Unavailable(
                f"the provider does not answer as expected ({sentence(reason_of(error))}); try again"
            ) from error
        token = given.get("id_token")
        if not isinstance(token, str):
            why = given.get("error_description") or given.get("error") or f"status {answer.status_code}"
            raise Refused(
                f"the provider gave no ID token ({str(why)[:200]}); is whimbrel registered there as a public client "
                "with PKCE?"
            )
        return token
