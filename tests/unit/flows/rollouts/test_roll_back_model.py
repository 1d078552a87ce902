"""A model goes back at any time: its baseline, the names, the quarantine, and what each device decides then."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from support.values import T0, Town, line, plan, quarantined, rollout, selector, stage, town
from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.rollouts.lift_quarantine import lift_quarantine
from whimbrel.flows.rollouts.progress import follow
from whimbrel.flows.rollouts.roll_back_model import WayBack, find_way_back, roll_back_completed, roll_back_model
from whimbrel.flows.rollouts.way_back_words import way_back_sentences
from whimbrel.model.release import Line
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.plan.governance import OnFailure, OnSuccess
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import State
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Policy

NOW = T0 + 5 * 86400
BOARDS = selector(hardware="pi3")


@contextmanager
def completed(
    *, baseline: int = 3, good: tuple[int, ...] = (1, 2, 3), versions: int = 4, **more: object
) -> Iterator[Town]:
    """A model whose rollout from 2 to 3 was complete days ago."""
    with town(versions=versions) as here:
        for serial in good:
            here.registry.change_version("wake", serial, good=True)
        here.registry.change_model("wake", baseline=baseline)
        here.registry.set_alias("wake", "champion", baseline)
        ended = rollout(baseline=2, target=3, state=State.COMPLETED, ended_at=T0, stage=2, shares=(1, 2, 3), **more)
        here.registry.add_rollout(ended, plan_text="")
        yield here


def back(here: Town, **more: object) -> WayBack:
    values = {"lines": lambda _: line(), "because": "it stutters", "actor": "ada", "now": NOW} | more
    return roll_back_model(here.registry, "wake", **values)


def policy(here: Town) -> Policy:
    registry = here.registry
    return render_policy(
        registry.model("wake"),
        versions=registry.versions("wake"),
        rollouts=registry.rollouts(model="wake", unended=True),
        quarantine=registry.quarantines("wake"),
        sequence=1,
    )


def runs(here: Town, *, the_line: Line | None = None, **labels: str) -> int | None:
    return decide(policy(here), the_line or line(), Profile("dev-1", labels)).serial


def serials(way: WayBack) -> tuple[int, int, list[int]]:
    return way.leaves.serial, way.to.serial, [version.serial for version in way.quarantined]


def test_a_model_goes_back_to_the_version_before_in_one_verb() -> None:
    with completed() as here:
        assert runs(here) == 3
        way = back(here)
        assert (*serials(way), way.rollout) == (3, 2, [3], "r1")
        assert runs(here) == 2
        assert here.registry.model("wake").baseline == 2
        assert here.registry.aliases("wake") == {"champion": 2}
        assert [(each.serial, each.because) for each in here.registry.quarantines("wake")] == [(3, "it stutters")]


def test_the_document_is_as_long_for_ten_devices_as_for_ten_thousand() -> None:
    with completed() as here:
        back(here, selector=BOARDS)
        assert (policy(here).pins, policy(here).layers[0].entries) == ((), ())


def test_a_device_that_cannot_run_it_falls_back_further() -> None:
    with completed() as here:
        back(here)
        assert decide(policy(here), line(), Profile("dev-1", unfit=frozenset({2}))).serial == 1


def test_a_version_that_is_named_is_gone_back_to_and_what_lies_between_is_refused() -> None:
    with completed() as here:
        assert serials(back(here, to=1)) == (3, 1, [3, 2])
        assert runs(here) == 1


def test_a_selectors_devices_go_back_alone() -> None:
    with completed() as here:
        way = back(here, selector=BOARDS)
        assert (*serials(way), way.rollout) == (3, 2, [3], "r1")
        assert (runs(here, hardware="pi3"), runs(here, hardware="pi4"), runs(here)) == (2, 3, 3)
        assert here.registry.model("wake").baseline == 3
        assert here.registry.rollout("r1").state is State.COMPLETED


def test_a_selectors_devices_reach_the_version_that_is_named() -> None:
    """They try the good versions in order: one that is not refused on the way would stop them there."""
    with completed() as here:
        assert serials(back(here, to=1, selector=BOARDS)) == (3, 1, [3, 2])
        assert (runs(here, hardware="pi3"), runs(here, hardware="pi4")) == (1, 3)


def test_a_selectors_devices_that_went_back_go_back_once_more() -> None:
    with completed() as here:
        back(here, selector=BOARDS)
        assert serials(back(here, selector=BOARDS)) == (2, 1, [2])
        assert (runs(here, hardware="pi3"), runs(here, hardware="pi4")) == (1, 3)
        with pytest.raises(Refused, match=r"no earlier version than 2026\.01\.01\.1"):
            back(here, selector=BOARDS)


def test_a_fleet_goes_back_twice() -> None:
    with completed() as here:
        back(here)
        assert serials(back(here)) == (2, 1, [2])
        assert (runs(here), here.registry.aliases("wake")) == (1, {"champion": 1})


def test_after_an_older_version_was_rolled_out_back_is_the_newer_one_that_it_replaced() -> None:
    with completed(baseline=2) as here:
        assert serials(find_way_back(here.registry, "wake", lines=lambda _: line())) == (2, 3, [2])


def test_the_completed_rollout_goes_back_with_it_and_says_how_many_devices_are_left() -> None:
    with completed() as here:
        here.enrol("dev-1", models=("wake",))
        here.fleet.note_running(RunningVersion(device_id="dev-1", model="wake", serial=3, hardware_class="", at=NOW))
        back(here)
        assert here.registry.rollout("r1").state is State.ROLLING_BACK
        assert moved(here, now=NOW + 5).state is State.ROLLING_BACK
        here.fleet.note_running(
            RunningVersion(device_id="dev-1", model="wake", serial=2, hardware_class="", at=NOW + 9)
        )
        after = moved(here, now=NOW + 10)
        assert (after.state, after.because) == (
            State.ROLLED_BACK,
            "it stutters; every device that was heard from is off it",
        )


def moved(here: Town, *, now: float) -> RolloutRecord:
    return follow(here.registry, here.fleet, here.registry.rollout("r1"), published=True, now=now)


def test_what_the_plan_says_of_success_and_failure_follows() -> None:
    said: Plan = plan(
        stage(), on_success=OnSuccess(alias="stable"), on_failure=OnFailure(alias="bad", retire_target=True)
    )
    with completed(plan=said) as here:
        here.registry.set_alias("wake", "stable", 3)
        back(here)
        assert here.registry.aliases("wake") == {"bad": 3, "champion": 2, "stable": 2}
        assert here.registry.version("wake", 3).retired


def test_a_name_that_was_given_to_another_version_since_stays() -> None:
    with completed(plan=plan(stage(), on_success=OnSuccess(alias="stable"))) as here:
        here.registry.set_alias("wake", "stable", 1)
        back(here)
        assert here.registry.aliases("wake") == {"champion": 2, "stable": 1}


@pytest.mark.parametrize(("devices", "action"), [(EVERYONE, "roll_back"), (BOARDS, "slice_back")])
def test_it_is_audited_as_going_back_is_everywhere(devices: Selector, action: str) -> None:
    """So the receivers of alerts about rollouts that go back hear of it."""
    with completed() as here:
        back(here, selector=devices, evidence={"monitor": "errors"})
        entry = here.registry.audit_log(model="wake")[0]
        assert (entry.action, entry.actor, entry.because, entry.rollout) == (action, "ada", "it stutters", "r1")
        assert entry.evidence["monitor"] == "errors"
        assert (entry.evidence["leaves"], entry.evidence["to"], entry.evidence["stage"]) == (3, 2, 2)


def test_a_completed_rollout_is_taken_back_as_its_model_is() -> None:
    with completed() as here:
        after = roll_back_completed(here.registry, "r1", lines=lambda _: line(), because="", actor="ada", now=NOW)
        assert (after.state, after.because) == (State.ROLLING_BACK, "rollback by ada")
        assert (runs(here), here.registry.model("wake").baseline) == (2, 2)


def test_a_completed_rollout_whose_version_was_replaced_is_not_taken_back() -> None:
    instead = r"not the baseline of wake any more; .* whimbrel model rollback wake"
    with completed(baseline=4, good=(1, 2, 3, 4)) as here, pytest.raises(Refused, match=instead):
        roll_back_completed(here.registry, "r1", lines=lambda _: line(), because="", actor="ada", now=NOW)


def test_a_version_whose_quarantine_was_lifted_is_no_version_to_go_back_to() -> None:
    """The next way back led forward to it, since it had been a baseline once."""
    with completed() as here:
        back(here)
        lift_quarantine(here.registry, here.registry.version("wake", 3), because="a cable", actor="ada", now=NOW)
        assert here.registry.quarantines("wake") == []
        assert here.registry.audit_log(model="wake")[0].evidence == {
            "serial": 3,
            "devices": "every device",
            "taken_back": ["it stutters"],
        }
        assert serials(find_way_back(here.registry, "wake", lines=lambda _: line(), selector=BOARDS)) == (2, 1, [2])


def test_devices_return_to_a_baseline_that_is_lifted_for_them() -> None:
    with completed() as here:
        back(here, selector=BOARDS)
        lift_quarantine(here.registry, here.registry.version("wake", 3), because="a cable", actor="ada", now=NOW)
        assert runs(here, hardware="pi3") == 3


def test_what_is_not_quarantined_and_what_a_live_rollout_left_is_not_lifted() -> None:
    with completed() as here:
        good, candidate = here.registry.version("wake", 3), here.registry.version("wake", 4)
        with pytest.raises(Refused, match=r"wake 2026\.01\.01\.3 is not quarantined"):
            lift_quarantine(here.registry, good, because="", actor="ada", now=NOW)
        here.registry.quarantine(quarantined(4, selector=BOARDS))
        here.registry.add_rollout(rollout(id="r2", baseline=3, target=4, without=("pi3",)), plan_text="")
        with pytest.raises(Refused, match=r"rollout r2 is live, and took .* back from hardware=pi3"):
            lift_quarantine(here.registry, candidate, because="", actor="ada", now=NOW)


def test_the_sentences_say_what_devices_will_do() -> None:
    with completed() as here:
        way = find_way_back(here.registry, "wake", lines=lambda _: line())
        count, hearing, refusing = way_back_sentences(way, devices=12, refresh_s=30)
        assert (
            count == "wake goes back from 2026.01.01.3 (3.0.0) to 2026.01.01.2 (2.0.0): 12 devices are known to run it"
        )
        assert "within 30 s" in hearing
        assert refusing.startswith("2026.01.01.3 (3.0.0): refused by every device from now on")
        boards = find_way_back(here.registry, "wake", lines=lambda _: line(), selector=BOARDS)
        slices = [quarantined(2, selector=selector(os="qnx"), because="no driver")]
        count, _, refusing, further = way_back_sentences(
            boards, devices=1, refresh_s=300, unknown_labels={"hardware"}, quarantines=slices
        )
        assert "1 device with hardware=pi3 is known (devices do not tell the server their hardware" in count
        assert "refused by devices with hardware=pi3" in refusing
        assert "was taken back from devices with os=qnx before (no driver)" in further


# --- refusals: nothing is changed ---


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"to": 3}, r"2026.01.01.3 \(3.0.0\) is what its devices run"),
        ({"to": 9}, "serial 9 was never published"),
        ({"to": 4}, "never was the baseline, or was taken back .*; a rollout brings it to devices"),
        ({"to": 1, "lines": lambda _: line(minimum_serial=2)}, "is below the line's floor, serial 2"),
        ({"to": 1, "lines": lambda _: line(revoked=(1,))}, "is revoked by its publisher"),
    ],
)
def test_it_does_not_go_where_devices_cannot(asked: dict[str, object], sentence: str) -> None:
    with completed() as here:
        with pytest.raises(Refused, match=rf"wake cannot go back: .*{sentence}.* go back to: 2026.01.01.2"):
            back(here, **asked)
        assert (here.registry.quarantines("wake"), here.registry.model("wake").baseline) == ([], 3)


def test_it_does_not_go_to_what_was_taken_back_or_retired() -> None:
    with completed() as here:
        here.registry.quarantine(quarantined(2, because="it crashed"))
        with pytest.raises(Refused, match=r"was taken back itself \(it crashed\)"):
            back(here, to=2)
        here.registry.change_version("wake", 1, retired=True)
        with pytest.raises(
            Refused, match=r"no earlier version .*2\.0\.0\) was taken back itself .*1\.0\.0\) is retired"
        ):
            back(here)


def test_by_itself_it_passes_by_what_may_not_run() -> None:
    with completed() as here:
        assert serials(back(here, lines=lambda _: line(revoked=(2,)))) == (3, 1, [3])
        assert runs(here, the_line=line(revoked=(2,))) == 1


def test_a_baseline_that_is_revoked_is_left_and_no_good_version_with_it() -> None:
    """Its devices run the next one already: to take that one back as well would be one too many."""
    with completed() as here:
        assert serials(back(here, lines=lambda _: line(revoked=(3,)))) == (3, 2, [3])


def test_a_live_rollout_is_taken_back_or_ended_first() -> None:
    with completed() as here:
        here.registry.add_rollout(rollout(id="r2", baseline=3, target=4), plan_text="")
        with pytest.raises(Refused, match=r"rollout r2 of wake is running.*rollout rollback r2.*rollout abort r2"):
            back(here)
        assert here.registry.quarantines("wake") == []


def test_a_model_that_was_never_brought_to_everybody_has_no_way_back() -> None:
    with completed() as here:
        here.registry.change_model("wake", baseline=None)
        with pytest.raises(Refused, match="no baseline"):
            back(here)
    with (
        town() as here,
        pytest.raises(Refused, match=r"no earlier version than .* whimbrel version revoke 2026\.01\.01\.1"),
    ):
        back(here)
    with town() as here, pytest.raises(NotFound):
        roll_back_model(here.registry, "none", lines=lambda _: line(), because="", actor="me", now=NOW)


def test_who_looked_before_another_went_back_takes_nothing_back() -> None:
    with completed() as here:
        back(here, leaves=3)
        with pytest.raises(Conflict, match=r"is at 2026\.01\.01\.2 .* meanwhile, and not at serial 3"):
            back(here, leaves=3)
        assert runs(here) == 2


def test_a_way_back_is_a_value() -> None:
    with completed() as here:
        way = find_way_back(here.registry, "wake", lines=lambda _: line())
        assert msgspec.structs.replace(way) == way
        assert here.registry.quarantines("wake") == []
