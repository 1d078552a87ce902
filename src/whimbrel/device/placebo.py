"""When does a device count in its cohort without an update of its own? A control takes its placebo: pure.

1. A placebo takes as long as an update would: jitter and conditions first, and then a delay that is drawn from those of
   the treated devices. So both arms are of the same age, and lose the same devices on the way.
2. Conditions that hold an update back hold a placebo back as well.
3. Where the policy tells that delay late the placebo is dated back to when it was due, but not to before the last time
   that the conditions held it back.
4. A clock that is set back begins the wait anew: the placebo comes neither at once nor after years.
5. A treated device that runs its version already counts at once.

Called by `agent/installation.py` for every cohort that the device is in and does not count in yet.
"""

from collections.abc import Sequence

import msgspec

from whimbrel.device.cohorts import placebo_wait
from whimbrel.device.conditions import Situation, Wait, wait_for_conditions, wait_to_begin
from whimbrel.device.intent import treated_in
from whimbrel.device.journal import Journal, Membership
from whimbrel.device.slots import Pointer
from whimbrel.device.states import RESTING, State
from whimbrel.policy.decide import Decision
from whimbrel.policy.policy import Conditions, Policy


class Turn(msgspec.Struct, frozen=True):
    """What becomes of a cohort now. `at`: the device counts in it from then on; None: not yet, and `wait` says why.

    `permitted`: by this clock an update could begin now for the first time. `held_back`: the conditions alone hold the
    placebo back.
    """

    at: float | None = None
    wait: Wait | None = None
    permitted: bool = False
    held_back: bool = False


def due(journal: Journal, pointer: Pointer, decision: Decision, policy: Policy) -> tuple[Membership, ...]:
    """The cohorts to ask `turn` about: nothing is under way, and the device runs what is decided."""
    if journal.state not in RESTING | {State.ON_TRIAL} or pointer.serial != decision.serial:
        return ()
    runs_arm = treated_in(decision, policy) is not None
    return tuple(
        membership
        for membership in journal.memberships
        if membership.since is None and (membership.role == "control" or runs_arm)
    )


def turn(
    membership: Membership,
    conditions: Conditions,
    situation: Situation,
    *,
    delays_s: Sequence[float],
    model: str,
    device_id: str,
    now: float,
    offline: bool,
    held_back_at: float,
) -> Turn:
    """Whether the device counts in this cohort now. `held_back_at`: when the conditions last held a placebo back."""
    if membership.role == "treated":
        return Turn(at=now)
    permitted = membership.permitted_at is None
    if permitted:
        wait = wait_to_begin(
            conditions,
            situation,
            device_id=device_id,
            occasion=f"{model}/{membership.rollout}/{membership.stage}",
            since=membership.assigned_at,
            now=now,
            offline=offline,
        )
        if wait is not None:
            return Turn(wait=wait)
    permitted_at = membership.permitted_at
    if permitted_at is None or now < permitted_at:  # the first time, or the clock was set back: the wait begins now
        permitted_at, permitted = now, True
    wait = wait_for_conditions(conditions, situation, now=now, offline=offline)
    if wait is not None:
        return Turn(wait=wait, permitted=permitted, held_back=True)
    delay_s = placebo_wait(membership, delays_s, model=model, device_id=device_id)
    if now - permitted_at < delay_s and not offline:
        because = f"its placebo: an update would take this device {delay_s:.0f} s"
        return Turn(wait=Wait(because, permitted_at + delay_s - now), permitted=permitted)
    return Turn(at=min(now, max(permitted_at + delay_s, held_back_at)), permitted=permitted)
