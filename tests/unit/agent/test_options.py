"""Options of a wrong type are refused where they are written, with their name; none reaches a cycle."""

from typing import Any

import pytest

from whimbrel import AgentOptions
from whimbrel.errors import UntrustedInput


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("server", 5),
        ("server", b"http://x"),
        ("root", {"signed": {}}),
        ("models", 5),
        ("models", ["a", 5]),
        ("labels", ["a"]),
        ("labels", "region=NZ"),
        ("mirrors", [5]),
        ("proxy", 5),
        ("enrol_token", b"x"),
        ("durable_sessions", "no"),
        ("chance", 3),
        ("progress", "x"),
        ("on_change", "systemctl restart app"),
        ("situation", {}),
        ("clock", 5),
        ("pool", 5),
        ("probes", 5),
        ("disk", "x"),
    ],
)
def test_an_option_of_another_type_is_named(name: str, given: Any) -> None:
    with pytest.raises(UntrustedInput, match=rf"^{name} (is|has) .*; expected "):
        AgentOptions(**{name: given})


def test_what_is_left_out_and_what_fits_is_taken() -> None:
    AgentOptions()
    AgentOptions(server="", root=b"{}", models=("a",), labels={"region": "NZ"}, progress=print, durable_sessions=False)
