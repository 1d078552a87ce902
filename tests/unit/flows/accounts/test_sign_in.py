"""A person whom a provider named gets a session: by a fresh nonce, with a name that is nobody else's."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.values import T0, Town, town
from whimbrel import limits
from whimbrel.errors import NotAllowed, Refused
from whimbrel.flows.accounts.permissions import Role
from whimbrel.flows.accounts.records import TokenRecord
from whimbrel.flows.accounts.sign_in import NONCE_LIFE_S, Identity, sign_in
from whimbrel.flows.accounts.tokens import account_for

NOW = T0 + 1000


@pytest.fixture
def here() -> Iterator[Town]:
    with town() as made:
        yield made


def come(here: Town, number: int = 1, *, asked_at: float = NOW, now: float = NOW, **changes: Any) -> TokenRecord:
    fields = {"issuer": "https://id.example", "subject": "s-1", "name": "Ada", "roles": (Role.RELEASER, Role.VIEWER)}
    identity = Identity(**{"nonce": f"n-{number}"} | fields | changes)
    here.stores.accounts.add_nonce(identity.nonce, at=asked_at, made_after=0.0)
    return sign_in(
        here.stores.accounts,
        here.registry,
        identity,
        identifier=f"i{number}",
        secret=f"secret-{number}",
        life_s=3600.0,
        now=now,
    )


def test_a_session_has_the_roles_of_the_claims_and_ends_by_itself(here: Town) -> None:
    token = come(here)
    assert here.stores.accounts.signed_in("secret-1", now=NOW) == token
    assert (token.name, token.account, token.kind, token.roles, token.source, token.created_by) == (
        "session-i1",
        "ada",
        "person",
        (Role.RELEASER, Role.VIEWER),
        "sign-in",
        "ada",
    )
    assert (token.created_at, token.expires_at) == (NOW, NOW + 3600)
    (entry,) = here.registry.audit_log()
    assert (entry.actor, entry.action, entry.because, entry.at) == (
        "ada",
        "sign in",
        "as releaser, viewer, by https://id.example",
        NOW,
    )


def test_a_nonce_is_good_once_and_for_ten_minutes(here: Town) -> None:
    assert come(here, 1, asked_at=NOW - NONCE_LIFE_S).account == "ada"
    said = "this sign-in was used already, or is over; sign in again: whimbrel login"
    with pytest.raises(NotAllowed) as refused:
        come(here, 2, asked_at=NOW - NONCE_LIFE_S - 1)
    assert str(refused.value) == said
    come(here, 3)
    used = Identity(issuer="https://id.example", subject="s-1", name="ada", nonce="n-3", roles=(Role.VIEWER,))
    with pytest.raises(NotAllowed) as refused:
        sign_in(here.stores.accounts, here.registry, used, identifier="i4", secret="x", life_s=1.0, now=NOW)
    assert str(refused.value) == said


def test_who_has_no_role_is_refused_and_gets_no_account(here: Town) -> None:
    with pytest.raises(Refused) as refused:
        come(here, roles=())
    assert str(refused.value) == (
        "the provider knows Ada, and its claims give no role here; ask who runs the server to name one of your groups "
        "in whimbrel.toml ([[oidc.roles]])"
    )
    assert (here.stores.accounts.account("ada"), here.registry.audit_log()) == (None, [])


def test_a_subject_that_changed_its_name_keeps_its_account_and_another_does_not_get_it(here: Town) -> None:
    come(here, 1)
    assert come(here, 2, name="countess").account == "ada"
    with pytest.raises(Refused) as refused:
        come(here, 3, subject="s-2")
    assert str(refused.value) == "ada is the account of another person of the provider; ask who runs the server"
    with pytest.raises(Refused, match="ada is the account of another person"):
        come(here, 4, issuer="https://other.example")


def test_an_account_from_before_the_provider_is_bound_to_the_first_who_comes(here: Town) -> None:
    account_for(here.stores.accounts, "ada", kind="person", now=T0)
    come(here)
    bound = here.stores.accounts.account("ada")
    assert bound is not None
    assert (bound.issuer, bound.subject, bound.created_at) == ("https://id.example", "s-1", T0)


def test_the_account_of_the_first_token_is_no_providers(here: Town) -> None:
    with pytest.raises(Refused) as refused:
        come(here, name="Admin")
    assert str(refused.value) == "'admin' is the account of the token that init wrote, and no provider's"


@pytest.mark.parametrize("name", ["\u212aate", "a b", "gate", ""])
def test_a_name_that_no_account_may_have_names_the_setting_that_mends_it(here: Town, name: str) -> None:
    """The first one begins with the Kelvin sign, whose small letter is an ASCII k: it would be kate's account."""
    with pytest.raises(Refused) as refused:
        come(here, name=name)
    assert str(refused.value).endswith("; let name_claim in whimbrel.toml name another claim")
    assert str(refused.value).startswith(repr(name))


def test_one_session_too_many_ends_the_oldest_of_that_person(here: Town) -> None:
    come(here, 500, subject="s-2", name="bob", now=NOW - 50)
    for number in range(limits.SESSIONS):
        come(here, number, now=NOW + number)
    late = NOW + limits.SESSIONS
    accounts = here.stores.accounts
    assert accounts.signed_in("secret-0", now=late) is not None
    come(here, 99, now=late)
    alive = [number for number in range(limits.SESSIONS) if accounts.signed_in(f"secret-{number}", now=late)]
    assert alive == [*range(1, limits.SESSIONS)]
    assert accounts.signed_in("secret-99", now=late) is not None
    assert accounts.signed_in("secret-500", now=late) is not None


def test_a_session_that_is_over_and_a_token_that_was_made_take_no_place(here: Town) -> None:
    come(here, 0, now=NOW - 3600)  # over at NOW
    account = here.stores.accounts.account("ada")
    assert account is not None
    made = TokenRecord(
        id="made",
        name="made",
        account="ada",
        kind="person",
        roles=(Role.VIEWER,),
        source="made",
        created_at=T0,
        created_by="x",
    )
    here.stores.accounts.add_token(made, secret="secret-made")
    for number in range(1, limits.SESSIONS + 1):
        come(here, number)
    assert here.stores.accounts.signed_in("secret-1", now=NOW) is not None
    assert here.stores.accounts.signed_in("secret-made", now=NOW) is not None
