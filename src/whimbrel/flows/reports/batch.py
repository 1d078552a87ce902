"""How do thousands of messages cost a few statements? What they ask of the fleet is read once, and written once.

1. All of it is within one transaction: `write` at the end, or nothing happened.
2. What one message changed is what the next one finds, so that the order of messages means what it always meant.
3. Nothing else may change these rows of the fleet in between.

Called by `ingest`.
"""

from collections.abc import Iterable

from whimbrel.flows.ports import FleetPort
from whimbrel.flows.records import Participation, Running, Sight


class Gathered:
    """A fleet's rows that the messages of some devices may touch."""

    def __init__(self, fleet: FleetPort, *, rollouts: Iterable[str], devices: Iterable[str]) -> None:
        devices = sorted(set(devices))
        self._fleet = fleet
        self._sequences = fleet.sequences(devices)
        self._places = {
            (entry.rollout, entry.stage, entry.device_id): entry for entry in fleet.participations(rollouts, devices)
        }
        self._counted: dict[tuple[str, str], int] = {}
        self._placed: set[tuple[str, int, str]] = set()
        self._seen: dict[str, Sight] = {}
        self._running: dict[tuple[str, str], Running] = {}

    def last_sequence(self, device_id: str, epoch: str) -> int:
        """The newest window of an installation that was tallied; 0 for none."""
        return self._sequences.get((device_id, epoch), 0)

    def set_last_sequence(self, device_id: str, epoch: str, last: int) -> None:
        """All windows up to `last` were tallied."""
        self._sequences[device_id, epoch] = self._counted[device_id, epoch] = last

    def participation(self, rollout: str, stage: int, device_id: str) -> Participation | None:
        """A device's place in a stage's cohort, when it has one."""
        return self._places.get((rollout, stage, device_id))

    def save_participation(self, entry: Participation) -> None:
        """A device's place in a cohort is this now."""
        key = entry.rollout, entry.stage, entry.device_id
        self._places[key] = entry
        self._placed.add(key)

    def seen(self, device_id: str, *, at: float, labels: dict[str, str] | None = None) -> None:
        """It reported just now."""
        before = self._seen.get(device_id)
        if labels is None and before is not None:
            labels = before.labels
        self._seen[device_id] = Sight(device_id=device_id, at=at, labels=labels)

    def runs(self, device_id: str, *, model: str, serial: int | None, hardware_class: str, at: float) -> None:
        """What a device says it runs."""
        self._running[device_id, model] = Running(
            device_id=device_id, model=model, serial=serial, hardware_class=hardware_class, at=at
        )

    def write(self) -> None:
        """Write what changed, each row once."""
        self._fleet.set_sequences(self._counted)
        self._fleet.save_participation(*(self._places[key] for key in sorted(self._placed)))
        self._fleet.seen(*self._seen.values())
        self._fleet.runs(*self._running.values())
