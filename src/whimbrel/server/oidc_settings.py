"""How people sign in with a provider, and which of its claims give which roles: `[oidc]` of `whimbrel.toml`.

[oidc]
issuer = "https://id.example.com"
client_id = "whimbrel"            # a public client with PKCE; its redirect URI: http://127.0.0.1/callback, any port
name_claim = "email"              # what people are called in the audit log

[[oidc.roles]]
claim = "groups"
value = "ml-release"
roles = ["releaser"]              # in every namespace, unless one is named: namespace = "cameras"
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from whimbrel import limits
from whimbrel.flows.accounts.permissions import Role
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name

_Text = Annotated[str, Meta(min_length=1, max_length=512)]


class OidcRole(Document, frozen=True):
    """Roles of everybody whose `claim` is, or has among its values, `value`."""

    claim: _Text
    value: _Text
    roles: Annotated[tuple[Role, ...], Meta(min_length=1, max_length=len(Role))]
    namespace: Name | None = None


class OidcSettings(Document, frozen=True):
    """A provider of OpenID Connect, and what its claims mean here."""

    issuer: _Text
    client_id: _Text
    roles: Annotated[tuple[OidcRole, ...], Meta(min_length=1, max_length=limits.OIDC_ROLES)]
    name_claim: _Text = "email"
    scopes: Annotated[tuple[_Text, ...], Meta(max_length=16)] = ("openid", "email", "profile")
    session_hours: Annotated[float, Meta(gt=0, le=limits.SESSION_HOURS)] = 12.0

    def __post_init__(self) -> None:
        if not is_safe_url(self.issuer):
            raise ValueError(f"issuer {self.issuer!r}: expected an https:// URL")
        if "openid" not in self.scopes:
            raise ValueError("scopes: openid is missing, without which a provider gives no ID token")

    def roles_of(self, claims: Mapping[str, Any], *, namespace: str) -> tuple[Role, ...]:
        """What the claims of a person give in a namespace."""
        given: set[Role] = set()
        for rule in self.roles:
            if rule.namespace is not None and rule.namespace != namespace:
                continue
            value = claims.get(rule.claim)
            if rule.value in (value if isinstance(value, list) else [value]):
                given.update(rule.roles)
        return tuple(sorted(given))

    def may_give(self, role: Role, *, namespace: str) -> bool:
        """Whether any claim gives a role in a namespace."""
        return any(role in rule.roles and rule.namespace in {None, namespace} for rule in self.roles)


def is_safe_url(url: str) -> bool:
    """Whether a URL is https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    if parts.scheme != "http" or not parts.hostname:
        return False
    try:
        return ip_address(parts.hostname).is_loopback
    except ValueError:
        return parts.hostname == "localhost"
