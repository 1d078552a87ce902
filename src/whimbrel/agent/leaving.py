"""What makes one model leave its version by itself, and how does a cycle write that down? (device/departure.py)

1. Crashes that the agent finds are in the same durable count as those that a session's start finds.
2. A version is left by a record that sessions believe at once; the journal says so in the same pass, and the pointer
   follows without waiting for sessions: those that begin have the version before already.
3. The orders (how many crashes end a version, what may not run) are durable before a version is swapped in, so that
   sessions decide by them when no cycle runs.
"""

from collections.abc import Callable, Mapping

from whimbrel.agent.crash_counts import kept_count
from whimbrel.agent.departures import fallback_of, forget, leave
from whimbrel.agent.device_context import DeviceContext
from whimbrel.agent.load_failures import failure_of, forget_failure
from whimbrel.agent.locks import locked
from whimbrel.agent.model_state import ModelState
from whimbrel.agent.open_now import stays_words
from whimbrel.agent.places import read_departures
from whimbrel.device import events
from whimbrel.device.crash_loop import count_of, reason_to_leave
from whimbrel.device.departure import Departure, Orders, names
from whimbrel.device.states import PREPARING, State
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.model import documents
from whimbrel.model.local_limits import LocalLimits
from whimbrel.policy.decide import Profile, objection


class Leaving:
    """One model that may leave its version. `kept_because`: why it did not, though it should."""

    def __init__(self, state: ModelState, device: DeviceContext) -> None:
        self.kept_because = ""
        self._state = state
        self._device = device
        self._orders: bytes | None = None

    # --- deciding ---

    def look(self, limits: LocalLimits, *, reasons: tuple[Callable[[], str], ...] = ()) -> None:
        """Leave the active version where its crashes, or one of `reasons`, say so; follow what was left before."""
        if self._state.journal.state is State.GOING_BACK:
            return
        departure = self._departure()
        if departure is None:
            failure = failure_of(self._state.places, self._state.pointer.active)
            if not failure:
                forget_failure(self._state.places)
            reason = failure or self._crashes(limits) or next((because for each in reasons if (because := each())), "")
            self.kept_because = ""
            if not reason or not self._leave(reason):
                return
            departure = self._departure()
        if departure is not None and self._state.pointer.fallback is not None:
            self._follow(departure)

    def _crashes(self, limits: LocalLimits) -> str:
        active, kept = self._state.pointer.active, kept_count(self._state.places)
        if active is None or kept is None or self._state.journal.state is State.ON_TRIAL:
            return ""  # a trial has its own count
        return reason_to_leave(count_of(kept, active), most=limits.crashes)

    def _leave(self, reason: str) -> bool:
        places = self._state.places
        try:
            fallback_of(places)  # hashed outside of the lock
            with locked(places.swap_lock, disk=places.disk):
                leave(places, model=self._state.model, reason=reason)
        except (Refused, UntrustedInput) as error:
            self.kept_because = stays_words(reason, str(error))
            return False
        return True

    def _departure(self) -> Departure | None:
        departure = read_departures(self._state.places).get(self._state.model)
        return departure if names(departure, self._state.pointer.active) else None

    # --- writing down ---

    def _follow(self, departure: Departure) -> None:
        state, fallback = self._state, self._state.pointer.fallback
        to = fallback.serial if fallback is not None else None
        if state.journal.state in PREPARING:
            state.take(events.Withdrawn())
        if departure.follows is not None:
            state.take(events.Recalled(to=to, leaves=departure.serial, reason=departure.reason))
            return
        policy = self._device.trust.policies.get(state.model)
        sequence = policy.sequence if policy is not None else 0
        state.take(
            events.LeftByItself(leaves=departure.serial, to=to, reason=departure.reason, policy_sequence=sequence)
        )

    def finish(self) -> None:
        """Remove the record of what is written down."""
        if self._state.journal.state is State.GOING_BACK:
            return
        departure = read_departures(self._state.places).get(self._state.model)
        is_open = names(departure, self._state.pointer.active) and self._state.pointer.fallback is not None
        if departure is not None and not is_open:
            places = self._state.places
            for place in (places.crash_loop, places.load_failure, places.recent, places.recheck):
                places.disk.remove(place)  # where it is tried again it begins at zero
            forget(self._state.places, {self._state.model: departure})

    def write_orders(self, limits: LocalLimits, profile: Profile, together: Mapping[str, int]) -> None:
        """Make durable what sessions must know when no cycle runs; nothing, where it is known."""
        orders = Orders(crash_loop=limits.crashes, barred=self._barred(profile), together=dict(together))
        content = documents.encode(orders)
        places = self._state.places
        if self._orders is None:
            self._orders = places.disk.read(places.orders) or documents.encode(Orders())
        if content != self._orders:
            places.disk.write(places.orders, content)
            self._orders = content

    def _barred(self, profile: Profile) -> tuple[int, ...]:
        model, pointer, candidate = self._state.model, self._state.pointer, self._state.journal.candidate
        policy, line = self._device.trust.policies.get(model), self._device.trust.lines.get(model)
        held = {each.serial for each in (pointer.active, pointer.fallback, candidate) if each is not None}
        if policy is None or line is None:
            return tuple(sorted(held & profile.refused))
        return tuple(sorted(each for each in held if objection(policy, line, profile, each) is not None))
