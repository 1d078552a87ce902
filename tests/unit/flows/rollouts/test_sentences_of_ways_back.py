"""How a model goes back, what is lifted, and which versions go together, with each whole sentence."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from support.people_of_flows import by_person, refusal, start
from support.values import (
    T0,
    Town,
    line,
    model,
    plan,
    quarantined,
    release,
    rollout,
    selector,
    town,
    version,
)
from whimbrel import limits
from whimbrel.errors import Conflict, Refused
from whimbrel.flows.rollouts.lift_quarantine import lift_quarantine
from whimbrel.flows.rollouts.roll_back_model import WayBack, find_way_back, roll_back_completed, roll_back_model
from whimbrel.flows.rollouts.rollout_set import find_members
from whimbrel.flows.rollouts.selected_devices import refuse_unknown
from whimbrel.flows.rollouts.way_back_words import way_back_sentences
from whimbrel.model.documents import encode
from whimbrel.model.release import Requirement
from whimbrel.plan.rollout_states import State

# --- a model goes back ---


def back(here: Town, **more: Any) -> WayBack:
    values = {"lines": lambda _: line(), "because": "it stutters", "actor": "ada", "now": T0 + 9} | more
    return roll_back_model(here.registry, "wake", **values)


def completed(here: Town, *, baseline: int = 3, good: Sequence[int] = (1, 2, 3), **more: Any) -> None:
    """The model's rollout from 2 to 3 was complete."""
    for serial in good:
        here.registry.change_version("wake", serial, good=True)
    here.registry.change_model("wake", baseline=baseline)
    ended = rollout(baseline=2, target=3, state=State.COMPLETED, ended_at=T0, stage=2, shares=(1, 2, 3), **more)
    here.registry.add_rollout(ended, plan_text="")


def named(serial: int) -> str:
    return f"2026.01.01.{serial} ({serial}.0.0)"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"to": 3}, f"{named(3)} is what its devices run"),
        ({"to": 9}, "serial 9 was never published"),
        (
            {"to": 4},
            f"{named(4)} never was the baseline, or was taken back from every device; a rollout brings it to devices",
        ),
        ({"to": 1, "lines": lambda _: line(minimum_serial=2)}, f"{named(1)} is below the line's floor, serial 2"),
        ({"to": 1, "lines": lambda _: line(revoked=(1,))}, f"{named(1)} is revoked by its publisher"),
    ],
)
def test_where_devices_cannot_go_is_said_with_where_they_can(asked: dict[str, Any], sentence: str) -> None:
    with town(versions=4) as here:
        completed(here)
        others = named(2) if "lines" in asked else f"{named(2)}, {named(1)}"
        assert refusal(Refused, back, here, **asked) == (
            f"wake cannot go back: {sentence}. What it can go back to: {others}"
        )


def test_a_model_without_an_earlier_version_says_why_of_each() -> None:
    with town(versions=5) as here:
        completed(here)
        here.registry.quarantine(quarantined(2, because="it crashed"))
        here.registry.change_version("wake", 1, retired=True)
        assert refusal(Refused, back, here, lines=lambda _: line(revoked=(5,))) == (
            f"wake has no earlier version than {named(3)} to go back to ({named(5)} is revoked by its publisher; "
            f"{named(4)} never was the baseline, or was taken back from every device; a rollout brings it to devices; "
            f"{named(2)} was taken back itself (it crashed); {named(1)} is retired). Publish a repaired version and "
            f"roll "
            "it out, or forbid this one: whimbrel version revoke 2026.01.01.3 --model wake"
        )


def test_a_model_that_has_one_version_names_no_other() -> None:
    with town(versions=1) as here:
        assert refusal(Refused, back, here) == (
            f"wake has no earlier version than {named(1)} to go back to. Publish a repaired version and roll it out, "
            f"or "
            "forbid this one: whimbrel version revoke 2026.01.01.1 --model wake"
        )
        here.registry.change_model("wake", baseline=None)
        assert refusal(Refused, back, here) == (
            "wake has no baseline, so there is nothing to take back; a version is brought to devices with: whimbrel "
            "rollout start"
        )


def test_what_decides_over_devices_now_is_ended_first() -> None:
    with town(versions=4) as here:
        completed(here)
        live = rollout(id="r2", baseline=3, target=4, state=State.WAITING_FOR_APPROVAL)
        here.registry.add_rollout(live, plan_text="")
        assert refusal(Refused, back, here) == (
            "rollout r2 of wake is waiting for approval: it compares a new version with the one that is to be left. To "
            "take its new version back: whimbrel rollout rollback r2. To leave the older one too, end it first "
            "(whimbrel rollout abort r2), then repeat this"
        )


def test_who_looked_too_early_is_told_what_it_is_at_now() -> None:
    with town(versions=4) as here:
        completed(here)
        back(here, leaves=3)
        assert refusal(Conflict, back, here, leaves=3) == (
            f"wake is at {named(2)} meanwhile, and not at serial 3; look again, then repeat it"
        )


def test_a_completed_rollout_that_is_no_more_says_what_there_is_instead() -> None:
    with town(versions=4) as here:
        completed(here, baseline=4, good=(1, 2, 3, 4))
        taken = {"lines": lambda _: line(), "because": "", "actor": "ada", "now": T0 + 9}
        assert refusal(Refused, roll_back_completed, here.registry, "r1", **taken) == (
            "rollout r1 is completed, and its version is not the baseline of wake any more; to take back what devices "
            "run now: whimbrel model rollback wake"
        )


def test_the_evidence_of_a_way_back_is_whole() -> None:
    with town(versions=4) as here:
        completed(here)
        back(here, to=1, evidence={"monitor": "errors"})
        entry = here.registry.audit_log()[0]
        assert entry.evidence == {
            "leaves": 3,
            "to": 1,
            "quarantined": [3, 2],
            "devices": "every device",
            "stage": 2,
            "monitor": "errors",
        }
        row = here.registry.rollout("r1")
        assert (row.state, row.because, row.ended_at, row.state_since) == (
            State.ROLLING_BACK,
            "it stutters",
            T0 + 9,
            T0 + 9,
        )
        assert [here.registry.version("wake", serial).good for serial in (1, 2, 3)] == [True, False, False]
    with town(versions=4) as here:
        completed(here)
        back(here, selector=selector(hardware="pi3"))
        entry = here.registry.audit_log()[0]
        assert (entry.action, entry.evidence["devices"]) == ("slice_back", "hardware=pi3")
        assert [here.registry.version("wake", serial).good for serial in (1, 2, 3)] == [True, True, True]


def test_all_sentences_of_a_way_back() -> None:
    with town(versions=4) as here:
        completed(here)
        way = find_way_back(here.registry, "wake", lines=lambda _: line(), to=1)
        assert way_back_sentences(way, devices=1234, refresh_s=30.0) == [
            f"wake goes back from {named(3)} to {named(1)}: 1,234 devices are known to run it",
            "Devices look for news every 30 s, so each one in reach hears of it within 30 s. It goes back at once "
            "where that version is in its other slot, and fetches it otherwise. One out of reach goes back when it "
            "hears of it",
            f"{named(3)} and {named(2)}: refused by every device from now on, until somebody lifts it (whimbrel "
            f"version "
            "unquarantine)",
        ]
        counts = [way_back_sentences(way, devices=count, refresh_s=0.5)[0] for count in (0, 1, 2)]
        assert [each.partition(": ")[2] for each in counts] == [
            "no device is known to run it",
            "1 device is known to run it",
            "2 devices are known to run it",
        ]
        boards = find_way_back(here.registry, "wake", lines=lambda _: line(), selector=selector(hardware="pi3"))
        slices = [
            quarantined(2, selector=selector(os="qnx"), because="no driver"),
            quarantined(2, because="everywhere"),
            quarantined(1, selector=selector(os="other")),
        ]
        said = way_back_sentences(
            boards, devices=2, refresh_s=300, unknown_labels={"os", "hardware"}, quarantines=slices
        )
        assert said == [
            f"wake goes back from {named(3)} to {named(2)}: 2 devices with hardware=pi3 are known (devices do not tell "
            f"the "
            "server their hardware and os; they decide by it all the same, and more may go back)",
            "Devices look for news every 300 s, so each one in reach hears of it within 300 s. It goes back at once "
            "where that version is in its other slot, and fetches it otherwise. One out of reach goes back when it "
            "hears of it",
            f"{named(3)}: refused by devices with hardware=pi3 from now on, until somebody lifts it (whimbrel version "
            "unquarantine)",
            f"{named(2)} was taken back from devices with os=qnx before (no driver): these go to the newest good "
            f"version "
            "that they do not refuse",
        ]


def test_a_way_back_of_a_set_names_each_model() -> None:
    way = WayBack(
        model="wake",
        leaves=version(2),
        to=version(1),
        others=(WayBack(model="decoder", leaves=version(4), to=version(3), passes=(version(5),)),),
    )
    said = way_back_sentences(way, devices=1, refresh_s=30.0)
    assert said[1] == (
        f"decoder goes back with it, from {named(4)} to {named(3)}: their versions go together, and every device "
        f"changes "
        "all of them at once"
    )
    assert said[3].startswith(
        f"wake {named(2)} and decoder {named(4)} and decoder {named(5)}: refused by every device from now on"
    )


# --- a quarantine is lifted ---


def test_what_is_lifted_is_told_with_its_devices_and_reasons() -> None:
    with town() as here:
        for devices, because in ((selector(hardware="pi3"), "slow"), (selector(os="qnx"), "no driver")):
            here.registry.quarantine(quarantined(2, selector=devices, because=because))
        record = here.registry.version("wake", 2)
        here.registry.add_rollout(rollout(), plan_text="")
        lift = {"because": "mended", "actor": "ada", "now": T0 + 5}
        assert refusal(Refused, lift_quarantine, here.registry, record, **lift) == (
            "rollout r1 is live, and took wake 2026.01.01.2 back from hardware=pi3 and os=qnx; a comparison is not "
            "begun anew in its middle. End the rollout first"
        )
        by_person(here, "abort")
        lift_quarantine(here.registry, record, **lift)
        entry = here.registry.audit_log()[0]
        assert (entry.actor, entry.action, entry.because, entry.model) == ("ada", "unquarantine", "mended", "wake")
        assert entry.evidence == {
            "serial": 2,
            "devices": "hardware=pi3 and os=qnx",
            "taken_back": ["slow", "no driver"],
        }
        assert refusal(Refused, lift_quarantine, here.registry, record, **lift) == (
            "wake 2026.01.01.2 is not quarantined: there is nothing to lift"
        )


# --- a selector that names nobody ---


def test_a_selector_of_no_known_device_is_refused_with_what_is_known() -> None:
    with town() as here:
        settings = msgspec.structs.replace(here.registry.model("wake").settings, report_labels=("os",))
        for number, name in enumerate(["linux"] * 3 + ["qnx"]):
            here.enrol(f"d{number}", labels={"os": name}, models=("wake",))

        def refused(**labels: str) -> str:
            return refusal(Refused, refuse_unknown, here.fleet, "wake", selector(**labels), settings=settings)

        end = "Mend the selector, or give --although-unknown for devices that the server does not know"
        assert refused(os="linxu") == (
            f"no device with os=linxu is known of wake: what is known: os is linux (3), qnx (1). {end}"
        )
        assert refused(hardware="pi3") == (
            f"no device with hardware=pi3 is known of wake: no device told any of these labels yet. {end}"
        )
        assert refused(os="linux", site="lab", ring="a") == (
            "no device with os=linux; site=lab; ring=a is known of wake: devices do not tell the server their ring and "
            f"site, so it cannot say which devices these are. {end}"
        )
        refuse_unknown(here.fleet, "wake", selector(os="qnx"), settings=settings)


# --- sets ---


def sets(here: Town, requires: dict[tuple[str, int], Sequence[tuple[str, int]]]) -> None:
    """Models `decoder` and `speaker` with versions 1 and 2 beside `wake`, and what the versions require."""
    for name in ("decoder", "speaker"):
        here.registry.add_model(model(name=name))
    for name in ("wake", "decoder", "speaker"):
        for serial in (1, 2):
            needs = tuple(Requirement(model=m, serial=s) for m, s in requires.get((name, serial), ()))
            document = release(serial, model=name, requires=needs)
            here.registry.add_version(version(serial, model=name), release=encode(document), digests=document.digests)


@pytest.mark.parametrize(
    ("requires", "sentence"),
    [
        (
            {("wake", 2): [("nap", 1)]},
            "wake at serial 2 requires nap at serial 1, and there is no model 'nap'; add and publish it first",
        ),
        (
            {("wake", 2): [("decoder", 9)]},
            "wake at serial 2 requires decoder at serial 9, and decoder has no version with that serial; publish it "
            "first",
        ),
        (
            {("wake", 2): [("decoder", 2), ("speaker", 2)], ("speaker", 2): [("decoder", 1)]},
            "speaker at serial 2 requires decoder at serial 1, and the set of wake 2026.01.01.2 has serial 2 of it; "
            "publish versions that agree",
        ),
        (
            {("wake", 2): [("decoder", 2)], ("speaker", 1): [("decoder", 1)]},
            "speaker at serial 1, which devices run, requires decoder at serial 1; publish a version of speaker that "
            "goes with serial 2 of decoder, and roll out that one: it takes what it requires along",
        ),
    ],
)
def test_a_set_that_contradicts_itself_says_which_version_does(
    requires: dict[tuple[str, int], Sequence[tuple[str, int]]], sentence: str
) -> None:
    with town(versions=0) as here:
        sets(here, requires)
        assert refusal(Refused, find_members, here.registry, here.registry.version("wake", 2)) == sentence
        if "speaker at serial 1" not in sentence:
            assert refusal(Refused, start, here) == sentence


def test_the_members_of_a_set_are_what_is_required_and_not_there_yet() -> None:
    with town(versions=0) as here:
        sets(here, {("wake", 2): [("decoder", 2), ("speaker", 1)], ("decoder", 2): [("wake", 2)]})
        members = find_members(here.registry, here.registry.version("wake", 2))
        assert [(each.title, each.baseline) for each in members] == [(f"decoder {named(2)}", 1)]
        begun = start(here)
        assert (begun.members, begun.plan.alpha) == (("decoder-2-abcdef",), plan().alpha / 2)
        entry = here.registry.audit_log()[0]
        assert entry.because == f"{named(2)} with decoder {named(2)} to 5% of the devices"
        assert entry.evidence["members"] == ["decoder-2-abcdef"]
        carried = here.registry.rollout("decoder-2-abcdef")
        assert (
            carried.lead,
            carried.salt,
            carried.baseline,
            carried.shares,
            carried.because,
            carried.plan.model_version,
        ) == (
            begun.id,
            42,
            1,
            (50_000,),
            f"with {begun.id}: started by me",
            "decoder@2026.01.01.2",
        )


def test_a_set_has_a_bound() -> None:
    with town(versions=0) as here:
        names = [f"m{number:02d}" for number in range(limits.SET_MODELS + 1)]
        for name in names:
            here.registry.add_model(model(name=name))
        for name, following in zip(names, [*names[1:], ""], strict=True):
            needs = (Requirement(model=following, serial=1),) if following else ()
            document = release(1, model=name, requires=needs)
            here.registry.add_version(version(1, model=name), release=encode(document), digests=document.digests)
        for name in ("wake", names[-1]):
            here.registry.change_model(name, baseline=None)
        assert refusal(Refused, find_members, here.registry, here.registry.version(names[0], 1)) == (
            f"m00 2026.01.01.1 is a set of more than {limits.SET_MODELS} models"
        )
        find_members(here.registry, here.registry.version(names[1], 1))
