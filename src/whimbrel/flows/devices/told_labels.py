"""Which labels may a device tell of itself? Never another value than the server gave it, nor one it may not claim.

Called where a device enrols, and where it tells labels later: in a batch of reports, and in a check.
"""

from collections.abc import Mapping

from whimbrel.errors import Refused
from whimbrel.trust.enrolment import is_reserved


def check_told_labels(
    labels: Mapping[str, str], *, granted: Mapping[str, str], claimable: Mapping[str, tuple[str, ...]]
) -> None:
    """Raise `Refused` for a label that the device may not tell.

    `granted`: labels that the server gave it. `claimable`: the values that it may claim, by label; others are free.
    """
    for key, value in labels.items():
        if key in granted:
            if value != granted[key]:
                raise Refused(
                    f"this device has the label {key}={granted[key]} from the server, and cannot tell {value!r}"
                )
        elif is_reserved(key):
            raise Refused(f"the label {key} comes from a verified attestation; a device cannot claim it")
        elif key in claimable and value not in claimable[key]:
            allowed = ", ".join(claimable[key]) or "no value"
            raise Refused(f"the enrolment token lets a device claim {key} as {allowed}; it told {value!r}")
