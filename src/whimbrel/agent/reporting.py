"""What does a device report, and when? Announcements before it acts, windows as the policy asks; one batch in flight.

1. What cannot be sent now is sent later, in its order; what the server will never take is dropped, and this is reported
   as a problem in the status.
2. Only the labels that policies ask for leave the device. Every batch tells which models the device follows, so that
   a changed set is known with the next one.
3. What holds a model up is told with the next batch after it changed, without what the device measured: a policy asks
   for a battery at 50%, and the server learns that it waits for that. What a failed try met stays in the status. So is
   told why a version stays that the device would leave.
"""

import random
from collections.abc import Callable, Mapping

import msgspec

from whimbrel import limits
from whimbrel.agent.backoff import Backoff, after_s_of
from whimbrel.agent.bundle import Switched
from whimbrel.agent.device_api import BadBody, DeviceApi, TooLarge
from whimbrel.agent.installation import Installation
from whimbrel.agent.labels import labels_to_tell, public_labels
from whimbrel.agent.model_state import ModelState
from whimbrel.agent.pace import Pace
from whimbrel.agent.run_history import RunHistory
from whimbrel.agent.spool import Spool
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.conditions import without_measurements
from whimbrel.errors import WhimbrelError, reason_of
from whimbrel.health.report import Announcement, Batch, Build, Window

_TRY_FAILED = "another try: the last one failed, as the device's own status says"
_DEFAULT_PERIOD_S = 300.0  # of reports, until a policy says otherwise


class Reporting:
    """The device's announcements and reports: what waits is sent, and tried again later where that fails."""

    def __init__(
        self,
        api: DeviceApi,
        spool: Spool,
        *,
        trust: TrustClient,
        installations: Mapping[str, Installation],
        labels: Mapping[str, str],
        now: Callable[[], float],
        network: Switched,
        chance: random.Random,
        installing: Mapping[str, Backoff],
        runs: RunHistory,
    ) -> None:
        self._runs = runs
        self._installing = installing
        self._waiting_told: dict[str, str] = {}  # by this process: each process says all of it once
        self._builds_told: dict[str, Build] = {}
        self._api, self._spool, self._trust = api, spool, trust
        self._installations, self._labels = installations, labels
        self._now, self._network, self._chance = now, network, chance
        self._announcing, self._sending = Backoff(chance), Backoff(chance)
        self._next_report: float | None = None
        self._pace = Pace()

    @property
    def problems(self) -> list[str]:
        """What could not be sent."""
        return [self._announcing.problem, self._sending.problem]

    def due(self) -> list[float]:
        """When something must be sent."""
        times = []
        if self._next_report is not None and self._api.known:
            times.append(self._next_report)
            if self._spool.waiting:
                times.append(self._sending.until)
        if any(each.state.journal.outbox for each in self._installations.values()):
            times.append(self._announcing.until)
        return times

    def flush(self) -> None:
        """Announce what waits in the outboxes; best effort."""
        if self._network.offline:
            return
        now = self._now()
        for each in self._installations.values():
            while each.state.journal.outbox:
                if self._api.known:
                    if self._announcing.waiting(now):
                        return
                    try:
                        self._api.announce(self._completed(each.state))
                        self._announcing.worked()
                    except BadBody as error:
                        self._announcing.problem = reason_of(error)
                    except (WhimbrelError, OSError) as error:
                        self._delay(self._announcing, error)
                        return
                each.state.announced()

    def _completed(self, state: ModelState) -> Announcement:
        policy = self._trust.policies.get(state.model)
        hardware_class, slices = policy.reported_labels(self._public_labels()) if policy else ("", {})
        return msgspec.structs.replace(state.journal.outbox[0], hardware_class=hardware_class, slices=slices)

    def _public_labels(self) -> Mapping[str, str]:
        return public_labels(self._labels, self._trust.policies.values())

    def enrol_first(self) -> None:
        """Enrol a device that waits for its cohort key, before it decides; later again where that fails."""
        if self._api.awaits_cohort_key and self._trust.policies and not self._sending.waiting(self._now()):
            try:
                self._api.enrol()
            except (WhimbrelError, OSError) as error:
                self._delay(self._sending, error)

    def report_when_due(self) -> None:
        """Close the windows whose time it is, and send what waits."""
        now, period = self._now(), self._report_s()
        if not self._api.known or not self._trust.policies:
            return
        if self._next_report is None:
            self._next_report = now + self._chance.uniform(0, period)
        if now >= self._next_report or self._next_report > now + 2 * period:
            self._next_report = max(now, min(self._next_report, now) + period)
            self._pace.spend(now)
            for model in self._trust.policies:
                self._installations[model].results.close_window()
        if not self._sending.waiting(now):
            try:
                self._api.enrol()  # a device is counted from its first pass on, also where it has nothing to report
            except (WhimbrelError, OSError) as error:
                self._delay(self._sending, error)
        if not self._sending.waiting(now) and not self._announcing.waiting(now):  # one silence a pass is enough
            self._send()

    def _send(self) -> None:
        size, roomy = limits.BATCH_WINDOWS, True  # a way that takes small bodies only has none for the history
        for _ in range(limits.BATCHES_A_PASS):
            epoch, windows = self._spool.batch(windows_max=size)
            if not windows:
                return
            waiting, builds = self._waiting_to_tell(), self._builds_to_tell()
            part = self._runs.part() if roomy else None
            batch = Batch(
                epoch=epoch,
                windows=windows,
                labels=labels_to_tell(self._labels, self._trust.policies.values()),
                models=tuple(self._installations),
                waiting=waiting,
                builds=builds,
                runs=self._runs_now(windows),
                run_history=part,
            )
            try:
                self._api.report(batch)
                self._sending.worked()
                self._waiting_told |= waiting
                self._builds_told |= builds
            except BadBody as error:
                self._sending.problem = reason_of(error)
                if error.status == 413 and (size > 1 or part is not None):
                    size, roomy = _smaller(size, windows), False
                    continue
            except TooLarge as error:
                self._delay(self._sending, error)
                if size == 1 and part is None:
                    return
                size, roomy = _smaller(size, windows), False
                continue
            except (WhimbrelError, OSError) as error:
                self._delay(self._sending, error)
                return
            self._spool.acknowledged(epoch, windows)
            if part is not None:
                self._runs.acknowledged(part)

    def _waiting_to_tell(self) -> dict[str, str]:
        """What holds each model up ("": nothing), where that is not what was told last."""
        waiting = {model: self._waits_for(model, each) for model, each in self._installations.items()}
        return {model: because for model, because in waiting.items() if self._waiting_told.get(model) != because}

    def _builds_to_tell(self) -> dict[str, Build]:
        """The build that each model runs, where that is not what was told last."""
        builds = {model: each.preparation.build() for model, each in self._installations.items()}
        return {model: build for model, build in builds.items() if build and self._builds_told.get(model) != build}

    def _runs_now(self, windows: tuple[Window, ...]) -> dict[str, int | None]:
        """What runs of each model whose newest window is of another version: it was closed when the version changed."""
        told = {window.model: window.serial for window in windows}
        runs = {model: each.state.pointer.serial for model, each in self._installations.items()}
        return {model: serial for model, serial in runs.items() if model in told and told[model] != serial}

    def _waits_for(self, model: str, each: Installation) -> str:
        waits = without_measurements(each.waits_for) or (_TRY_FAILED if self._installing[model].problem else "")
        because = "; ".join(words for words in (each.leaving.kept_because, waits) if words)
        printable = "".join(each if each.isprintable() else " " for each in because)
        return " ".join(printable.split())[: limits.WAITING_CHARS]

    def _delay(self, backoff: Backoff, error: Exception) -> None:
        backoff.failed(self._now(), reason_of(error), cap_s=self._report_s(), at_least_s=after_s_of(error))

    def _report_s(self) -> float:
        periods = (policy.report_s for policy in self._trust.policies.values())
        return max(self._pace.least_s, min(limits.PERIOD_MOST_S, min(periods, default=_DEFAULT_PERIOD_S)))


def _smaller(size: int, windows: tuple[Window, ...]) -> int:
    return max(1, min(size, len(windows)) // 2)
