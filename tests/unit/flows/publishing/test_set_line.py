"""A line only grows, one sequence after the other, and only its publisher signs it."""

from typing import Any

import pytest

from support.signed_roles import GOOD, InMemoryRoles
from support.values import T0, Town, line, town
from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.flows.publishing.set_line import line_of, set_line
from whimbrel.model.documents import encode
from whimbrel.model.release import Line


def changed(here: Town, roles: InMemoryRoles, *, publisher: bytes = GOOD, because: str = "", **changes: Any) -> Line:
    document = encode(line(**changes))
    return set_line(here.registry, roles, "wake", line=document, publisher=publisher, because=because, now=T0)


def test_a_line_grows_and_is_logged() -> None:
    with town() as here:
        roles = InMemoryRoles()
        changed(here, roles)
        after = changed(here, roles, because="a leak", sequence=2, minimum_serial=2, revoked=(3,))
        assert line_of(here.registry, roles, "wake") == after == line(sequence=2, minimum_serial=2, revoked=(3,))
        newest, first = here.registry.audit_log()
        assert (newest.actor, newest.action, newest.because) == ("publisher-wake", "set line", "a leak")
        assert newest.evidence["revoked"] == [3]
        assert first.because == "no reason given"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sequence": 3, "revoked": (4,)}, Conflict, "sequence 3 came, and 4 is next"),
        ({"sequence": 5, "revoked": (4,)}, Conflict, "sequence 5 came, and 4 is next"),
        ({"sequence": 4, "minimum_serial": 1, "revoked": (4,)}, Refused, "a line only grows"),
        ({"sequence": 4, "revoked": ()}, Refused, "a line only grows"),
        ({"sequence": 4, "revoked": (5,)}, Refused, "a line only grows"),
        ({"sequence": 4, "model": "sleep"}, UntrustedInput, "the line is of 'sleep'; expected 'wake'"),
        ({"sequence": 4, "revoked": (4,), "publisher": b"forged"}, UntrustedInput, "is not signed by a key"),
    ],
)
def test_a_line_that_is_refused_changes_nothing(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with town() as here:
        roles = InMemoryRoles()
        held = changed(here, roles, sequence=3, minimum_serial=2, revoked=(4,))
        with pytest.raises(error, match=words):
            changed(here, roles, **{"minimum_serial": 2} | changes)
        assert line_of(here.registry, roles, "wake") == held
        assert len(here.registry.audit_log()) == 1


def test_a_model_that_is_not_there_or_has_no_line_says_so() -> None:
    with town() as here:
        with pytest.raises(NotFound, match="wake has no line yet"):
            line_of(here.registry, InMemoryRoles(), "wake")
        with pytest.raises(NotFound, match="there is no model 'sleep'"):
            line_of(here.registry, InMemoryRoles(), "sleep")
        with pytest.raises(NotFound, match="there is no model 'sleep'"):
            set_line(here.registry, InMemoryRoles(), "sleep", line=b"", publisher=GOOD, because="", now=T0)
        with pytest.raises(UntrustedInput, match="the line cannot be read"):
            set_line(here.registry, InMemoryRoles(), "wake", line=b"{}", publisher=GOOD, because="", now=T0)
