"""A provider of OpenID Connect on this machine: the package `oidc-provider-mock`, in a thread."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import RSAKey

with warnings.catch_warnings():  # the package uses modules that its library will move, and that library wants it said
    import authlib.deprecate

    warnings.simplefilter("ignore", authlib.deprecate.AuthlibDeprecationWarning)
    import oidc_provider_mock
    from oidc_provider_mock import _app, _storage

CLIENT = "whimbrel"


class Provider(msgspec.Struct):
    """A running provider. `key`: the one that it signs with, so that a test can forge what only a thief could."""

    issuer: str
    key: RSAKey

    def knows(self, subject: str, **claims: Any) -> None:
        """Let the provider know a person."""
        httpx.put(f"{self.issuer}/users/{subject}", json=claims).raise_for_status()

    def sign_in(self, url: str, subject: str) -> str:
        """What a person does in the browser: sign in at `url`; where the provider sends the browser then."""
        answer = httpx.post(url, data={"sub": subject})
        assert answer.status_code == 302, answer.text
        return str(answer.headers["location"])

    def token(self, *, key: RSAKey | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """An ID token with these claims over the right ones, signed with the provider's key or another."""
        now = int(time.time())
        right = {"iss": self.issuer, "aud": CLIENT, "sub": "s-ada", "iat": now, "exp": now + 300}
        right |= {"email": "ada@example.com", "email_verified": True, "groups": ["ml-release"]}
        signed_with = self.key if key is None else key
        signed = {"alg": "RS256", "kid": self.key.kid} | (header or {})
        body = {name: value for name, value in (right | claims).items() if value is not None}
        return jwt.encode(signed, body, signed_with)


@contextlib.contextmanager
def provider() -> Iterator[Provider]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _kept_storage() as kept, oidc_provider_mock.run_server_in_thread() as server:
            key = RSAKey.import_key(kept[-1].jwk.as_dict(is_private=True))
            yield Provider(f"http://localhost:{server.server_port}", key)


@contextlib.contextmanager
def _kept_storage() -> Iterator[list[Any]]:
    """The provider's storage, which it keeps to itself. It lets public clients in, as providers of people do (PKCE)."""
    made: list[Any] = []

    class Kept(_storage.Storage):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    grant = _app.AuthorizationCodeGrant
    before, methods, _app.Storage = _app.Storage, grant.TOKEN_ENDPOINT_AUTH_METHODS, Kept
    grant.TOKEN_ENDPOINT_AUTH_METHODS = [*methods, "none"]
    try:
        yield made
    finally:
        _app.Storage, grant.TOKEN_ENDPOINT_AUTH_METHODS = before, methods
