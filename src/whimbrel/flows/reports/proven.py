"""Which devices are evidence that moves a rollout or experiment? Those that nobody can have invented for its sake.

1. A device is proven in a comparison where it was enrolled before that began, or by a token that lets a single device
   in, or attested, or admitted by a person. A shared token lets in as many ids as somebody thinks of, so those that it
   let in later are *unproven*.
2. A device without a cohort key chose its bucket with its id: only a person makes it proven. Devices from before there
   were cohort keys have their id as their cohort key.
3. A comparison that began while no device at all was enrolled counts all: there is nobody who could be outvoted. So a
   desk whose boards come after the rollout completes it.
4. What unproven devices tell is tallied apart, under a name of its own (`unproven_name`). It may hold the comparison
   and alert people, and neither moves it on nor takes it back (flows/rollouts/judge).
5. A namespace that trusts its shared token says `evidence = "all"` in whimbrel.toml, and then all devices are proven.

Called while messages are taken in, and by who reads what unproven devices told.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from whimbrel.flows.device_records import DeviceAdmission

EvidenceRule = Literal["proven", "all"]

_NAME_CHARS = 64  # of a comparison's id in a tally
_ALWAYS = frozenset({"single_use", "attested", "person"})


class Admissions(msgspec.Struct, frozen=True):
    """How some devices came in, and when the first device of the namespace did (None: none is enrolled)."""

    by_device: Mapping[str, DeviceAdmission]
    first_at: float | None

    def cohort_key(self, device_id: str) -> str:
        """What a device's bucket comes from."""
        admission = self.by_device.get(device_id)
        return device_id if admission is None or admission.cohort_key is None else admission.cohort_key

    def proves(self, device_id: str, *, began_at: float) -> bool:
        """Whether a device is proven in a comparison that began at `began_at`."""
        if self.first_at is None or self.first_at >= began_at:
            return True
        admission = self.by_device.get(device_id)
        if admission is None:
            return False
        if admission.cohort_key is None:
            return admission.admission == "person"
        return admission.admission in _ALWAYS or admission.admitted_at < began_at


def unproven_name(comparison: str) -> str:
    """The name under which the tally keeps what unproven devices told of a rollout or experiment."""
    name = f"unproven/{comparison}"
    return name if len(name) <= _NAME_CHARS else f"unproven/{hashlib.sha256(name.encode()).hexdigest()[:48]}"
