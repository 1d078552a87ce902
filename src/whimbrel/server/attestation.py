"""What does a device's hardware say of it, and may it be believed? A verifier for each kind of attestation.

1. A kind is verified where `whimbrel.toml` has settings for it: `[attestation.android-key]`. Others are refused.
2. A verifier of another package is an entry point of the group `whimbrel.attestation`, named like its kind: a callable
   that gets its settings and the repository's folder, and returns a `Verifier`. Ours stand in a table here.
3. What a verifier returns are labels: `attestation`, and names that begin with `attestation.`. The server gives them to
   the device with its credential and in every device token, signed; a device that claims another value is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

from whimbrel.errors import Refused, UntrustedInput
from whimbrel.server.android_key import open_android_key
from whimbrel.trust.enrolment import Attestation, is_reserved
from whimbrel.trust.possession import from_base64url

GROUP = "whimbrel.attestation"


class Verifier(Protocol):
    """Verifies the attestations of one kind, without a network."""

    def verify(self, chain: Sequence[bytes], *, challenge: bytes, now: float) -> dict[str, str]:
        """The labels that follow from a chain of certificates (DER, the leaf first).

        `challenge`: 32 bytes that the hardware must have signed. `now`: POSIX seconds. Raises `Refused` or
        `UntrustedInput`, each with a sentence that says what is wrong.
        """


Factory = Callable[[Mapping[str, Any], Path], Verifier]

_OURS: dict[str, Factory] = {"android-key": open_android_key}


class Attestations:
    """The verifiers that a repository has settings for, by kind."""

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        self._verifiers = dict(verifiers)

    @classmethod
    def open(cls, settings: Mapping[str, Mapping[str, Any]], folder: Path) -> "Attestations":
        """Raises `UntrustedInput` for a kind that nothing verifies, or for settings that are not understood."""
        factories = dict(_OURS)
        if settings.keys() - factories.keys():
            factories |= {entry.name: _loaded(entry) for entry in entry_points(group=GROUP) if entry.name in settings}
        if unknown := sorted(settings.keys() - factories.keys()):
            raise UntrustedInput(
                f"nothing here verifies attestations of kind {', '.join(unknown)}; there are: "
                f"{', '.join(sorted(factories))}; others are entry points of the group {GROUP}"
            )
        return cls({kind: factories[kind](given, folder) for kind, given in settings.items()})

    def verify(self, attestation: Attestation, *, challenge: bytes, now: float) -> dict[str, str]:
        """The labels that the server gives the device. Raises `Refused` or `UntrustedInput`."""
        verifier = self._verifiers.get(attestation.kind)
        if verifier is None:
            raise Refused(
                f"this server verifies no attestation of kind {attestation.kind!r}; it verifies: "
                f"{', '.join(sorted(self._verifiers)) or 'none'}"
            )
        chain = [from_base64url(each) for each in attestation.chain]
        labels = verifier.verify(chain, challenge=challenge, now=now)
        if odd := sorted(name for name in labels if not is_reserved(name)):
            raise Refused(f"the verifier of {attestation.kind} gave the labels {', '.join(odd)}, which are not its own")
        return labels


def _loaded(entry: EntryPoint) -> Factory:
    try:
        factory: Factory = entry.load()
    except Exception as error:  # whatever an import of somebody else's code raises
        raise UntrustedInput(
            f"the verifier {entry.value} of attestations of kind {entry.name} cannot be loaded: {error}; install its "
            f"package again, or take [attestation.{entry.name}] out of the settings"
        ) from error
    return factory
