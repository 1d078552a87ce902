"""Which devices get the key of a sealed release? Those that are entitled, by what the server itself knows of them.

1. The device is enrolled, is not blocked, and proved its Ed25519 key in the request; its recipient key is in what it
   signed.
2. The model's `sealed_for` matches its labels: those that the server gave it (by its enrolment token or an
   attestation), and those that people gave it. What a device says of itself counts for nothing here.
3. Being refused says nothing about the version: the device waits, and no gate hears of it.

Called by the device API, and for bundles.
"""

from collections.abc import Mapping

from whimbrel.errors import NotAllowed, Refused
from whimbrel.flows.devices.records import EnrolledDevice
from whimbrel.flows.records import ModelSettings
from whimbrel.flows.wording import selector_words


def check_entitled(
    device: EnrolledDevice | None,
    *,
    public_key: str | None,
    operator_labels: Mapping[str, str],
    settings: ModelSettings,
) -> None:
    """Raise `NotAllowed` for a device that did not prove its key, `Refused` for one that is not entitled.

    `public_key`: the one that the request was signed with; None where a person asks for the device (a bundle).
    """
    if device is None:
        raise NotAllowed("the device is not enrolled, so no release key is sealed to it; enrol it first")
    if device.public_key is None:
        raise NotAllowed(
            f"{device.device_id} enrolled without a key of its own, so nobody knows who would get the release key; "
            "upgrade its agent, which makes one"
        )
    if public_key is not None and public_key != device.public_key:
        raise NotAllowed(f"the request is not signed with the key of {device.device_id}; it gets no release key")
    if not settings.sealed_for.matches({**operator_labels, **device.granted_labels}):
        words = selector_words(settings.sealed_for)
        raise Refused(
            f"{device.device_id} is not entitled: the keys of this model are for {words}, by labels that the server "
            f"or its people gave the device; an operator gives one with: whimbrel device label {device.device_id}"
        )


def entitled_recipient(
    device: EnrolledDevice | None, *, is_blocked: bool, operator_labels: Mapping[str, str], settings: ModelSettings
) -> str:
    """The recipient key of a device that a person asks for. Raises `NotAllowed` or `Refused` where it gets no key."""
    check_entitled(device, public_key=None, operator_labels=operator_labels, settings=settings)
    if device is None or is_blocked:
        raise Refused(f"{device.device_id if device else 'the device'} is blocked; no key is sealed to it")
    if device.recipient is None:
        raise Refused(
            f"{device.device_id} named no key to which release keys are sealed for it: it enrolled with an old agent, "
            "or without the extra 'sealed', and never asked for one. Upgrade its agent (pip install "
            "'whimbrel[sealed]'), and let it refresh once with a network, where a policy gives it a sealed version"
        )
    return device.recipient
