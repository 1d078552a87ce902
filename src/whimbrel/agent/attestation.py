"""What does this device's hardware say of it? An attester answers the server's challenge when the device enrols.

1. An attester of a kind is an entry point of the group `whimbrel.attesters`, named like the kind: a callable that gets
   the agent's folder and returns an `Attester`. The setting `attestation` names the kind; an app may give its own one.
2. The server must verify this kind (`server/attestation.py` there), and gives the device the labels that follow.
3. A device that is to be attested and cannot be does not enrol without: it would count as one that nobody vouches for.
   It tries again later, and its status says why.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from whimbrel.errors import Unavailable, UntrustedInput, WhimbrelError
from whimbrel.model.documents import convert, plain
from whimbrel.trust.enrolment import Attestation
from whimbrel.trust.possession import Proof, attestation_challenge

GROUP = "whimbrel.attesters"


class Attester(Protocol):
    """Answers a challenge, with the help of the hardware."""

    def attest(self, challenge: bytes) -> Attestation:
        """What the hardware signs, with the 32 bytes of `challenge` in it. Raises `Unavailable` for none now."""


Factory = Callable[[Path], Attester]


def check_attester(kind: str) -> str:
    """`kind`, where an attester of it is installed, or "". Raises `UntrustedInput`."""
    if kind:
        _entry(kind)
    return kind


def find_attester(given: Attester | None, kind: str, folder: Path) -> Attester | None:
    """Who vouches for this device when it enrols: the app's, or the installed one of `kind`; none for ""."""
    return given or (open_attester(kind, folder) if kind else None)


def open_attester(kind: str, folder: Path) -> Attester:
    """The attester of a kind that is installed here. `folder`: the agent's. Raises `UntrustedInput`."""
    factory = _loaded(_entry(kind))
    try:
        return factory(folder)
    except Exception as error:  # whatever somebody else's code raises
        raise UntrustedInput(f"the attester {kind} cannot be opened: {_words(error)}") from error


def _entry(kind: str) -> EntryPoint:
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in installed:
        raise UntrustedInput(
            f"nothing here makes attestations of kind {kind!r}; there are: {', '.join(sorted(installed)) or 'none'}; "
            f"an attester is an entry point of the group {GROUP}"
        )
    return installed[kind]


def attestation_for(attester: Attester, proof: Proof, *, device_id: str) -> Attestation:
    """The attestation that goes with a proof of the device's key. Raises `Unavailable`, `UntrustedInput`."""
    challenge = attestation_challenge(challenge=proof.challenge, device_id=device_id, public_key=proof.public_key)
    try:
        made = attester.attest(challenge)
    except Unavailable:
        raise
    except Exception as error:  # whatever somebody else's code raises
        raise Unavailable(
            f"the attester made no attestation, and this device enrols with one alone: {_words(error)}"
        ) from error
    if not isinstance(made, Attestation):
        raise UntrustedInput(
            f"the attester returned {type(made).__name__}; expected an Attestation(kind=..., chain=...)"
        )
    return convert(Attestation, plain(made), what="the attestation that the attester made")


def _loaded(entry: EntryPoint) -> Factory:
    try:
        factory: Factory = entry.load()
    except Exception as error:  # whatever an import of somebody else's code raises
        raise UntrustedInput(
            f"the attester {entry.value} of kind {entry.name} cannot be loaded: {_words(error)}; install it again"
        ) from error
    return factory


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, WhimbrelError) else f"{type(error).__name__}: {error}"
