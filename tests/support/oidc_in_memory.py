"""A provider of OpenID Connect as an object of this process, and a server in memory whose people sign in with it."""

from collections.abc import Callable
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from support.accounts import refusal
from support.server_in_memory import ServerInMemory
from support.values import T0
from whimbrel.flows.accounts.permissions import Role
from whimbrel.server.oidc import OidcProvider
from whimbrel.server.oidc_settings import OidcRole, OidcSettings

ISSUER, CLIENT = "https://id.example.com", "whimbrel"
CONFIGURATION = f"{ISSUER}/.well-known/openid-configuration"
KEYS = f"{ISSUER}/keys"
RULES = (
    OidcRole(claim="groups", value="ml-release", roles=(Role.RELEASER, Role.PIPELINE)),
    OidcRole(claim="department", value="security", roles=(Role.SECURITY,)),
    OidcRole(claim="groups", value="ml-cameras", roles=(Role.ADMIN,), namespace="cameras"),
)
SETTINGS = OidcSettings(issuer=ISSUER, client_id=CLIENT, roles=RULES)


class Issuer:
    """A provider: what it answers, and the ID tokens that it gives. `asked`: the URLs that were fetched."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", parameters={"kid": "first"})
        self.asked: list[str] = []
        self.fails: httpx.Response | Exception | None = None
        self.configuration: dict[str, Any] = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": KEYS,
            "further": "field",
        }
        self.keys: list[Any] = [self.public()]

    def public(self) -> dict[str, Any]:
        return dict(self.key.as_dict(private=False)) | {"use": "sig"}

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails is not None:
            return self.fails
        return httpx.Response(
            200, json=self.configuration if str(request.url) == CONFIGURATION else {"keys": self.keys}
        )

    def provider(self, clock: Callable[[], float], settings: OidcSettings = SETTINGS) -> OidcProvider:
        return OidcProvider(settings, clock=clock, transport=httpx.MockTransport(self.answer))

    def token(self, *, now: float = T0, **claims: Any) -> str:
        right: dict[str, Any] = {"iss": ISSUER, "aud": CLIENT, "sub": "s-ada", "iat": int(now), "exp": int(now) + 300}
        right |= {"email": "ada@example.com", "email_verified": True, "groups": ["ml-release"]}
        body = {name: value for name, value in (right | claims).items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, body, self.key)


class Stage:
    """A server whose people sign in with the issuer."""

    def __init__(self, server: ServerInMemory, settings: OidcSettings = SETTINGS) -> None:
        self.server, self.issuer = server, Issuer()
        self.provider = self.issuer.provider(server.clock, settings)
        context = msgspec.structs.replace(server.repository.admin_context(), oidc=self.provider)
        self.app = server.admin_over(context)
        self.nobody = self.client("")

    def client(self, token: str | None, *, address: str = "192.0.2.1") -> httpx.Client:
        return self.server.people(token, app=self.app, address=address)

    def nonce(self) -> str:
        return str(self.nobody.post("sign-in/begin").raise_for_status().json()["nonce"])

    def sign_in(self, **claims: Any) -> httpx.Response:
        """Begin, sign in at the provider, and finish."""
        token = self.issuer.token(**{"nonce": self.nonce(), "now": self.server.clock.now} | claims)
        return self.nobody.post("sign-in", json={"id_token": token})

    def refused(self, *, status: int = 401, **claims: Any) -> str:
        return refusal(self.sign_in(**claims), status=status)
