"""Tokens of people and machines on a running server."""

from typing import Any

import httpx

from support.server import Running


def token_of(here: Running, name: str, *roles: str, person: str | None = None) -> str:
    """A token that the bootstrap admin makes."""
    with here.people() as admin:
        body = {"name": name, "roles": list(roles), "person": person}
        made = admin.post("tokens", json=body).raise_for_status().json()
    return str(made["token"])


def signed_in(here: Running, token: str) -> httpx.Client:
    """A client of the admin API with a token."""
    return httpx.Client(
        base_url=f"{here.admin}/default/admin/v1",
        headers={"authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=30,
    )


def person(here: Running, name: str, *roles: str) -> httpx.Client:
    """A client of a person, with a token of its own."""
    return signed_in(here, token_of(here, f"{name}-token", *(roles or ("releaser",)), person=name))


def machine(here: Running, name: str, *roles: str) -> httpx.Client:
    """A client of a machine, with a token of its own."""
    return signed_in(here, token_of(here, name, *roles))


def started(client: httpx.Client, plan: str, **more: Any) -> dict[str, Any]:
    """A rollout that a client starts."""
    answer: dict[str, Any] = client.post("rollouts", json={"plan": plan, **more}).raise_for_status().json()
    return answer


def refusal(answer: httpx.Response, *, status: int = 403) -> str:
    """The sentence of an answer that must be a refusal."""
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])
