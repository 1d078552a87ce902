"""Which devices get the key of a sealed release, and as what the others are refused."""

from typing import Any

import pytest

from support.values import T0, selector
from whimbrel.errors import NotAllowed, Refused
from whimbrel.flows.devices.records import EnrolledDevice
from whimbrel.flows.devices.release_key import check_entitled, entitled_recipient
from whimbrel.flows.records import ModelSettings

KEY = "k" * 43
LAB = ModelSettings(sealed_for=selector(site="lab"))
NOT_ENTITLED = (
    "dev-1 is not entitled: the keys of this model are for site=lab, by labels that the server or its people gave the "
    "device; an operator gives one with: whimbrel device label dev-1"
)


def device(**changes: Any) -> EnrolledDevice:
    fields = {
        "device_id": "dev-1",
        "credential_sha256": "",
        "admission": "shared",
        "enrolled_at": T0,
        "admitted_at": T0,
    }
    return EnrolledDevice(**fields | {"public_key": KEY, "recipient": "age1x"} | changes)


def check(
    asked: EnrolledDevice | None, *, public_key: str | None = KEY, settings: ModelSettings = LAB, **labels: str
) -> None:
    check_entitled(asked, public_key=public_key, operator_labels=labels, settings=settings)


def test_by_labels_of_the_server_or_of_people_a_device_is_entitled() -> None:
    check(device(), site="lab")
    check(device(granted_labels={"site": "lab"}))
    check(device(), settings=ModelSettings())
    check(device(), public_key=None, site="lab")


def test_what_the_server_gave_holds_over_what_people_gave() -> None:
    with pytest.raises(Refused) as refused:
        check(device(granted_labels={"site": "roof"}), site="lab")
    assert str(refused.value) == NOT_ENTITLED
    check(device(granted_labels={"site": "lab"}), site="roof")


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        (None, NotAllowed, "the device is not enrolled, so no release key is sealed to it; enrol it first"),
        (
            device(public_key=None),
            NotAllowed,
            "dev-1 enrolled without a key of its own, so nobody knows who would get the release key; upgrade its "
            "agent, which makes one",
        ),
        (
            device(public_key="n" * 43),
            NotAllowed,
            "the request is not signed with the key of dev-1; it gets no release key",
        ),
        (device(), Refused, NOT_ENTITLED),
    ],
)
def test_each_reason_has_its_kind_and_its_sentence(
    asked: EnrolledDevice | None, kind: type[Refused], said: str
) -> None:
    with pytest.raises(kind) as refused:
        check(asked)
    assert (type(refused.value), str(refused.value)) == (kind, said)


def test_a_bundle_has_a_key_for_a_device_that_named_one() -> None:
    asked = {"is_blocked": False, "operator_labels": {"site": "lab"}, "settings": LAB}
    assert entitled_recipient(device(), **asked) == "age1x"
    for who, changes, kind, said in (
        (device(), {"is_blocked": True}, Refused, "dev-1 is blocked; no key is sealed to it"),
        (device(), {"operator_labels": {}}, Refused, NOT_ENTITLED),
        (None, {}, NotAllowed, "the device is not enrolled, so no release key is sealed to it; enrol it first"),
        (
            device(recipient=None),
            {},
            Refused,
            "dev-1 named no key to which release keys are sealed for it: it enrolled with an old agent, or without the "
            "extra 'sealed', and never asked for one. Upgrade its agent (pip install 'whimbrel[sealed]'), and let it "
            "refresh once with a network, where a policy gives it a sealed version",
        ),
    ):
        with pytest.raises(kind) as refused:
            entitled_recipient(who, **asked | changes)
        assert str(refused.value) == said
