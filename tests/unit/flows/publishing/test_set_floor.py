"""A floor is of the line that holds, is signed by its own key, and is due before it expires."""

from typing import Any

import pytest

from support.signed_roles import GOOD, InMemoryRoles
from support.values import T0, Town, line, town
from whimbrel.errors import Conflict, NotFound, UntrustedInput
from whimbrel.flows.publishing.set_floor import FloorState, floor_of, lift_floor, set_floor
from whimbrel.flows.publishing.set_line import set_line
from whimbrel.model.documents import encode
from whimbrel.model.release import Floor

DAY_S = 86400.0


def with_line(here: Town, *, sequence: int = 1) -> InMemoryRoles:
    roles = InMemoryRoles()
    for each in range(1, sequence + 1):
        document = encode(line(sequence=each))
        set_line(here.registry, roles, "wake", line=document, publisher=GOOD, because="", now=T0)
    return roles


def required(
    here: Town, roles: InMemoryRoles, *, role: bytes = GOOD, targets: bytes | None = GOOD, **floor: Any
) -> FloorState:
    roles.delegated.add("floor-wake")
    roles.expires |= {"floor-wake": T0 + floor.get("days", 30) * DAY_S}
    document = encode(Floor(**({"model": "wake", "sequence": 1, "days": 30} | floor)))
    return set_floor(here.registry, roles, "wake", floor=document, role=role, targets=targets, actor="ada", now=T0)


def test_a_floor_is_required_renewed_and_logged() -> None:
    with town() as here:
        roles = with_line(here)
        assert floor_of(here.registry, roles, "wake") is None
        after = required(here, roles)
        assert after == floor_of(here.registry, roles, "wake")
        assert (after.sequence, after.days, after.expires_at) == (1, 30, T0 + 30 * DAY_S)
        required(here, roles, targets=None)
        newest, first = here.registry.audit_log()[:2]
        assert [(each.action, each.actor) for each in (first, newest)] == [
            ("require floor", "ada"),
            ("renew floor", "ada"),
        ]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "sleep"}, UntrustedInput, "the floor is of 'sleep'; expected 'wake'"),
        ({"sequence": 1}, Conflict, "the floor is of line 1, and line 2 holds"),
        ({"sequence": 3}, Conflict, "the floor is of line 3, and line 2 holds"),
        ({"role": b"forged"}, UntrustedInput, "floor-wake is not signed"),
        ({"targets": b"forged"}, UntrustedInput, "targets is not signed"),
    ],
)
def test_a_floor_that_is_refused_is_not_logged(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with town() as here:
        roles = with_line(here, sequence=2)
        before = here.registry.audit_log()
        with pytest.raises(error, match=words):
            required(here, roles, **{"sequence": 2} | changes)
        assert here.registry.audit_log() == before


def test_a_floor_that_lives_longer_than_it_says_is_refused() -> None:
    with town() as here:
        roles = with_line(here)
        roles.delegated.add("floor-wake")
        roles.expires["floor-wake"] = T0 + 400 * DAY_S
        floor = encode(Floor(model="wake", sequence=1, days=30))
        with pytest.raises(UntrustedInput, match="lives longer than the 30 days"):
            set_floor(here.registry, roles, "wake", floor=floor, role=GOOD, targets=None, actor="ada", now=T0)


def test_a_floor_that_nothing_delegates_says_how_to_begin() -> None:
    with town() as here:
        roles = with_line(here)
        floor = encode(Floor(model="wake", sequence=1, days=30))
        with pytest.raises(NotFound, match="whimbrel floor require wake"):
            set_floor(here.registry, roles, "wake", floor=floor, role=GOOD, targets=None, actor="ada", now=T0)


def test_a_floor_is_due_when_a_third_of_its_life_is_left_or_its_line_is_old() -> None:
    floor = FloorState(model="wake", sequence=2, line_sequence=2, days=30, expires_at=T0 + 30 * DAY_S)
    assert not floor.is_due(T0 + 19 * DAY_S)
    assert floor.is_due(T0 + 21 * DAY_S)
    assert FloorState(model="wake", sequence=1, line_sequence=2, days=30, expires_at=T0 + 30 * DAY_S).is_due(T0)


def test_a_floor_is_lifted_by_the_targets_key_alone() -> None:
    with town() as here:
        roles = with_line(here)
        required(here, roles)
        with pytest.raises(UntrustedInput, match="delegates the floor of wake still"):
            lift_floor(here.registry, roles, "wake", targets=GOOD, because="", actor="ada", now=T0)
        roles.delegated.clear()
        lift_floor(here.registry, roles, "wake", targets=GOOD, because="no pipeline", actor="ada", now=T0)
        assert floor_of(here.registry, roles, "wake") is None
        assert here.registry.audit_log()[0].because == "no pipeline"
