"""What thousands of messages ask of the fleet, read once and written once: it costs a few statements.

1. All of it is within one transaction: `write` at the end, or nothing happened.
2. What one message changed is what the next one finds, so that the order of messages means what it always meant.
3. Nothing else may change these rows of the fleet in between.

Called by `ingest`.
"""

from collections.abc import Iterable

from whimbrel import limits
from whimbrel.flows.device_records import FollowedModels, HeardDevice, Participation, RunningVersion, SequenceMark
from whimbrel.flows.ports import FleetPort


class FleetBatch:
    """A fleet's rows that the messages of some devices may touch. `models`: those that there are."""

    def __init__(
        self, fleet: FleetPort, *, comparisons: Iterable[str], devices: Iterable[str], models: frozenset[str]
    ) -> None:
        self.models = models
        devices = sorted(set(devices))
        self._fleet = fleet
        self._sequences = fleet.sequences(devices)
        self._places = {
            (entry.rollout, entry.stage, entry.device_id): entry for entry in fleet.participations(comparisons, devices)
        }
        self._by_device: dict[str, set[tuple[str, int, str]]] = {}
        for key in self._places:
            self._by_device.setdefault(key[2], set()).add(key)
        self._new_sequences: dict[tuple[str, str], SequenceMark] = {}
        self._dropped_sequences: list[tuple[str, str]] = []
        self._epochs: dict[str, set[str]] = {}
        for device_id, epoch in self._sequences:
            self._epochs.setdefault(device_id, set()).add(epoch)
        self._changed_places: set[tuple[str, int, str]] = set()
        self._heard: dict[str, HeardDevice] = {}
        self._running: dict[tuple[str, str], RunningVersion] = {}
        self._followed: dict[str, FollowedModels] = {}

    def last_sequence(self, device_id: str, epoch: str) -> int:
        """The newest window of an installation that was tallied; 0 for none."""
        mark = self._sequences.get((device_id, epoch))
        return mark.last if mark is not None else 0

    def marks(self, device_id: str) -> dict[str, SequenceMark]:
        """How far each installation of a device is tallied, by its epoch."""
        return {epoch: self._sequences[device_id, epoch] for epoch in self._epochs.get(device_id, ())}

    def set_mark(self, device_id: str, epoch: str, mark: SequenceMark) -> None:
        """All windows of an installation up to the mark were tallied. Of very many, the oldest is forgotten."""
        self._sequences[device_id, epoch] = self._new_sequences[device_id, epoch] = mark
        epochs = self._epochs.setdefault(device_id, set())
        epochs.add(epoch)
        if len(epochs) > limits.DEVICE_EPOCHS:
            oldest = min(epochs - {epoch}, key=lambda each: (self._sequences[device_id, each].at, each))
            epochs.discard(oldest)
            del self._sequences[device_id, oldest]
            self._new_sequences.pop((device_id, oldest), None)
            self._dropped_sequences.append((device_id, oldest))

    def participation(self, comparison: str, stage: int, device_id: str) -> Participation | None:
        """A device's place in a stage's cohort, when it has one."""
        return self._places.get((comparison, stage, device_id))

    def places(self, device_id: str) -> list[Participation]:
        """A device's places in the cohorts of all comparisons."""
        return [self._places[key] for key in sorted(self._by_device.get(device_id, ()))]

    def save_participation(self, entry: Participation) -> None:
        """A device's place in a cohort is this now."""
        key = entry.rollout, entry.stage, entry.device_id
        self._places[key] = entry
        self._by_device.setdefault(entry.device_id, set()).add(key)
        self._changed_places.add(key)

    def note_heard(self, device_id: str, *, at: float, labels: dict[str, str] | None = None) -> None:
        """A device was heard at `at`; `labels`: what it said of them, or None."""
        before = self._heard.get(device_id)
        if labels is None and before is not None:
            labels = before.labels
        self._heard[device_id] = HeardDevice(device_id=device_id, at=at, labels=labels)

    def note_running(self, device_id: str, *, model: str, serial: int | None, hardware_class: str, at: float) -> None:
        """What a device says that it runs of a model. A model that there is not is left out."""
        if model not in self.models:
            return
        self._running[device_id, model] = RunningVersion(
            device_id=device_id, model=model, serial=serial, hardware_class=hardware_class, at=at
        )

    def note_followed(self, device_id: str, models: tuple[str, ...], *, at: float) -> None:
        """All models that a device follows from `at` on: what it said before of others is forgotten."""
        self._followed[device_id] = FollowedModels(device_id=device_id, models=models, at=at)
        for key in [key for key in self._running if key[0] == device_id and key[1] not in models]:
            del self._running[key]

    def write(self) -> None:
        """Write what changed, each row once."""
        self._fleet.forget_sequences(self._dropped_sequences)
        self._fleet.set_sequences(self._new_sequences)
        self._fleet.save_participation(*(self._places[key] for key in sorted(self._changed_places)))
        self._fleet.note_heard(*self._heard.values())
        self._fleet.note_running(*self._running.values())
        self._fleet.note_followed(*self._followed.values())
