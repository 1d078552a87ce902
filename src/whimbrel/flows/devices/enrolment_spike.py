"""Do more devices come in by a shared token than ever before? Then somebody may be inventing them.

1. What is usual is the namespace's own busiest hour of the last two weeks. A spike is several times that, and more than
   a small fleet or a large one gets on an ordinary day (`limits`).
2. Devices that came in by single-use tokens, that were attested or that a person admitted count for nothing here: a
   factory may make thousands in an hour.
3. While no device was enrolled before, nothing is a spike: a fleet begins.
4. A spike holds every rollout that would go on (`flows/rollouts/advance`), until an hour after it, and people are told
   once. Going back waits for nothing.

Called by the controller that judges, and before a rollout goes on.
"""

import msgspec

from whimbrel import limits
from whimbrel.flows.audit import audit
from whimbrel.flows.device_records import EnrolmentRates
from whimbrel.flows.ports import AuditPort


class EnrolmentSpike(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that a shared token let in within an hour, and the most in an hour before. `newest`: one of them."""

    devices: int
    usual: int
    newest: str

    @property
    def words(self) -> str:
        """In a sentence."""
        return (
            f"{self.devices:,} devices enrolled with a shared token within the last hour, and {self.usual:,} at most "
            "in an hour of the two weeks before: somebody may be inventing devices (whimbrel device list shows them)"
        )


def enrolment_spike(rates: EnrolmentRates) -> EnrolmentSpike | None:
    """The spike of the last hour; None where there is none."""
    least = max(limits.SPIKE_DEVICES, rates.enrolled_before * limits.SPIKE_OF_FLEET)
    if not rates.enrolled_before or rates.last_hour < least:
        return None
    if rates.last_hour <= limits.SPIKE_TIMES * rates.busiest_hour:
        return None
    return EnrolmentSpike(devices=rates.last_hour, usual=rates.busiest_hour, newest=rates.newest)


def notice_spike(registry: AuditPort, spike: EnrolmentSpike, *, now: float) -> None:
    """Write a spike into the audit log, which tells people."""
    evidence = {"devices": spike.devices, "usual": spike.usual}
    audit(
        registry,
        device=spike.newest,
        actor="tally",
        action="notice_enrolments",
        because=spike.words,
        now=now,
        evidence=evidence,
    )
