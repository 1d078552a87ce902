"""What the monitors of a model say now, and what follows: an alert, a way back, or an end.

1. Watched are the versions that most devices told of within a day: the baseline always, no version that everybody
   refuses, and not the target of a live rollout, which has a gate.
2. A monitor fires once: an *episode* begins, with an audit entry from which alerts follow, and lasts until the figure
   is back within its bound, or the version is watched no more. That is told too. The episode of a version that was
   taken back lasts until no device is heard that runs it.
3. Where the settings say so the model goes back: only its baseline, and once a day at most. It is not the version's
   fault where the version beside it breaks the same objective in the same hours; nothing is taken back then. What
   cannot be taken back is an alert that says why.
4. An anomaly that ended is looked for anew, in hours after its end.

Called by the server's monitoring, once every few seconds and model.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.monitors.history import HourHistory
from whimbrel.flows.monitors.ports import EpisodesPort
from whimbrel.flows.monitors.read_monitors import MonitorReading, read_monitors
from whimbrel.flows.monitors.records import HOUR_S, Episode, Outcome
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.quarantine import refused_serials
from whimbrel.flows.records import ModelRecord, VersionRecord

ACTOR = "monitor"
_ACTIONS = {"objective": "break_objective", "anomaly": "notice_anomaly"}


class RollBack(Protocol):
    """How a model goes back to its previous good version. Returns that version's name. Raises `Refused`."""

    def __call__(self, model: str, *, leaves: int, because: str, evidence: dict[str, object]) -> str: ...


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is watched now, and what its monitors show."""

    version: VersionRecord
    readings: list[MonitorReading]


def watched_versions(
    registry: RegistryPort, model: ModelRecord, history: HourHistory, *, hour: int
) -> list[VersionRecord]:
    """The versions whose monitors are read, the baseline first and then by devices."""
    counts = history.serials(range(hour - 23, hour + 1))
    refused = refused_serials(registry, model.name)
    judged = {rollout.target for rollout in registry.rollouts(model=model.name, live=True)}
    order = sorted(counts, key=lambda serial: (serial != model.baseline, -counts[serial], serial))
    versions = {version.serial: version for version in registry.versions(model.name)}
    chosen = [serial for serial in order if serial in versions and serial not in refused and serial not in judged]
    return [versions[serial] for serial in chosen[: limits.MONITORED_VERSIONS]]


def watch(
    registry: RegistryPort,
    episodes: EpisodesPort,
    model: ModelRecord,
    history: HourHistory,
    *,
    anomalies: dict[int, list[MonitorReading]],
    roll_back: RollBack,
    now: float,
) -> list[Watched]:
    """Read the monitors of a model, and do what follows. `history`: read up to the hour of `now`.

    `anomalies`: the readings of anomalies by serial; those that are there are not read again, and new ones are added.
    """
    hour = int(now // HOUR_S)
    known = episodes.episodes(model.name, since=now - limits.TAKES_BACK_S)
    versions = watched_versions(registry, model, history, hour=hour)
    watched = [
        Watched(version=version, readings=readings)
        for version, readings in zip(
            versions,
            read_monitors(registry, model, history, versions, episodes=known, anomalies=anomalies, hour=hour),
            strict=True,
        )
    ]
    open_ = {(each.serial, each.monitor): each for each in known if each.ended_at is None}
    for each in watched:
        for reading in each.readings:
            episode = open_.pop((each.version.serial, reading.monitor), None)
            if episode is None and reading.fires:
                fire = _Fire(registry, episodes, model, roll_back, now=now)
                known.append(fire(each.version, reading, watched, known))
                anomalies.clear()
            elif episode is not None and reading.over:
                _end(registry, episodes, episode, each.version, reading.because, now=now)
                anomalies.clear()
    names = {version.serial: version for version in registry.versions(model.name)}
    heard = history.serials(range(hour - 1, hour + 1))
    for episode in open_.values():
        if episode.outcome == "taken_back" and episode.serial in heard:
            continue  # its devices are on their way
        because = "no device is heard that runs it" if episode.serial not in heard else "it is watched no more"
        _end(registry, episodes, episode, names.get(episode.serial), because, now=now)
    return watched


class _Fire:
    """What follows when a monitor fires."""

    def __init__(
        self, registry: RegistryPort, episodes: EpisodesPort, model: ModelRecord, roll_back: RollBack, *, now: float
    ) -> None:
        self._registry, self._episodes, self._model = registry, episodes, model
        self._roll_back, self._now = roll_back, now

    def __call__(
        self, version: VersionRecord, reading: MonitorReading, watched: Sequence[Watched], known: Sequence[Episode]
    ) -> Episode:
        outcome: Outcome = "alert"
        because = reading.because
        evidence = _evidence(version, reading)
        if reading.action == "take_back":
            outcome, what = self._take_back(version, reading, watched, known, evidence)
            because = f"{because}; {what}"
        episode = Episode(
            model=self._model.name,
            serial=version.serial,
            monitor=reading.monitor,
            since=self._now,
            because=because,
            outcome=outcome,
        )
        self._episodes.begin_episode(episode)
        audit(
            self._registry,
            model=self._model.name,
            actor=ACTOR,
            action=_ACTIONS[reading.kind],
            because=because,
            now=self._now,
            evidence=evidence | {"outcome": outcome},
        )
        return episode

    def _take_back(
        self,
        version: VersionRecord,
        reading: MonitorReading,
        watched: Sequence[Watched],
        known: Sequence[Episode],
        evidence: dict[str, object],
    ) -> tuple[Outcome, str]:
        objection = self._objection(version, reading, watched, known)
        if objection:
            return "not_taken_back", f"it is not taken back: {objection}"
        try:
            to = self._roll_back(
                self._model.name, leaves=version.serial, because=reading.because, evidence=dict(evidence)
            )
        except Refused as error:
            return "not_taken_back", f"it could not be taken back: {error}"
        return "taken_back", f"its devices go back to {to}"

    def _objection(
        self, version: VersionRecord, reading: MonitorReading, watched: Sequence[Watched], known: Sequence[Episode]
    ) -> str:
        if version.serial != self._registry.model(self._model.name).baseline:
            return "it is not the baseline"
        if any(each.outcome == "taken_back" for each in known):
            return "a monitor took this model back within a day, and what ails every version is no version's fault"
        for other in watched:
            for same in other.readings:
                if other.version.serial != version.serial and same.monitor == reading.monitor and same.fires:
                    return f"{other.version.semantic_version} beside it does the same, so it is no fault of the version"
        return ""


def _end(
    registry: RegistryPort,
    episodes: EpisodesPort,
    episode: Episode,
    version: VersionRecord | None,
    because: str,
    *,
    now: float,
) -> None:
    episodes.end_episode(episode, at=now)
    audit(
        registry,
        model=episode.model,
        actor=ACTOR,
        action="recover",
        because=because,
        now=now,
        evidence={
            "monitor": episode.monitor,
            "serial": episode.serial,
            "version": version.semantic_version if version is not None else str(episode.serial),
            "since": episode.since,
        },
    )


def _evidence(version: VersionRecord, reading: MonitorReading) -> dict[str, object]:
    return {
        "monitor": reading.monitor,
        "serial": version.serial,
        "version": version.semantic_version,
        "value": reading.value,
        "device_hours": reading.units,
        "log_e": round(reading.log_e, 3),
        "log_e_needed": round(reading.needed, 3),
        "action": reading.action,
    }
