"""Blocks, removals and labels of operators: what each does, what stays, and who is told."""

import pytest

from support.values import T0, Town, announce, devices_in, reports, rollout, town, window
from whimbrel import limits
from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.devices.block import block_device, unblock_device
from whimbrel.flows.devices.enrol import admit_enrolment
from whimbrel.flows.devices.label import label_device
from whimbrel.flows.devices.records import DeviceFilter
from whimbrel.flows.devices.remove import remove_device
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.judge_silence import judge_silence
from whimbrel.model.selector_text import read_selector

TREATED, OTHER = devices_in(0, 50_000, 2)
ALL = {"because": "why", "actor": "ana"}


def take(here: Town, *records: object, now: float = T0 + 400) -> object:
    return ingest(here.registry, here.fleet, records, now=now, devices=here.stores.inventory)


def block(here: Town, device: str, *, now: float) -> None:
    block_device(here.stores.inventory, here.registry, device, unended=["r1"], now=now, **ALL)


def unblock(here: Town, device: str, *, now: float) -> None:
    unblock_device(here.stores.inventory, here.registry, device, now=now, **ALL)


def remove(here: Town, device: str, *, now: float) -> int:
    return remove_device(here.stores.inventory, here.registry, device, unended=["r1"], now=now, **ALL)


def label(here: Town, device: str, *without: str, **labels: str) -> dict[str, str]:
    inventory = here.stores.inventory
    done = label_device(inventory, here.registry, device, labels=labels, without=without, now=T0, **ALL)
    return done.operator_labels


def reported(here: Town) -> int:
    return here.fleet.counts("r1")[0].reported_t


# --- removed ---


def test_a_removed_device_leaves_the_cohorts_and_counts_no_more() -> None:
    with town(running=rollout()) as here:
        here.enrol(TREATED, OTHER)
        take(here, reports(TREATED, window()), reports(OTHER, window()))
        before = here.cells()
        assert (reported(here), remove(here, TREATED, now=T0 + 500)) == (2, 1)
        assert reported(here) == 1
        take(here, reports(TREATED, window(2, crashed=1), at=T0 + 501), announce(TREATED, "failed", at=T0 + 502))
        assert reported(here) == 1
        assert here.cells() == before  # the sums stay as they were
        assert here.fleet.inventory("wake") == {2: 1}
        with pytest.raises(NotFound, match="no device"):
            here.stores.inventory.device(TREATED)


def test_a_message_that_waited_while_its_device_was_removed_counts_nowhere() -> None:
    with town(running=rollout()) as here:
        here.enrol(TREATED)
        waiting = reports(TREATED, window(), at=T0 + 400)
        remove(here, TREATED, now=T0 + 500)
        take(here, waiting)
        admit_enrolment(here.stores.inventory, TREATED, now=T0 + 600)
        here.enrol(TREATED)
        take(here, waiting)
        assert here.cells() == []


def test_a_removed_device_is_not_missed() -> None:
    with town(running=rollout()) as here:
        here.enrol(TREATED)
        take(here, announce(TREATED, "activating"))
        remove(here, TREATED, now=T0 + 20)
        assert judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 10_000) == 0


def test_a_removed_id_enrols_again_as_a_new_device_and_no_window_counts_twice() -> None:
    with town(running=rollout()) as here:
        here.enrol(TREATED)
        take(here, reports(TREATED, window()))
        remove(here, TREATED, now=T0 + 500)
        admit_enrolment(here.stores.inventory, TREATED, now=T0 + 600)
        here.enrol(TREATED)
        assert here.stores.inventory.device(TREATED).operator_labels == {}
        take(here, reports(TREATED, window(), at=T0 + 601))  # counted before: its answer was lost
        assert 0 not in here.fleet.counts("r1")
        take(here, reports(TREATED, window(2), at=T0 + 700))
        assert reported(here) == 1


def test_places_in_what_has_ended_stay() -> None:
    with town(running=rollout()) as here:
        here.enrol(TREATED)
        take(here, reports(TREATED, window()))
        remove_device(here.stores.inventory, here.registry, TREATED, unended=[], now=T0 + 500, **ALL)
        assert reported(here) == 1


# --- blocked ---


def test_what_a_blocked_device_sends_counts_nowhere_and_what_was_acknowledged_does() -> None:
    with town(running=rollout()) as here:
        here.enrol(TREATED)
        before, after = reports(TREATED, window(1), at=T0 + 400), reports(TREATED, window(2), at=T0 + 501)
        block(here, TREATED, now=T0 + 500)
        take(here, before, after)
        assert sum(cell.sessions for cell in here.cells()) == 1
        unblock(here, TREATED, now=T0 + 600)
        take(here, reports(TREATED, window(2), at=T0 + 601))
        assert sum(cell.sessions for cell in here.cells()) == 2


def test_the_silence_of_a_blocked_device_says_nothing() -> None:
    with town(running=rollout()) as here:
        here.enrol(TREATED, OTHER)
        take(here, announce(TREATED, "activating"), announce(OTHER, "activating"))
        block(here, TREATED, now=T0 + 20)
        assert judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 10_000) == 1
        assert here.fleet.counts("r1")[0].activated_t == 2


def test_a_blocked_device_is_neither_enrolled_nor_removed_nor_blocked_again() -> None:
    with town() as here:
        here.enrol("dev-1")
        block(here, "dev-1", now=T0)
        with pytest.raises(Refused, match="may not enrol until it is unblocked"):
            admit_enrolment(here.stores.inventory, "dev-1", now=T0)
        with pytest.raises(Refused, match="whimbrel device unblock dev-1"):
            remove(here, "dev-1", now=T0)
        with pytest.raises(Conflict, match="blocked already"):
            block(here, "dev-1", now=T0)
        unblock(here, "dev-1", now=T0 + 1)
        with pytest.raises(Conflict, match="nothing to undo"):
            unblock(here, "dev-1", now=T0 + 1)
        admit_enrolment(here.stores.inventory, "dev-1", now=T0)
        assert [entry.action for entry in here.registry.audit_log(device="dev-1")] == ["unblock_device", "block_device"]


# --- labels of operators ---


def test_labels_of_operators_are_kept_apart_and_audited() -> None:
    with town() as here:
        here.enrol("dev-1", labels={"region": "NZ"})
        assert label(here, "dev-1", site="lab", owner="ana") == {"site": "lab", "owner": "ana"}
        assert label(here, "dev-1", "owner", site="roof") == {"site": "roof"}
        device = here.stores.inventory.device("dev-1")
        assert (device.labels, device.operator_labels) == ({"region": "NZ"}, {"site": "roof"})
        newest, first = here.registry.audit_log(device="dev-1")
        assert newest.evidence == {"before": {"owner": "ana", "site": "lab"}, "after": {"site": "roof"}}
        assert first.actor == "ana"


def test_a_label_that_the_device_tells_is_refused_and_its_own_word_holds_later() -> None:
    with town() as here:
        here.enrol("dev-1", labels={"region": "NZ"})
        with pytest.raises(Conflict, match="tells region=NZ itself"):
            label(here, "dev-1", region="FR")
        label(here, "dev-1", site="lab")
        here.enrol("dev-1", labels={"site": "own"})
        site = [read_selector(f"site={word}") for word in ("own", "lab")]
        looked = [here.stores.inventory.look(DeviceFilter(selector=each), after="", limit=9).devices for each in site]
        assert [len(each) for each in looked] == [1, 0]


def test_labels_have_a_bound_and_what_is_not_there_is_not_taken_away() -> None:
    with town() as here:
        here.enrol("dev-1")
        with pytest.raises(NotFound, match="has no label 'site' of an operator; it has: none"):
            label(here, "dev-1", "site")
        with pytest.raises(Refused, match=f"at most {limits.LABELS}"):
            label(here, "dev-1", **{f"k{n}": "v" for n in range(limits.LABELS + 1)})


# --- what devices wait for ---


def test_what_a_device_waits_for_is_noted_until_it_waits_no_more() -> None:
    with town() as here:
        here.enrol("dev-1")
        inventory = here.stores.inventory
        take(here, reports("dev-1", window(1, cohorts=()), waiting={"wake": "a charger", "other": "x"}))
        (row,) = inventory.models_of(["dev-1"])  # of a model that it follows
        assert (row.model, row.waits_for, row.waits_told_at) == ("wake", "a charger", T0 + 400)
        take(here, reports("dev-1", window(2, cohorts=()), at=T0 + 700))
        assert inventory.models_of(["dev-1"])[0].waits_for == "a charger"
        take(here, reports("dev-1", window(3, cohorts=()), at=T0 + 900, waiting={"wake": ""}))
        assert inventory.models_of(["dev-1"])[0].waits_for == ""


def test_since_when_a_version_runs_is_kept_while_it_does() -> None:
    with town() as here:
        here.enrol("dev-1")
        for number, serial in enumerate((1, 1, 2, 2), start=1):
            take(here, reports("dev-1", window(number, serial=serial, cohorts=()), at=T0 + number))
        (row,) = here.stores.inventory.models_of(["dev-1"])
        assert (row.serial, row.since, row.at) == (2, T0 + 3, T0 + 4)
