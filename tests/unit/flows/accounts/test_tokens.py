"""Tokens are made, changed and revoked: who may give whom what, and what the audit log says of it."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.values import T0, Town, town
from whimbrel import limits
from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.flows.accounts.permissions import Caller, Role
from whimbrel.flows.accounts.records import AccountRecord, TokenRecord
from whimbrel.flows.accounts.tokens import (
    NewToken,
    account_for,
    check_account_name,
    is_last_admin,
    make_token,
    revoke_token,
    rotate_token,
    token_for,
)

DAY = 86400.0
NOW = T0 + 10 * DAY


@pytest.fixture
def here() -> Iterator[Town]:
    with town() as made:
        yield made


def caller(*roles: Role, **changes: Any) -> Caller:
    return Caller(**{"account": "ada", "kind": "person", "roles": roles or (Role.ADMIN,), "token": "t-ada"} | changes)


def make(
    here: Town, name: str = "ci", *, by: Caller | None = None, provider: bool = False, **changes: Any
) -> TokenRecord:
    fields = {"name": name, "account": name, "kind": "machine", "roles": (Role.PIPELINE,), "days": 30.0} | changes
    return make_token(
        here.stores.accounts,
        here.registry,
        NewToken(**fields),
        caller=by or caller(),
        identifier=f"id-{name}",
        secret=f"secret-{name}",
        provider=provider,
        now=NOW,
    )


def rotate(here: Town, name: str, *, by: Caller | None = None, days: float | None = None, **more: Any) -> TokenRecord:
    values = {"identifier": "id-new", "secret": "secret-new", "provider": False, "now": NOW + 5} | more
    return rotate_token(here.stores.accounts, here.registry, name, caller=by or caller(), days=days, **values)


def revoke(here: Town, name: str, *, by: Caller | None = None, **more: Any) -> TokenRecord:
    values = {"because": "", "although_last": False, "admins_sign_in": False, "now": NOW + 9} | more
    return revoke_token(here.stores.accounts, here.registry, name, caller=by or caller(), **values)


def add(here: Town, name: str, *roles: Role, **changes: Any) -> TokenRecord:
    """A token that is there, whoever made it."""
    account_for(here.stores.accounts, "ada", kind="person", now=T0)
    fields = {"id": f"id-{name}", "name": name, "account": "ada", "kind": "person", "roles": roles, "source": "made"}
    token = TokenRecord(**fields | {"created_at": T0, "created_by": "admin"} | changes)
    here.stores.accounts.add_token(token, secret=f"secret-{name}")
    return token


# --- made ---


def test_a_token_is_made_with_its_end_and_told_by_name_and_never_by_secret(here: Town) -> None:
    token = make(here, roles=(Role.VIEWER, Role.PIPELINE, Role.VIEWER))
    assert here.stores.accounts.signed_in("secret-ci", now=NOW) == token
    assert (token.roles, token.source, token.created_at, token.created_by, token.expires_at) == (
        (Role.PIPELINE, Role.VIEWER),
        "made",
        NOW,
        "ada",
        NOW + 30 * DAY,
    )
    (entry,) = here.registry.audit_log()
    assert (entry.actor, entry.action, entry.because, entry.at) == (
        "ada",
        "create token",
        "ci (pipeline, viewer) of machine ci",
        NOW,
    )
    assert entry.evidence == {
        "token": "id-ci",
        "account": "ci",
        "roles": ["pipeline", "viewer"],
        "expires_at": NOW + 30 * DAY,
    }


def test_a_token_is_good_until_its_end_and_no_longer(here: Town) -> None:
    token = make(here)
    end = NOW + 30 * DAY
    assert (token.live(now=end - 0.001), token.live(now=end)) == (True, False)


def test_nobody_gives_away_what_he_has_not(here: Town) -> None:
    with pytest.raises(Refused) as refused:
        make(here, by=caller(Role.SECURITY), roles=(Role.PUBLISHER,))
    assert str(refused.value) == (
        "a token with the role publisher may draft, feedback, publish, and your own may not: nobody gives away what he "
        "has not; ask an admin"
    )
    assert make(here, by=caller(Role.SECURITY), roles=(Role.VIEWER,)).roles == (Role.VIEWER,)


def test_who_may_not_make_tokens_makes_none(here: Town) -> None:
    with pytest.raises(Refused, match="needs the permission 'tokens'"):
        make(here, by=caller(Role.RELEASER), roles=(Role.VIEWER,))
    assert (here.stores.accounts.tokens(), here.registry.audit_log()) == ([], [])


def test_a_token_of_another_person_takes_who_may_make_people(here: Town) -> None:
    security = caller(Role.SECURITY)
    with pytest.raises(Refused, match="needs the permission 'people', which these roles have: admin"):
        make(here, "bob", by=security, kind="person", roles=(Role.VIEWER,))
    assert make(here, "mine", by=security, account="ada", kind="person", roles=(Role.VIEWER,)).account == "ada"
    assert make(here, "bob", kind="person", roles=(Role.VIEWER,)).kind == "person"


def test_where_people_sign_in_with_a_provider_nobody_makes_a_person_not_even_himself(here: Town) -> None:
    with pytest.raises(Refused) as refused:
        make(here, "mine", account="ada", kind="person", provider=True)
    assert str(refused.value) == (
        "people sign in here with a provider, so nobody makes a token for ada: a person who could make others could "
        "approve as two; they get one with: whimbrel login"
    )
    assert make(here, provider=True).kind == "machine"


def test_a_name_is_used_by_one_token_that_is_good(here: Town) -> None:
    make(here)
    with pytest.raises(Conflict) as refused:
        make(here, account="other")
    assert str(refused.value) == "there is a token 'ci' already; rotate or revoke it, or choose another name"
    revoke(here, "ci")
    make_token(
        here.stores.accounts,
        here.registry,
        NewToken(name="ci", account="ci", kind="machine", roles=(Role.VIEWER,), days=1),
        caller=caller(),
        identifier="id-again",
        secret="secret-again",
        provider=False,
        now=NOW + 10,
    )


def test_of_tokens_that_are_good_there_is_a_bound(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_TOKENS", 2)
    make(here, "a")
    make(here, "b")
    with pytest.raises(Refused) as refused:
        make(here, "c")
    assert str(refused.value) == "there are 2 tokens that are good; revoke some: whimbrel token list"
    revoke(here, "a")
    assert make(here, "c").name == "c"


# --- accounts ---


def test_an_account_is_made_once_and_is_a_persons_or_a_machines(here: Town) -> None:
    made = account_for(here.stores.accounts, "ada", kind="person", now=T0)
    assert made == AccountRecord(name="ada", kind="person", created_at=T0)
    assert account_for(here.stores.accounts, "ada", kind="person", now=NOW) == made
    with pytest.raises(Conflict) as refused:
        account_for(here.stores.accounts, "ada", kind="machine", now=NOW)
    assert str(refused.value) == "ada is the account of a person, and a machine was asked for; choose another name"


@pytest.mark.parametrize("name", ["a", "9", "a.b@c-d_e+f", "a" * 128, "publisher"])
def test_a_name_of_an_account_is_small_letters_digits_and_some_signs(name: str) -> None:
    check_account_name(name)


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a b", "a" * 129, "a\n", "ä", "a/b"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(UntrustedInput) as refused:
        check_account_name(name)
    assert str(refused.value) == (
        f"{name!r} is no name of an account; expected lower-case letters, digits and @ . _ + -, at most 128"
    )


@pytest.mark.parametrize("name", ["gate", "controller", "monitor", "tally", "publisher-wake"])
def test_a_name_that_the_server_acts_by_is_nobodys(name: str) -> None:
    with pytest.raises(UntrustedInput) as refused:
        check_account_name(name)
    assert str(refused.value) == f"{name!r} is a name that the server itself acts by; choose another"


# --- changed for a new one ---


def test_who_holds_a_token_changes_it_for_one_with_the_same_roles_and_end(here: Town) -> None:
    old = make(here)
    new = rotate(here, "ci", by=caller(Role.PIPELINE, account="ci", kind="machine", token=old.id))
    assert (new.id, new.name, new.roles, new.expires_at, new.created_at, new.created_by, new.used_at) == (
        "id-new",
        "ci",
        old.roles,
        old.expires_at,
        NOW + 5,
        "ci",
        None,
    )
    assert here.stores.accounts.signed_in("secret-ci", now=NOW + 5) is None
    assert here.stores.accounts.signed_in("secret-new", now=NOW + 5) is not None
    assert (here.registry.audit_log()[0].action, here.registry.audit_log()[0].because) == (
        "rotate token",
        "ci (pipeline) of machine ci",
    )


def test_a_later_end_takes_who_may_make_tokens(here: Town) -> None:
    old = make(here)
    own = caller(Role.PIPELINE, account="ci", kind="machine", token=old.id)
    with pytest.raises(Refused, match="needs the permission 'tokens'"):
        rotate(here, "ci", by=own, days=60.0)
    assert rotate(here, "ci", days=60.0).expires_at == NOW + 5 + 60 * DAY


def test_anothers_token_is_changed_by_who_may_make_such_a_one(here: Town) -> None:
    make(here, roles=(Role.PUBLISHER,))
    with pytest.raises(Refused, match="needs the permission 'tokens'"):
        rotate(here, "ci", by=caller(Role.PUBLISHER))
    with pytest.raises(Refused, match="may draft, feedback, publish, and your own may not"):
        rotate(here, "ci", by=caller(Role.SECURITY))


def test_a_persons_token_is_not_changed_by_others_where_a_provider_vouches(here: Town) -> None:
    token = add(here, "hers", Role.VIEWER)
    with pytest.raises(Refused, match="so nobody makes a token for ada"):
        rotate(here, "hers", provider=True)
    assert rotate(here, "hers", by=caller(Role.VIEWER, token=token.id), provider=True).name == "hers"


def test_what_is_over_and_what_is_a_session_is_not_changed(here: Town) -> None:
    add(here, "old", Role.VIEWER, expires_at=NOW)
    with pytest.raises(Refused) as refused:
        rotate(here, "id-old")
    assert str(refused.value) == "token old is over; make a new one: whimbrel token create"
    add(here, "session", Role.VIEWER, source="sign-in", expires_at=NOW + DAY)
    with pytest.raises(Refused) as refused:
        rotate(here, "session")
    assert str(refused.value) == "token session is a session; sign in again for a new one: whimbrel login"


# --- looked at and revoked ---


def test_ones_own_token_is_found_and_anothers_by_who_may(here: Town) -> None:
    make(here)
    accounts = here.stores.accounts
    assert token_for(accounts, "ci", caller=caller(Role.PIPELINE, token="id-ci"), now=NOW).name == "ci"
    with pytest.raises(Refused, match="needs the permission 'tokens'"):
        token_for(accounts, "ci", caller=caller(Role.PIPELINE), now=NOW)
    with pytest.raises(NotFound):
        token_for(accounts, "none", caller=caller(), now=NOW)


def test_a_token_is_revoked_once_and_the_reason_is_kept(here: Town) -> None:
    make(here)
    assert revoke(here, "ci", because="it leaked").revoked_at == NOW + 9
    assert here.stores.accounts.signed_in("secret-ci", now=NOW + 9) is None
    entry = here.registry.audit_log()[0]
    assert (entry.action, entry.because) == ("revoke token", "ci (pipeline) of machine ci: it leaked")
    assert revoke(here, "id-ci", now=NOW + 20).revoked_at == NOW + 9
    assert len(here.registry.audit_log()) == 2


def test_the_last_admins_token_takes_a_word_of_its_own(here: Town) -> None:
    add(here, "only", Role.ADMIN)
    with pytest.raises(Refused) as refused:
        revoke(here, "only")
    assert str(refused.value) == (
        "token only is the last with the role admin: nobody could make people or settle roles any more, except whoever "
        "has the repository's folder; make another first (whimbrel token create NAME --person WHO --role admin), or "
        "say --although-last"
    )
    assert revoke(here, "only", although_last=True).revoked_at == NOW + 9


def test_whether_a_token_is_the_last_admins(here: Town) -> None:
    accounts = here.stores.accounts

    def last(token: TokenRecord, *, admins_sign_in: bool = False) -> bool:
        return is_last_admin(accounts, token, admins_sign_in=admins_sign_in, now=NOW)

    only = add(here, "only", Role.ADMIN)
    viewer = add(here, "viewer", Role.VIEWER)
    add(here, "over", Role.ADMIN, expires_at=NOW)
    add(here, "gone", Role.ADMIN, revoked_at=T0)
    session = add(here, "session", Role.ADMIN, source="sign-in", expires_at=NOW + DAY)
    assert [last(each) for each in (only, viewer, session)] == [True, False, False]
    assert not last(only, admins_sign_in=True)  # whoever signed in so comes again
    other = add(here, "other", Role.ADMIN, expires_at=NOW + 1)
    assert [last(each) for each in (only, other)] == [False, False]


def test_a_group_of_the_provider_is_a_way_in_once_somebody_came_by_it(here: Town) -> None:
    only = add(here, "only", Role.ADMIN)
    assert is_last_admin(here.stores.accounts, only, admins_sign_in=True, now=NOW)
    add(here, "session", Role.ADMIN, source="sign-in", expires_at=T0 + 1)  # long over
    assert not is_last_admin(here.stores.accounts, only, admins_sign_in=True, now=NOW)
    assert is_last_admin(here.stores.accounts, only, admins_sign_in=False, now=NOW)
