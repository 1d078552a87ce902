"""What does an application open? `Agent`: sessions, and cycles that keep its models as the policies say.

1. A cycle is one bounded pass: look at what happened, refresh when it is due, act as far as possible, tell what is due.
2. No trouble of the network, the server or a document leaves a cycle as an exception: it is recorded, and tried again
   later and later, at most a refresh period apart.
3. One process at a time runs cycles on a folder; sessions need no such permission, and no cycles.
"""

import functools
import logging
import os
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from whimbrel import agefile, limits
from whimbrel.agent import sets
from whimbrel.agent import settings as settings_file
from whimbrel.agent.allowance import Allowance, day_budget_bytes
from whimbrel.agent.assembly import can_patch
from whimbrel.agent.attestation import find_attester
from whimbrel.agent.backoff import Backoff, after_s_of
from whimbrel.agent.bundle import Bundle, Switched
from whimbrel.agent.changes import Changes
from whimbrel.agent.conditions_linux import default_situation
from whimbrel.agent.departures import go_back
from whimbrel.agent.device_api import DeviceApi
from whimbrel.agent.device_context import DeviceContext
from whimbrel.agent.disk import Disk, RealDisk
from whimbrel.agent.download import Download, Unfinished
from whimbrel.agent.folder import claim
from whimbrel.agent.housekeeping import Housekeeping
from whimbrel.agent.installation import Installation
from whimbrel.agent.labels import labels_of, labels_to_tell, take_granted
from whimbrel.agent.locks import held_alone
from whimbrel.agent.mirrors import Mirrors
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.pass_clock import PassClock
from whimbrel.agent.places import Places
from whimbrel.agent.probes import rest
from whimbrel.agent.progress import DownloadProgress, ProgressMeter
from whimbrel.agent.refreshing import Refreshing
from whimbrel.agent.release_keys import KeptReleaseKeys, ReleaseKeys
from whimbrel.agent.reporting import Reporting
from whimbrel.agent.run_history import RunHistory
from whimbrel.agent.self_measures import SelfMeasures
from whimbrel.agent.session import Session
from whimbrel.agent.shadow import ShadowClient
from whimbrel.agent.spool import Spool
from whimbrel.agent.status import StatusFile, model_status, read_status
from whimbrel.agent.swaps import Swaps
from whimbrel.agent.transport import HttpNetwork, Proxies, is_confidential
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.ports import Clock, Prober
from whimbrel.device.states import PREPARING, State
from whimbrel.errors import NotFound, Refused, Unavailable, UntrustedInput, WhimbrelError, reason_of
from whimbrel.trust.sealing import recipient_key_of

log = logging.getLogger(__name__)

_EARLIEST_S = 0.02  # between two passes of run(), whatever is due


class CycleResult(msgspec.Struct, frozen=True):
    """`next_s`: seconds until something is due. `models`: as in `Agent.status`. `problems`: what could not be done."""

    next_s: float
    refreshed: bool
    models: dict[str, dict[str, Any]]
    problems: tuple[str, ...] = ()


class Agent:
    """The agent of one folder. `open` it; `close` it."""

    def __init__(
        self, folder: Path, settings: settings_file.Settings, root: bytes, options: AgentOptions, *, disk: Disk
    ) -> None:
        chance = options.chance or random.Random()  # noqa: S311 (it spreads load and keeps no secret)
        self.folder = folder
        self.settings = settings
        self._own_labels = labels_of(settings.labels)
        self._labels = dict(self._own_labels)
        self._clock = options.clock
        self._now = PassClock(options.clock, options.monotonic)
        self._durable_sessions = options.durable_sessions
        self._measures = SelfMeasures() if options.self_measures else None
        self._not_measured = dict(self._measures.not_measured()) if self._measures is not None else {}
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._disk = disk
        self._http = HttpNetwork(options.pool, proxies=Proxies(settings.proxy), ca_file=settings.ca_file)
        self._network = Switched(self._http)
        self._situation = options.situation or default_situation(folder)
        url = f"{settings.server}/{settings.namespace}"
        self._trust = TrustClient(
            folder / "trust", url=url, root=root, models=settings.models, disk=disk, network=self._network
        )
        self._download = self._make_download(url, chance, monotonic=options.monotonic)
        self._progress = options.progress
        self._changes = Changes(folder / "told.json", disk=disk, hook=options.on_change)
        self._spool = Spool(folder / "spool.json", disk=disk)
        self._runs = RunHistory(
            folder,
            device_id=settings.device_id,
            key=lambda: self._api.key,
            disk=disk,
            now=self._now,
            signed_time=lambda: self._trust.memory.signed_at,
        )
        self._kept_keys = KeptReleaseKeys(folder, namespace=settings.namespace, device_id=settings.device_id, disk=disk)
        api = DeviceApi(
            folder / "credential.json",
            url=url,
            device_id=settings.device_id,
            labels=lambda: labels_to_tell(self._labels, self._trust.policies.values()),
            models=settings.models,
            enrol_token=options.enrol_token,
            disk=disk,
            network=self._network,
            clock=options.monotonic,
            confidential=is_confidential(settings.server),
            granted=functools.partial(take_granted, self._labels, self._own_labels),
            enrolled=self._runs.send_again,
            attester=functools.partial(find_attester, options.attester, settings.attestation, folder),
            recipient=self._recipient,
        )
        self._api = api
        self._release_keys = self._keys_of_releases(api)
        self._installations: dict[str, Installation] = {}
        self._install(api, options.probes)
        self._installing = {model: Backoff(chance) for model in settings.models}
        self._reporting = Reporting(
            api,
            self._spool,
            trust=self._trust,
            installations=self._installations,
            labels=self._labels,
            now=self._now,
            network=self._network,
            chance=chance,
            installing=self._installing,
            runs=self._runs,
        )
        self._housekeeping = self._keeper_of_order()
        self._refreshing = Refreshing(self._trust, now=self._now, chance=chance, least_s=self._least_refresh_s)
        self._storing = Backoff(chance)
        self._status: dict[str, Any] = {}
        self._status_file = StatusFile(folder, disk=disk)
        self._shadows: dict[str, ShadowClient] = {}
        self._shadows_guard = threading.Lock()

    def _recipient(self) -> str | None:
        return recipient_key_of(self._kept_keys.recipient.get()) if agefile.is_installed() else None

    def _keeper_of_order(self) -> Housekeeping:
        return Housekeeping(
            self.folder,
            disk=self._disk,
            trust=self._trust,
            download=self._download,
            release_keys=self._release_keys,
            installations=self._installations,
        )

    def _keys_of_releases(self, api: DeviceApi) -> ReleaseKeys:
        return ReleaseKeys(
            self._kept_keys,
            api,
            keeps=self.settings.sealed_at_rest,
            offline=lambda: self._network.offline,
            bundled=functools.partial(self._network.release_key, device_id=self.settings.device_id),
        )

    def _make_download(self, url: str, chance: random.Random, *, monotonic: Clock) -> Download:
        return Download(
            self.folder / "incoming",
            disk=self._disk,
            network=self._network,
            mirrors=Mirrors((*self.settings.mirrors, f"{url}/artifacts"), now=self._now, chance=chance),
            allowance=self._allowance(),
            stopped=self._stop.is_set,
            offline=lambda: self._network.offline,
            now=self._now,
            monotonic=monotonic,
            meter=ProgressMeter(self._tell_progress, monotonic=monotonic),
        )

    def _allowance(self) -> Allowance:
        return Allowance(
            self.folder / "budget.json",
            disk=self._disk,
            now=lambda: self._trust.trusted_time(self._now()),
            budget_bytes=self._budget_bytes,
            bytes_per_s=self.settings.bandwidth_kib_s * limits.KIB or None,
            pause=self._stop.wait,
        )

    def _install(self, api: DeviceApi, probes: Prober | None) -> None:
        device = DeviceContext(
            device_id=self.settings.device_id,
            labels=self._labels,
            folder=self.folder,
            quota_bytes=self.settings.quota_mib * limits.MIB or None,
            sealed_at_rest=self.settings.sealed_at_rest,
            disk=self._disk,
            network=self._network,
            trust=self._trust,
            download=self._download,
            api=api,
            release_keys=self._release_keys,
            spool=self._spool,
            runs=self._runs,
            now=self._now,
            situation=self._situation,
            probes=probes,
        )
        swaps = Swaps(device)
        for model in self.settings.models:
            places = Places(self.folder / "models" / model, disk=self._disk)
            self._installations[model] = Installation(model, places, device, swaps=swaps, models=self._installations)

    @classmethod
    def open(cls, folder: str | Path, options: AgentOptions = AgentOptions()) -> Self:
        """The agent of `folder`. The folder remembers settings: later `Agent.open(folder)` is enough.

        Raises `UntrustedInput`, `Refused`, `Unavailable`.
        """
        if not isinstance(options, AgentOptions):
            raise UntrustedInput(
                f"options are of type {type(options).__name__}; expected AgentOptions(server=..., root=...)"
            )
        folder = Path(folder).absolute()  # probes and shadow workers run in another folder
        try:
            disk = options.disk if options.disk is not None else RealDisk()
            if options.disk is None:
                claim(folder)
            disk.make_folder(folder)
            settings, trusted = settings_file.settle(folder, options, disk=disk)
            return cls(folder, settings, trusted, options, disk=disk)
        except OSError as error:
            raise Unavailable(f"the folder {folder} cannot be used: {reason_of(error)}") from error

    def session(self, model: str) -> Session:
        """One use of a model, as a context manager. Raises `Unavailable` on entry where no version is here yet."""
        if model not in self._installations:
            raise NotFound(f"this agent keeps {', '.join(self._installations)}; it was opened without {model!r}")
        places = self._installations[model].state.places
        with self._shadows_guard:
            if model not in self._shadows:
                self._shadows[model] = ShadowClient(places)
            shadow = self._shadows[model]
        return Session(
            model,
            places,
            durable=self._durable_sessions,
            shadow=shadow,
            measures=self._measures,
            release_keys=self._kept_keys,
        )

    def swap_now(self, model: str) -> bool:
        """Ask that a swap waits for no session: those that are open go on with the version that they opened, whose
        files stay until the last of them ends; those that begin later get the new one. False: no swap waits.

        Any process may ask; whoever runs the cycles does it in its next one.
        """
        if model not in self._installations:
            raise NotFound(f"this agent keeps {', '.join(self._installations)}; it was opened without {model!r}")
        return self._installations[model].state.request_swap()

    def go_back(self, model: str, because: str) -> int:
        """Leave the active version for the one before it, since an app sees that it does badly; its serial.

        Durable when this returns; sessions that begin later get the version before. Needs no cycle and no network, and
        any process may call it. The next cycle refuses here what was left, and tells it with `because`.
        Raises `Refused` where there is nothing to go back to, `UntrustedInput` for no reason, `Unavailable`.
        """
        if model not in self._installations:
            raise NotFound(f"this agent keeps {', '.join(self._installations)}; it was opened without {model!r}")
        return go_back(self._installations[model].state.places, model=model, because=because)

    def cycle(self, now: float | None = None, *, force: bool = False) -> CycleResult:
        """One bounded pass. `force`: refresh also when it is not due. Raises `Conflict` when another process runs."""
        with self._busy, held_alone(self.folder / "agent.lock", disk=self._disk, what=str(self.folder)):
            return self._pass(self._clock() if now is None else now, force=force)

    def import_bundle(self, path: str | Path, now: float | None = None) -> CycleResult:
        """Passes in which everything comes from a bundle, with the same checks; nothing is told meanwhile.

        Models that it does not hold stay as they are. Raises `UntrustedInput` for a file that is no bundle, holds none
        of this agent's models or is too old; `Conflict` when another process runs.
        """
        bundle = Bundle(Path(path))
        try:
            with self._busy, held_alone(self.folder / "agent.lock", what=str(self.folder), disk=self._disk):
                now = self._clock() if now is None else now
                models = tuple(model for model in self.settings.models if model in bundle.models)
                if not models:
                    held = ", ".join(sorted(bundle.models)) or "no model"
                    raise UntrustedInput(f"{path} holds {held}; this agent keeps {', '.join(self.settings.models)}")
                as_of = bundle.as_of(self._trust.trusted_time(now))
                with self._trust.importing(models, as_of=as_of), self._network.through(bundle):
                    for _ in models[1:]:  # one of a set may wait for another, which is looked at after it
                        self._pass(now, force=True)
                    return self._pass(now, force=True)
        finally:
            bundle.close()

    def run(self, tell: Callable[[CycleResult], None] | None = None) -> None:
        """Cycle until `stop` is called; `tell` hears of every cycle. Raises `Conflict` when another process runs."""
        with self._busy, held_alone(self.folder / "agent.lock", disk=self._disk, what=str(self.folder)):
            while not self._stop.is_set():
                result = self._pass(self._clock(), force=False)
                if tell is not None:
                    tell(result)
                self._stop.wait(max(_EARLIEST_S, result.next_s))

    def stop(self) -> None:
        """End `run` soon; called from another thread."""
        self._stop.set()

    def status(self) -> dict[str, Any]:
        """What sessions of each model open now, what was decided and why, what it waits for. Reads the folder only."""
        return read_status(self.folder, disk=self._disk)

    def close(self) -> None:
        """Stop, and let go of connections. A probe server that was brought is its owner's."""
        self.stop()
        with self._shadows_guard:
            shadows, self._shadows = self._shadows, {}
        for each in shadows.values():
            each.close()
        with self._busy:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- one pass ---

    def _pass(self, now: float, *, force: bool) -> CycleResult:
        self._now.begin(now)
        refreshed = False
        try:
            for each in self._installations.values():
                each.state.load(now=self._now())
            self._end_set()
            self._look_at_runs()
            for each in self._installations.values():
                each.look_at_sessions()
                each.check_active()
                each.leave_by_itself()
            self._look_for_changes()
            self._status_file.begin(self._current_status)
            if force or self._refreshing.is_due(now):
                refreshed = self._refreshing.attempt(now)
            if not self._network.offline:
                self._reporting.enrol_first()
            for model, each in self._installations.items():
                self._advance(model, each, now=now)
                self._look_for_changes()
            for model, each in self._installations.items():
                if each.is_overtaken:  # by what a model of its set did after its turn
                    self._advance(model, each, now=now)
                    self._look_for_changes()
            for each in self._installations.values():
                each.check_again()
                each.write_down()
            self._look_at_runs()
            if not self._network.offline:
                self._reporting.flush()
                self._reporting.report_when_due()
            self._housekeeping.tidy()
            self._housekeeping.sweep()
            self._storing.worked()
        except OSError as error:  # a full disk, a folder that was taken away: nothing is half-written
            problem = f"the folder {self.folder} cannot be used: {reason_of(error)}"
            self._storing.failed(now, problem, cap_s=self._refreshing.period_s)
        self._trust.rest()
        if not any(each.state.journal.state in PREPARING for each in self._installations.values()):
            rest()
        problems = self._problems()
        self._status = self._current_status(problems)
        self._status_file.write(self._status)
        return CycleResult(self._next_s(), refreshed, self._status["models"], tuple(problems))

    def _look_at_runs(self) -> None:
        self._runs.keeps_only(self._installations)
        for each in self._installations.values():
            self._runs.look(each.state)
        self._runs.save()

    def _look_for_changes(self) -> None:
        self._runs.save()
        self._changes.look(each.state for each in self._installations.values())

    def _tell_progress(self, progress: DownloadProgress) -> None:
        self._status_file.write(self._current_status(self._problems()))
        if self._progress is None:
            return
        try:
            self._progress(progress)
        except Exception:
            log.exception("the hook progress failed; the download goes on")

    def _end_set(self) -> None:
        # All that are in the record follow it when they are loaded; a model that is no longer kept holds nobody up.
        record = sets.record_place(self.folder / "models" / self.settings.models[0])
        if self._disk.size(record) is not None:
            sets.remove_record(record, disk=self._disk)

    def _advance(self, model: str, each: Installation, *, now: float) -> None:
        backoff = self._installing[model]
        prepare = self._network.knows(model) and (self._network.offline or not backoff.waiting(now))
        try:
            each.advance(prepare=prepare, refresh=self._refreshing.refresh, flush=self._reporting.flush)
            self._release_keys.ensure_kept(model, each.state.pointer.active)
        except Unfinished as error:
            backoff.worked()
            self._put_off(backoff, error)
        except (Unavailable, UntrustedInput, Refused) as error:
            self._put_off(backoff, error)
        else:
            if prepare:
                backoff.worked()

    def _put_off(self, backoff: Backoff, error: WhimbrelError) -> None:
        backoff.failed(self._now(), str(error), cap_s=self._refreshing.period_s, at_least_s=after_s_of(error))

    def _budget_bytes(self) -> int | None:
        candidates = {model: each.state.journal.candidate for model, each in self._installations.items()}
        budget = day_budget_bytes(self._trust.policies, candidates, own_mib=self.settings.metered_mib_a_day)
        if budget is None or self._network.offline or self._situation().unmetered:
            return None
        return budget

    def _least_refresh_s(self) -> float:
        """Seconds between two refreshes at least: the device's own settings, which no policy goes below."""
        metered_s = self.settings.metered_refresh_min_s
        metered = metered_s > self.settings.refresh_min_s and self._situation().unmetered is False
        return metered_s if metered else self.settings.refresh_min_s

    def _next_s(self) -> float:
        now = self._now()
        due = [self._refreshing.next_at, *self._reporting.due()]
        for model, each in self._installations.items():
            if self._installing[model].problem:
                due.append(self._installing[model].until)
            elif each.again_s is not None:
                due.append(now + each.again_s)
            elif each.state.journal.state is State.ON_TRIAL:
                due.append(now + limits.TRIAL_LOOK_S)
            elif each.is_held_in_vain or (each.is_behind and not each.waits_for):
                due.append(now)  # the decision changed in the middle of a pass
        return max(0.0, min(due) - now, self._storing.until - now)

    # --- its status ---

    def _problems(self) -> list[str]:
        problems = [self._storing.problem, self._refreshing.problem, *self._reporting.problems]
        problems += [backoff.problem for backoff in self._installing.values()]
        problems += list(self._trust.problems.values())
        return [problem for problem in dict.fromkeys(problems) if problem]

    def _current_status(self, problems: Sequence[str] = ()) -> dict[str, Any]:
        return {
            "device_id": self.settings.device_id,
            "public_key": self._api.public_key,
            "labels": self._labels,
            "process": os.getpid(),
            "last_refresh": self._trust.memory.refreshed_at or None,
            "stale_s": round(self._trust.staleness_s(self._now())),
            "last_error": problems[0] if problems else None,
            "windows_waiting": self._spool.waiting,
            "patches": can_patch(),
            "not_measured": self._not_measured,
            "models": {
                model: model_status(
                    each,
                    policy=self._trust.policies.get(model),
                    trouble=self._installing[model].problem,
                    problem=self._trust.problems.get(model),
                    progress=self._download.meter.latest(model),
                )
                for model, each in self._installations.items()
            },
        }
