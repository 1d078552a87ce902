"""Which browser is whose? The sessions of this process, behind cookies.

1. A cookie holds 256 random bits; here they are known by their SHA-256. A session names the token that it was made by,
   and ends with it, after some hours in any case, after some hours without a request, and when its person signs out.
2. Sessions live in memory: a restart of the server signs everybody out, and what a form held is carried on.
3. Each has a token for its forms (`csrf`), which no other site can know.
4. There is one a namespace and browser. Over TLS cookies have the prefix `__Host-`, so that no other host sets them.
"""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from litestar.datastructures import Cookie

from whimbrel import limits

_SECRET_BYTES = 32


class Session(msgspec.Struct):
    """A session of a browser. `token`: the id of the token that it stands for; `until`: POSIX seconds."""

    namespace: str
    token: str
    csrf: str
    until: float
    used_at: float


class Sessions:
    """The sessions of one process. `clock` gives POSIX seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, namespace: str, *, token: str, life_s: float) -> tuple[str, Session]:
        """A new session, and what its cookie holds."""
        secret, now = secrets.token_urlsafe(_SECRET_BYTES), self._clock()
        session = Session(namespace, token, secrets.token_urlsafe(_SECRET_BYTES), now + life_s, now)
        with self._lock:
            self._sessions[_digest(secret)] = session
            while len(self._sessions) > limits.CONSOLE_SESSIONS:
                self._sessions.popitem(last=False)
        return secret, session

    def find(self, namespace: str, secret: str | None) -> Session | None:
        """The session that a cookie names, where it is good; it was used now."""
        if not secret or len(secret) > limits.SECRET_BYTES:
            return None
        key, now = _digest(secret), self._clock()
        with self._lock:
            session = self._sessions.get(key)
            if session is None or session.namespace != namespace:
                return None
            if not (now < session.until and now < session.used_at + limits.CONSOLE_IDLE_S):
                del self._sessions[key]
                return None
            session.used_at = now
            self._sessions.move_to_end(key)
            return session

    def end(self, secret: str | None) -> None:
        """End a session."""
        if secret:
            with self._lock:
                self._sessions.pop(_digest(secret), None)


def is_csrf(session: Session, given: str | None) -> bool:
    """Whether a form is of this session."""
    return hmac.compare_digest(session.csrf.encode(), (given or "").encode("utf-8", "surrogateescape"))


def session_cookie(namespace: str, *, secure: bool) -> str:
    """The name of a namespace's cookie."""
    return f"{'__Host-' if secure else ''}whimbrel-{namespace}"


def cookie(name: str, value: str, *, secure: bool, max_age_s: float | None) -> Cookie:
    """A cookie that no script reads, and that no other site's forms bring. `max_age_s` 0: it is to be forgotten."""
    return Cookie(
        key=name,
        value=value,
        path="/",
        httponly=True,
        secure=secure,
        samesite="lax",
        max_age=None if max_age_s is None else int(max_age_s),
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
