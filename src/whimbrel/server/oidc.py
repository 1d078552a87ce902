"""Is this ID token the provider's, for us, and about this sign-in? OpenID Connect Core 1.0, section 3.1.3.7.

1. The provider's configuration and keys come from its issuer's URL, over https (or this machine's loopback), bounded in
   size and time, and are kept for an hour. A key that is not there has them read anew, once a minute. One reading is
   under way at a time, and all who wait have what it finds: its answer, or that there was none.
2. Signatures are verified by joserfc, with public keys alone: neither `none`, nor a public key that is taken for a
   shared secret, is an algorithm here.
3. Issuer, audience, authorised party, expiry, and age are checked here; the nonce is the caller's to take
   (`flows/accounts/sign_in`), since it is good once.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from whimbrel import limits
from whimbrel.errors import NotAllowed, Unavailable, reason_of
from whimbrel.flows.accounts.sign_in import NONCE_LIFE_S, Identity
from whimbrel.model.document_errors import sentence
from whimbrel.server.oidc_settings import OidcSettings, is_safe_url

log = logging.getLogger(__name__)

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
_PUBLIC_KEYS = {"RSA", "EC", "OKP"}
_KEPT_S = 3600.0
_AGAIN_S = 60.0
_LEEWAY_S = 60


class _Configuration(msgspec.Struct, frozen=True):
    """The fields of the discovery document that are used (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Read(msgspec.Struct, frozen=True):
    at: float
    configuration: _Configuration
    keys: KeySet


class OidcProvider:
    """The provider that people sign in with. `clock` gives POSIX seconds."""

    def __init__(
        self,
        settings: OidcSettings,
        *,
        clock: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`transport`: how its issuer is reached; None: over the network."""
        self.settings = settings
        self._clock = clock
        self._transport = transport
        self._last: _Read | None = None
        self._failed: tuple[float, Unavailable] | None = None  # the last reading, where it found no answer
        self._reading = asyncio.Lock()

    async def endpoints(self) -> tuple[str, str]:
        """Where a person signs in, and where a code is changed for an ID token. Raises `Unavailable`."""
        configuration = (await self._read()).configuration
        return configuration.authorization_endpoint, configuration.token_endpoint

    async def exchange(self, code: str, *, verifier: str, redirect_uri: str) -> str:
        """The ID token for a code that a browser came back with. Raises `NotAllowed`, `Unavailable`."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self.settings.client_id,
            "code_verifier": verifier,
        }
        _, endpoint = await self.endpoints()
        async with httpx.AsyncClient(timeout=limits.OIDC_WAIT_S, transport=self._transport) as http:
            given = _decoded(await _fetch(http, endpoint, form=form), dict[str, Any])
        token = given.get("id_token")
        if not isinstance(token, str):
            why = str(given.get("error_description") or given.get("error") or "nothing else")[:200]
            raise NotAllowed(f"the provider gave no ID token, and said: {why}; begin the sign-in again")
        return token

    async def verify(self, id_token: str, *, namespace: str) -> Identity:
        """Who signed in. Raises `NotAllowed` for a token that is not this provider's, not for us, or over."""
        if len(id_token) > limits.OIDC_BYTES:
            raise NotAllowed("this is no ID token: it is too long")
        claims = await self._claims(id_token)
        self._check(claims)
        name = claims.get(self.settings.name_claim)
        if not isinstance(name, str) or not name:
            raise NotAllowed(f"the ID token has no {self.settings.name_claim}, by which people are named here")
        if self.settings.name_claim == "email" and claims.get("email_verified") is not True:
            raise NotAllowed(
                f"the provider has not verified the address {name}; verify it there, or let name_claim in "
                "whimbrel.toml name a claim that people cannot choose"
            )
        return Identity(
            issuer=self.settings.issuer,
            subject=claims["sub"],
            name=name,
            nonce=claims["nonce"],
            roles=self.settings.roles_of(claims, namespace=namespace),
        )

    async def _claims(self, id_token: str) -> dict[str, Any]:
        """What it says, its signature verified."""
        read = await self._read()
        try:
            return jwt.decode(id_token, read.keys, algorithms=_ALGORITHMS).claims
        except (JoseError, ValueError) as error:
            if self._clock() < read.at + _AGAIN_S:
                raise _refused(error) from error
        read = await self._read(anew=True)  # the provider may have changed its keys
        try:
            return jwt.decode(id_token, read.keys, algorithms=_ALGORITHMS).claims
        except (JoseError, ValueError) as error:
            raise _refused(error) from error

    def _check(self, claims: Mapping[str, Any]) -> None:
        wanted = jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": self.settings.issuer},
            aud={"essential": True, "value": self.settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True},
        )
        try:
            wanted.validate(dict(claims))
        except JoseError as error:
            raise _refused(error) from error
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if claims.get("azp", self.settings.client_id) != self.settings.client_id or (
            len(audiences) > 1 and "azp" not in claims
        ):
            raise NotAllowed("the ID token was made for another application; sign in again: whimbrel login")
        if not isinstance(claims["nonce"], str) or len(claims["sub"]) > limits.LABEL_VALUE_CHARS * 2:
            raise NotAllowed("the ID token's nonce or sub is not as OpenID Connect has it")
        if claims["iat"] < self._clock() - NONCE_LIFE_S - _LEEWAY_S:
            raise NotAllowed("the ID token is of an earlier sign-in; sign in again: whimbrel login")

    async def _read(self, *, anew: bool = False) -> _Read:
        async with self._reading:
            now = self._clock()
            if self._last is not None and now < self._last.at + (_AGAIN_S if anew else _KEPT_S):
                return self._last
            if self._failed is not None and self._failed[0] <= now < self._failed[0] + limits.OIDC_FAILED_S:
                raise Unavailable(str(self._failed[1]))
            try:
                async with asyncio.timeout(limits.OIDC_WAIT_S):
                    self._last = await self._fetched(now)
            except TimeoutError:
                words = (
                    f"the provider that people sign in with did not answer within {limits.OIDC_WAIT_S:g} s "
                    f"({self.settings.issuer}); try again later"
                )
                self._failed = self._clock(), Unavailable(words)
                raise Unavailable(words) from None
            except Unavailable as error:
                self._failed = self._clock(), error
                raise
            return self._last

    async def _fetched(self, now: float) -> _Read:
        issuer = self.settings.issuer
        async with httpx.AsyncClient(timeout=limits.OIDC_WAIT_S, transport=self._transport) as http:
            configuration = _decoded(
                await _fetch(http, f"{issuer.rstrip('/')}/.well-known/openid-configuration"), _Configuration
            )
            if configuration.issuer != issuer:
                raise Unavailable(f"the provider calls itself {configuration.issuer!r}; expected {issuer!r}")
            for url in (configuration.authorization_endpoint, configuration.token_endpoint, configuration.jwks_uri):
                if not is_safe_url(url):
                    raise Unavailable(f"the provider's configuration names {url!r}; expected an https:// URL")
            keys = _decoded(await _fetch(http, configuration.jwks_uri), dict[str, Any]).get("keys")
        return _Read(now, configuration, _key_set(keys))


async def _fetch(http: httpx.AsyncClient, url: str, *, form: dict[str, str] | None = None) -> bytes:
    """The body at `url`; of what a `form` is answered, also where it is refused (400). Raises `Unavailable`."""
    try:
        async with http.stream("GET" if form is None else "POST", url, data=form) as answer:
            if form is None or answer.status_code != httpx.codes.BAD_REQUEST:
                answer.raise_for_status()
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > limits.OIDC_BYTES:
                    raise Unavailable(f"{url} has over {limits.OIDC_BYTES} bytes; expected a short JSON document")
            return body
    except httpx.HTTPError as error:
        raise Unavailable(
            f"the provider that people sign in with does not answer ({url}: {reason_of(error)}); "
            "try again later, or look at [oidc] in whimbrel.toml"
        ) from error


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the provider's answer cannot be read: {sentence(str(error))}") from error


def _key_set(keys: object) -> KeySet:
    """The public keys that sign. Raises `Unavailable` where there is none."""
    signing = [
        key
        for key in (keys if isinstance(keys, list) else [])
        if isinstance(key, dict) and key.get("kty") in _PUBLIC_KEYS and key.get("use", "sig") == "sig"
    ]
    if not signing:
        raise Unavailable("the provider has no key that signs")
    try:
        return KeySet.import_key_set({"keys": signing})
    except (JoseError, ValueError, TypeError) as error:
        raise Unavailable(f"the provider's keys cannot be read: {error}") from error


def _refused(error: Exception) -> NotAllowed:
    return NotAllowed(f"the ID token is not accepted ({error}); sign in again: whimbrel login")
