"""How long does a device offer its apps no version because a policy says so? Pure.

1. A version that the publisher's line forbids is left for good, where no other is allowed.
2. The policy's key is online and may be stolen. So a stop by the policy alone lasts `limits.STOP_MOST_S` at most. Then
   the device goes on with the version that it ran before, unless the line forbids it or it failed here.
3. A stop that is taken back and said again is the same stop, until `limits.STOP_AGAIN_S` after it began.

Called by intent.py.
"""

from whimbrel import limits

LASTED = (
    f"the policy has offered no version for {limits.STOP_MOST_S / 86400:g} days, and only the publisher's line stops "
    "one for longer"
)


def is_honoured(stopped_at: float | None, *, now: float) -> bool:
    """Whether a stop by the policy alone holds at `now`, where the first of its kind began at `stopped_at`."""
    return now < began(stopped_at, now=now) + limits.STOP_MOST_S


def began(stopped_at: float | None, *, now: float) -> float:
    """When the stop that holds now began; `now` where none did, or where it is long over."""
    return now if stopped_at is None or now >= stopped_at + limits.STOP_AGAIN_S else stopped_at
