"""Signed roles are warned of before they expire: each step once, and what was signed anew is told as well."""

import msgspec
import pytest

from support.values import T0, town
from whimbrel.flows.publishing.warn_of_expiry import warn_of_expiry
from whimbrel.flows.records import RoleExpiry
from whimbrel.stores.transaction import Stores

DAY = 86400.0
END = T0 + 100 * DAY  # 2026-04-11


class Signed(msgspec.Struct):
    """The newest version of each role, and when it expires."""

    versions: dict[str, int]
    ends: dict[str, float]

    def newest(self) -> dict[str, int]:
        return self.versions

    def expires(self, role: str) -> float:
        return self.ends[role]


def look(stores: Stores, signed: Signed, *, now: float) -> list[tuple[str, str]]:
    """What a look writes, newest last."""
    before = len(stores.registry.audit_log())
    warn_of_expiry(stores.registry, signed, stores.role_expiries, now=now)
    fresh = stores.registry.audit_log()[: len(stores.registry.audit_log()) - before]
    return [(entry.action, entry.because) for entry in reversed(fresh)]


def test_each_step_before_the_end_is_told_once() -> None:
    signed = Signed({"targets": 3}, {"targets": END})
    told = []
    with town() as here:
        for left in (61, 60, 59, 31, 30, 29, 14, 13, 7, 3, 2, 1, 0.5, 0, -5):
            told += [(left, *each) for each in look(here.stores, signed, now=END - left * DAY)]
    how = "sign it anew with: whimbrel keys renew targets"
    assert told == [
        (60, "notice_expiry", f"targets expires on 2026-04-11, in 60 days; {how}"),
        (30, "notice_expiry", f"targets expires on 2026-04-11, in 30 days; {how}"),
        (14, "notice_expiry", f"targets expires on 2026-04-11, in 14 days; {how}"),
        (7, "notice_expiry", f"targets expires on 2026-04-11, in 7 days; {how}"),
        (3, "notice_expiry", f"targets expires on 2026-04-11, in 3 days; {how}"),
        (1, "notice_expiry", f"targets expires on 2026-04-11, in 1 day; {how}"),
        (0, "notice_expiry", f"targets expired on 2026-04-11: devices take no news under it; {how}"),
    ]


def test_after_a_long_absence_only_the_nearest_step_is_told() -> None:
    signed = Signed({"targets": 3}, {"targets": END})
    with town() as here:
        assert [action for action, _ in look(here.stores, signed, now=END - 5 * DAY)] == ["notice_expiry"]
        assert here.stores.role_expiries.all() == [RoleExpiry(role="targets", version=3, expires=END, warned_s=7 * DAY)]
        (entry,) = here.registry.audit_log()
        assert (entry.actor, entry.at) == ("server", END - 5 * DAY)
        assert entry.evidence == {"role": "targets", "version": 3, "expires": END, "left_s": 5 * DAY}


def test_a_role_that_has_time_is_noted_and_not_told() -> None:
    signed = Signed({"targets": 3}, {"targets": END})
    with town() as here:
        assert look(here.stores, signed, now=T0) == []
        assert here.stores.role_expiries.all() == [RoleExpiry(role="targets", version=3, expires=END)]


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "policy-wake"])
def test_an_online_role_is_not_noted(role: str) -> None:
    with town() as here:
        assert look(here.stores, Signed({role: 1}, {role: T0}), now=T0 + 1) == []
        assert here.stores.role_expiries.all() == []


def test_what_was_warned_of_and_signed_anew_is_told_and_begins_anew() -> None:
    with town() as here:
        look(here.stores, Signed({"targets": 3}, {"targets": END}), now=END - DAY)
        renewed = Signed({"targets": 4}, {"targets": END + 365 * DAY})
        assert look(here.stores, renewed, now=END - DAY / 2) == [
            ("renew_role", "targets was signed anew, and is valid until 2027-04-11")
        ]
        assert here.stores.role_expiries.all() == [
            RoleExpiry(role="targets", version=4, expires=END + 365 * DAY, warned_s=-1.0)
        ]
        assert look(here.stores, renewed, now=END) == []
        assert len(look(here.stores, renewed, now=END + 340 * DAY)) == 1


def test_what_was_never_warned_of_is_signed_anew_without_a_word() -> None:
    with town() as here:
        look(here.stores, Signed({"targets": 3}, {"targets": END}), now=T0)
        assert look(here.stores, Signed({"targets": 4}, {"targets": END + DAY}), now=T0) == []
        assert [each.version for each in here.stores.role_expiries.all()] == [4]


def test_a_new_version_that_is_near_its_end_is_told_of_too() -> None:
    with town() as here:
        look(here.stores, Signed({"targets": 3}, {"targets": END}), now=END - DAY)
        short = Signed({"targets": 4}, {"targets": END + 2 * DAY})
        assert [action for action, _ in look(here.stores, short, now=END)] == ["renew_role", "notice_expiry"]


def test_each_role_has_its_own_steps() -> None:
    signed = Signed({"targets": 3, "root": 1, "publisher-wake": 2}, {"targets": END, "root": T0, "publisher-wake": END})
    with town() as here:
        told = look(here.stores, signed, now=END - 30 * DAY)
        assert sorted(because.partition(" ")[0] for _, because in told) == ["publisher-wake", "root", "targets"]
