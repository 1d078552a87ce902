"""The preparation of a version in the inactive slot, from its conditions to a passed probe.

1. Conditions are asked before the download begins, and again when it goes on.
2. Room is made before a byte is fetched: the old version in the other slot goes first.
3. A probe that finds the build too slow or too large for this device makes way for the next one that fits.

Each step returns an event, or a `Wait`: not now.
"""

import msgspec

from whimbrel import limits
from whimbrel.agent.benchmarks import Benchmarks
from whimbrel.agent.device_context import DeviceContext
from whimbrel.agent.model_state import ModelState
from whimbrel.agent.open_in_memory import objection_to_memory, opened_slot
from whimbrel.agent.staging import Interrupted, Staging
from whimbrel.device import events
from whimbrel.device.conditions import Wait, wait_for_conditions, wait_to_begin
from whimbrel.device.journal import Candidate
from whimbrel.device.ports import ProbeRequest
from whimbrel.device.slots import Held
from whimbrel.device.step import moved
from whimbrel.errors import InvariantBroken
from whimbrel.health.report import Build
from whimbrel.model.choose import Capacity, telling_labels
from whimbrel.model.release import Release, Variant
from whimbrel.model.ways import Step
from whimbrel.policy.policy import Conditions


class Preparation:
    """The inactive slot of one model."""

    def __init__(self, state: ModelState, device: DeviceContext) -> None:
        self._state = state
        self._device = device
        self._named: tuple[Held, frozenset[str], Variant | None] | None = None  # the active build, while these stay
        self._benchmarks = Benchmarks(state.places.folder / "benchmarks", disk=device.disk)
        self._staging = Staging(
            state.places,
            disk=device.disk,
            download=device.download,
            home=device.folder,
            quota_bytes=device.quota_bytes,
            sealed_at_rest=device.sealed_at_rest,
        )

    @property
    def fetching(self) -> set[str]:
        """Digests of patches and of what they make, while they are on their way."""
        return self._staging.fetching

    def choose(self, release: Release) -> Variant | None:
        """The build of `release` for this device; None where none fits."""
        return self._benchmarks.choose(release, self._device.labels, now=self._device.now(), capacity=self._capacity)

    def build(self) -> Build | None:
        """The active version's build, its budgets, and what its probe measured here.

        None where nothing is known, or where to name the build would tell of labels that no policy asks for.
        """
        active, policy = self._state.pointer.active, self._device.trust.policies.get(self._state.model)
        if active is None or policy is None:
            return None
        told = frozenset({*policy.report_labels, policy.hardware_label, *policy.slice_labels})
        if self._named is None or self._named[:2] != (active, told):  # a release has its golden inputs: not read twice
            release = self._device.trust.kept_release(self._state.model, active.serial)
            if release is None:
                return None
            self._named = active, told, self._named_build(release, active, told)
        variant = self._named[2]
        if variant is None:
            return None
        measured = self._benchmarks.measured(variant)
        return Build(
            serial=active.serial,
            variant=variant.name,
            latency_ms_max=variant.probe.latency_ms_max if variant.probe else None,
            memory_mib_max=variant.probe.memory_mib_max if variant.probe else None,
            latency_ms=measured.latency_ms if measured else None,
            memory_mib=measured.memory_mib if measured else None,
        )

    def _named_build(self, release: Release, active: Held, told: frozenset[str]) -> Variant | None:
        """The active build, as far as its name says no more than `told` labels do; without its golden inputs."""
        if not telling_labels(release) <= told:
            return None
        held = {(each.name, each.file_sha256) for each in active.contents}
        same = [each for each in release.variants if {(file.name, file.sha256) for file in each.files} == held]
        build = next((each for each in same if each.selector.matches(self._device.labels)), None)
        if build is None or build.probe is None:
            return build
        budgets = msgspec.structs.replace(build.probe, inputs={}, outputs={}, validation=None)
        return msgspec.structs.replace(build, probe=budgets)

    def _capacity(self) -> Capacity:
        memory = self._device.labels.get("ram_mb", "")
        return Capacity(
            memory_mib=int(memory) if memory.isdecimal() else None,
            room_bytes=self._staging.room_bytes(self._state.pointer.inactive),
        )

    def wait_for_conditions(self, candidate: Candidate) -> Wait | None:
        """Why the candidate may not be fetched or activated now."""
        unproven = self._device.trust.unproven.get(self._state.model)
        if unproven:
            return Wait(unproven)
        conditions = self._conditions(candidate)
        return wait_for_conditions(
            conditions,
            self._device.situation_for(conditions),
            now=self._device.now(),
            offline=self._device.network.offline,
        )

    def begin(self, candidate: Candidate) -> events.Begun | Wait:
        """Begin when the conditions and the jitter let it, and not soon after bytes that were wrong."""
        unproven = self._device.trust.unproven.get(self._state.model)
        if unproven:
            return Wait(unproven)
        at_rest, active = self._device.sealed_at_rest, self._state.pointer.active
        if because := objection_to_memory(candidate, active, sealed_at_rest=at_rest):
            return Wait(because, limits.WAIT_FOR_CONDITIONS_S)
        now = self._device.now()
        # A clock that was set back is no reason to wait for longer than the wait was.
        if now < candidate.again_at <= now + limits.WRONG_BYTES_MOST_S and not self._device.network.offline:
            because = f"another try: {candidate.install_attempts} did not bring the bytes that the release names"
            return Wait(because, candidate.again_at - now)
        conditions = self._conditions(candidate)
        cohort = f"{candidate.rollout}/{candidate.stage}" if candidate.rollout else str(candidate.serial)
        wait = wait_to_begin(
            conditions,
            self._device.situation_for(conditions),
            device_id=self._device.device_id,
            occasion=f"{self._state.model}/{cohort}",
            since=candidate.offered_at,
            now=self._device.now(),
            offline=self._device.network.offline,
        )
        return wait or events.Begun()

    def fetch(self, candidate: Candidate) -> events.Fetched | Wait:
        """Download. Raises `Unavailable`: what came is kept, and counted."""
        wait = self.wait_for_conditions(candidate)
        if wait is not None:
            return wait
        if self._device.download.left_today() == 0:
            because = "tomorrow: the day's budget of a metered network is used up"
            return Wait(because, limits.WAIT_FOR_CONDITIONS_S)
        index = self._device.trust.deltas(self._state.model, candidate.serial, self._device.now())
        steps = index.steps if index else ()
        wait = self._make_room(candidate, steps)
        if wait is not None:
            return wait
        expected = self._staging.expected(candidate, steps, self._state.pointer.active)
        meter = self._device.download.meter
        with meter.downloading(
            self._state.model, serial=candidate.serial, version=candidate.version, expected=expected
        ):
            result = self._staging.fetch(
                candidate,
                steps,
                self._state.pointer.active,
                release_key=lambda: self._device.release_keys.get(self._state.model, candidate.serial),
            )
            if not isinstance(result, Interrupted):
                meter.complete()
        if isinstance(result, Interrupted):
            if result.unopened:  # perhaps with a wrong key: it is asked for anew
                self._device.release_keys.forget(self._state.model, candidate.serial)
            counted = moved(candidate, result.moved, result.moved_by)
            self._state.keep(msgspec.structs.replace(self._state.journal, candidate=counted))
            raise result.error
        return result

    def stage(self, candidate: Candidate) -> events.Staged | events.Corrupt | events.InstallFailed | Wait:
        """Verify, and fill the inactive slot."""
        if not self._state.free_inactive(candidate.slot):  # a session of the version before, that no swap waited for
            return Wait("the end of the open sessions", limits.WAIT_FOR_SESSION_S)
        release = self._device.trust.release(self._state.model, candidate.serial, self._device.now())
        return self._staging.stage(candidate, reference=release.reference)

    def probe(self, candidate: Candidate) -> events.ProbePassed | events.ProbeFailed | events.Withdrawn:
        """Try the version in a cage. `Withdrawn`: another build fits this device better."""
        release = self._device.trust.release(self._state.model, candidate.serial, self._device.now())
        variant = _variant_of(candidate, release)
        if variant is None:
            return events.ProbeFailed("the release no longer names these files")
        entry, held = candidate.files[0], candidate.held
        if held is None:
            raise InvariantBroken(f"serial {candidate.serial} is to be tried, and was not staged")
        with opened_slot(
            self._state.places, held, lambda: self._device.release_keys.get(self._state.model, candidate.serial)
        ) as folder:
            request = ProbeRequest(
                path=str(folder / entry.name),
                format=entry.format,
                signature=variant.signature,
                probe=variant.probe,
                size_bytes=variant.size_bytes,
                folder=str(folder),
            )
            result = self._device.prober.probe(request)
        self._benchmarks.keep(variant, result, now=self._device.now())
        if result.over_budget and self._is_another_chosen(variant, release):
            return events.Withdrawn()  # the next pass offers the smaller one
        return events.ProbePassed() if result.passed else events.ProbeFailed(result.reason)

    def is_whole(self, candidate: Candidate) -> bool:
        """Whether the staged files have the bytes that were verified; all of them are hashed."""
        return candidate.held is not None and self._state.places.integrity.intact(candidate.held)

    def _conditions(self, candidate: Candidate) -> Conditions:
        policy = self._device.trust.policies[self._state.model]
        return policy.conditions_of(candidate.rollout, role="treated", stage=candidate.stage)

    def _make_room(self, candidate: Candidate, steps: tuple[Step, ...]) -> Wait | None:
        state = self._state
        lacking = self._staging.lacking(candidate, steps, state.pointer.active)
        if lacking and state.free_inactive(candidate.slot):  # the old version there would go soon anyway
            self._staging.empty(candidate.slot)
            lacking = self._staging.lacking(candidate, steps, state.pointer.active)
        if not lacking:
            return None
        because = f"room: {-(-lacking // limits.MIB)} MiB more must be free for serial {candidate.serial}"
        return Wait(because, limits.WAIT_FOR_CONDITIONS_S)

    def _is_another_chosen(self, variant: Variant, release: Release) -> bool:
        chosen = self.choose(release)
        return chosen is not None and chosen.name != variant.name


def _variant_of(candidate: Candidate, release: Release) -> Variant | None:
    """The candidate's build; by its name, since two builds for different devices may have the same files."""
    same = [variant for variant in release.variants if variant.files == candidate.files]
    return next((variant for variant in same if variant.name == candidate.variant), same[0] if same else None)
