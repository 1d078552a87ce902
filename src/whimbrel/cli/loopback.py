"""A person signs in with a provider in the browser, and the answer comes back to this command. (RFC 8252, RFC 7636)

1. The command is a public client: it holds no secret. What the browser brings back is worth nothing without the
   verifier that never left this process (PKCE, S256), and is of this sign-in (`state`).
2. The provider sends the browser to a port of this machine, or, where the browser is on another machine, the person
   pastes the address that the browser ended at.
"""

import base64
import hashlib
import hmac
import http.server
import secrets
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec

from whimbrel import limits
from whimbrel.errors import Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.model.document_errors import sentence
from whimbrel.server.admin.views.accounts import SignInView

WAIT_S = 300.0  # for a person: half of the life of the server's nonce
_NOWHERE = "http://127.0.0.1:1/callback"  # a port that nothing listens on: the address bar keeps the answer
_PAGE = (
    b"<!doctype html><title>Whimbrel</title><p>Whimbrel has the answer. Close this page, and go back to the terminal.\n"
)


def id_token_by_browser(begun: SignInView, *, open_url: Callable[[str], None]) -> str:
    """The ID token of who signs in. `open_url` shows a person the address. Raises `Unavailable` where nobody did."""
    answers: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if urlsplit(self.path).path != "/callback":
                self.send_error(404)
                return
            answers.append(self.path)
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(_PAGE)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the address holds the code."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listener:
        flow = _Flow(begun, redirect_uri=f"http://127.0.0.1:{listener.server_port}/callback")
        open_url(flow.url)
        deadline = time.monotonic() + WAIT_S
        while not answers:
            listener.timeout = deadline - time.monotonic()
            if listener.timeout <= 0:
                raise Unavailable(f"nobody signed in within {WAIT_S:.0f} s; try again")
            listener.handle_request()
    return flow.id_token(answers[0])


def id_token_by_paste(begun: SignInView, *, ask: Callable[[str], str]) -> str:
    """The same, where the browser is on another machine. `ask` shows the address, and gives what was pasted."""
    flow = _Flow(begun, redirect_uri=_NOWHERE)
    return flow.id_token(ask(flow.url))


class _Flow:
    """One sign-in: the address to open, and the exchange of the code that comes back."""

    def __init__(self, begun: SignInView, *, redirect_uri: str) -> None:
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

    def id_token(self, answer: str) -> str:
        """The ID token for what came back. Raises `Refused` where the provider said no, `UntrustedInput`."""
        given = {name: values[0] for name, values in parse_qs(urlsplit(answer.strip()).query).items()}
        if not hmac.compare_digest(given.get("state", "").encode(), self._state.encode()):
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
            answer = httpx.post(self._begun.token_endpoint, data=form, timeout=limits.OIDC_WAIT_S)
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
