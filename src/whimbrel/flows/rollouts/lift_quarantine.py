"""A version that was taken back may run again: a person's logged word lifts its quarantine.

`rollout start --override` does it as a rollout of that version begins. This does it without one: for a baseline that
only some devices left, and for a version whose files are to be published again.
"""

from whimbrel.errors import Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import QuarantineRecord, VersionRecord
from whimbrel.flows.wording import selector_words


def lift_quarantine(registry: RegistryPort, version: VersionRecord, *, because: str, actor: str, now: float) -> None:
    """Let devices run a version again. Those that refused it by themselves try it once more too.

    It goes by itself to no device but those that left it while it stayed the baseline.

    Raises `Refused` where no device refuses it, or where a live rollout took it back from a part of its devices.
    """
    model, serial = version.model, version.serial
    entries = [entry for entry in registry.quarantines(model) if entry.serial == serial]
    if not entries:
        raise Refused(f"{model} {version.version} is not quarantined: there is nothing to lift")
    for rollout in registry.rollouts(model=model, live=True):
        if rollout.target == serial:
            raise Refused(
                f"rollout {rollout.id} is live, and took {model} {version.version} back from {_devices(entries)}; a "
                "comparison is not begun anew in its middle. End the rollout first"
            )
    registry.lift_quarantines(model, serial, at=now)
    audit(
        registry,
        model=model,
        actor=actor,
        action="unquarantine",
        because=because,
        now=now,
        evidence={"serial": serial, "devices": _devices(entries), "taken_back": [each.because for each in entries]},
    )


def _devices(entries: list[QuarantineRecord]) -> str:
    return " and ".join(dict.fromkeys(selector_words(entry.selector) for entry in entries))
