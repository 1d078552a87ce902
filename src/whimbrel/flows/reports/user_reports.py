"""Tickets of users come in, and count in the arm of the device that they name. (docs/reference/plan.md, user reports)

1. A ticket is kept once by its number. What it says later is not looked at: the first one counts.
2. The leader counts tickets in the window that is open then, as it does the reports of devices: windows that are over
   never change. At most one a device and window: a user who writes three times has one trouble.
3. A ticket counts where its device was counted when the trouble was; one from before its activation counts nowhere.
4. A ticket that names only a version counts against the version: it may stop a rollout, and never takes it back by
   itself, since nobody knows which devices could have written.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from whimbrel import limits
from whimbrel.errors import NotFound, Refused, WhimbrelError
from whimbrel.flows.audit import audit
from whimbrel.flows.device_records import UserReportRecord
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.proven import unproven_name
from whimbrel.flows.versions import find_version
from whimbrel.health.report import Role
from whimbrel.health.tally import Cell, age_bucket
from whimbrel.health.user_report import Fate, UserReport, UserReports
from whimbrel.plan.plan import VersionName


class UserReportsPort(Protocol):
    """Tickets, within one transaction."""

    def is_filed(self, ticket: str) -> bool: ...
    def count(self) -> int: ...
    def file(self, record: UserReportRecord) -> None: ...
    def heard(self, model: str, *, at: float) -> None: ...
    def waiting(self, *, limit: int) -> list[UserReportRecord]: ...
    def counted_since(self, device_id: str, *, model: str, since: float) -> bool: ...
    def decide(self, ticket: str, *, fate: Fate, at: float) -> None: ...


class FilingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of some tickets. `refused`: a sentence by ticket; the others were taken all the same."""

    new: int
    known: int
    refused: dict[str, str]

    def plus(self, other: "FilingResult") -> "FilingResult":
        """Both together."""
        return FilingResult(
            new=self.new + other.new, known=self.known + other.known, refused=self.refused | other.refused
        )


def file_batch(
    registry: RegistryPort,
    fleet: FleetPort,
    tickets: UserReportsPort,
    batch: UserReports,
    *,
    actor: str,
    now: float,
) -> FilingResult:
    """Keep what a help desk hands on. A model that the batch itself names is heard of, also without any ticket.

    Raises `NotFound` where there is no such model.
    """
    filed = file_reports(registry, fleet, tickets, batch.reports, now=now)
    if batch.model is not None:
        tickets.heard(registry.model(batch.model).name, at=now)
    if filed.new:  # a help desk that has none says so every few minutes
        models = sorted({report.model for report in batch.reports})
        what = f"{filed.new:,} ticket{'' if filed.new == 1 else 's'} of users"
        evidence = {"new": filed.new, "known": filed.known, "refused": len(filed.refused), "models": models}
        audit(registry, actor=actor, action="file_tickets", because=what, now=now, evidence=evidence)
    return filed


def file_reports(
    registry: RegistryPort, fleet: FleetPort, tickets: UserReportsPort, reports: Sequence[UserReport], *, now: float
) -> FilingResult:
    """Keep tickets until they are counted. A ticket that cannot be understood refuses itself, not the others."""
    new = known = 0
    refused: dict[str, str] = {}
    room = limits.USER_REPORTS - tickets.count()
    for report in reports:
        if tickets.is_filed(report.ticket):
            known += 1
            continue
        try:
            record = _record(registry, fleet, report, now=now)
            if new >= room:
                raise Refused(f"{limits.USER_REPORTS} tickets are kept already, which is all there is room for")
        except WhimbrelError as error:
            refused[report.ticket] = str(error)
            continue
        tickets.file(record)
        tickets.heard(report.model, at=now)
        new += 1
    return FilingResult(new=new, known=known, refused=refused)


def _record(registry: RegistryPort, fleet: FleetPort, report: UserReport, *, now: float) -> UserReportRecord:
    registry.model(report.model)
    serial = None
    if report.version is not None:
        name = VersionName(report.model, report.version, prefix=False)
        serial = find_version(registry.versions(report.model), name).serial
    elif report.device_id is not None and not fleet.is_enrolled(report.device_id):
        raise NotFound(f"no device {report.device_id!r} is enrolled; name a version where the device is not known")
    return UserReportRecord(
        ticket=report.ticket,
        model=report.model,
        device_id=report.device_id,
        serial=serial,
        at=min(now, report.at if report.at is not None else now),
        text=report.text,
    )


def count_reports(registry: RegistryPort, fleet: FleetPort, tickets: UserReportsPort, *, now: float) -> int:
    """Count the tickets that wait, in the windows that are open now; returns how many were looked at."""
    waiting = tickets.waiting(limit=limits.USER_REPORTS_A_BATCH)
    if not waiting:
        return 0
    live = registry.rollouts(live=True)
    for record in waiting:
        fate: Fate = "nowhere"
        for rollout in (rollout for rollout in live if rollout.model == record.model):
            cells = _cells(fleet, rollout, record, now=now)
            if not any(cells.values()):
                continue
            opened_at = rollout.created_at + rollout.window_at(now) * rollout.window_s
            if record.device_id and tickets.counted_since(record.device_id, model=record.model, since=opened_at):
                fate = "again" if fate == "nowhere" else fate
                continue
            for name, told in cells.items():
                fleet.tally(name, told)
            fate = "counted"
        tickets.decide(record.ticket, fate=fate, at=now)
    return len(waiting)


def _cells(fleet: FleetPort, rollout: RolloutRecord, record: UserReportRecord, *, now: float) -> dict[str, list[Cell]]:
    """The cells of a ticket, by the name that they are tallied under: a ticket counts as its device does."""
    window = rollout.window_at(now)
    if record.device_id is None:
        if record.at < rollout.created_at or record.serial not in {rollout.target, rollout.baseline}:
            return {}
        role: Role = "treated" if record.serial == rollout.target else "control"
        return {rollout.id: [Cell(stage=rollout.stage, window=window, role=role, version_reports=1)]}
    cells: dict[str, list[Cell]] = {rollout.id: [], unproven_name(rollout.id): []}
    for each in fleet.participations([rollout.id], [record.device_id]):
        if each.activated_at is not None and each.activated_at <= record.at:
            cell = Cell(
                stage=each.stage,
                window=window,
                role=each.role,
                hardware_class=each.hardware_class,
                slices=each.slices,
                age_bucket=age_bucket(record.at - each.activated_at, hour_s=rollout.hour_s),
                user_reports=1,
            )
            cells[rollout.id if each.proven else unproven_name(rollout.id)].append(cell)
    return cells
