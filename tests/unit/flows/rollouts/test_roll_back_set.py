"""What rolled out as one goes back as one: each way to ask for it, and what devices decide then."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from support.values import (
    HOUR,
    SALT,
    T0,
    Town,
    line,
    model,
    plan,
    quarantined,
    release,
    rollout,
    selector,
    stage,
    town,
    version,
)
from whimbrel.errors import Refused
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.flows.rollouts.progress import follow
from whimbrel.flows.rollouts.roll_back_model import WayBack, find_way_back, roll_back_completed, roll_back_model
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.flows.rollouts.way_back_words import way_back_sentences
from whimbrel.flows.versions import required_by
from whimbrel.model.documents import encode
from whimbrel.model.release import Requirement
from whimbrel.plan.rollout_states import State
from whimbrel.policy.decide import Profile
from whimbrel.policy.decide_set import ModelToDecide, decide_set

NOW = T0 + 5 * 86400
PAIR = ("decoder", "encoder")
BOARDS = selector(hardware="pi3")
Requires = dict[tuple[str, int], list[tuple[str, int]]]
ONE_WAY: Requires = {("encoder", 2): [("decoder", 2)]}
BOTH: Requires = {**ONE_WAY, ("decoder", 2): [("encoder", 2)]}


@contextmanager
def models(requires: Requires, *, versions: int = 3) -> Iterator[Town]:
    """An encoder and a decoder, both at 1."""
    with town(versions=0) as here:
        here.registry.change_model("wake", baseline=None)
        for n, name in enumerate(PAIR):
            here.registry.add_model(model(name=name, salt=SALT + n))
            for serial in range(1, versions + 1):
                publish(here, name, serial, requires.get((name, serial), []))
            here.registry.change_version(name, 1, good=True)
        yield here


def publish(here: Town, name: str, serial: int, requires: Sequence[tuple[str, int]]) -> None:
    needs = tuple(Requirement(model=other, serial=needed) for other, needed in requires)
    record = version(serial, model=name, version=f"2026.01.01.{serial}", semantic_version=f"{serial}.0.0")
    document = release(serial, model=name, requires=needs)
    here.registry.add_version(record, release=encode(document), digests=document.digests)


def complete(here: Town, name: str, serial: int, *, tag: str = "abcdef") -> RolloutRecord:
    """A rollout of `serial` that was complete long ago."""
    asked = plan(stage(), model_version=f"{name}@{serial}.0.0")
    lead = start_rollout(
        here.registry, here.fleet, asked, plan_text="", tag=tag, hour_s=HOUR, actor="me", now=T0 + serial
    )
    for _ in range(2):
        follow(here.registry, here.fleet, here.registry.rollout(lead.id), published=True, now=T0 + serial)
    return move_by_person(here.registry, here.fleet, lead.id, "finish", because="", actor="me", now=T0 + serial)


def back(here: Town, name: str, **more: object) -> WayBack:
    values = {"lines": lambda name: line(model=name), "because": "it stutters", "actor": "ada", "now": NOW} | more
    return roll_back_model(here.registry, name, **values)


def runs(here: Town, *, active: tuple[int, int] = (2, 2), **labels: str) -> tuple[int | None, ...]:
    """What a device decides for both: the decoder's serial and the encoder's."""
    registry = here.registry
    known = {}
    for name, serial in zip(PAIR, active, strict=True):
        policy = render_policy(
            registry.model(name),
            versions=registry.versions(name),
            rollouts=registry.rollouts(model=name, unended=True),
            quarantine=registry.quarantines(name),
            sequence=1,
        )
        known[name] = ModelToDecide(policy, line(model=name), Profile("dev-1", labels), serial)
    decided = decide_set(known, lambda name, serial: required_by(registry, name, serial))
    assert decided.left_out == frozenset()  # no policy asks for what its device must leave out
    return tuple(decided.decisions[name].serial for name in PAIR)


def baselines(here: Town) -> tuple[int | None, ...]:
    return tuple(here.registry.model(name).baseline for name in PAIR)


def refused(here: Town) -> list[list[int]]:
    return [[each.serial for each in here.registry.quarantines(name)] for name in PAIR]


def ask(here: Town, lead: RolloutRecord, way: str) -> None:
    """Take the set back, by one of four ways."""
    identifiers = {"lead": lead.id, "member": lead.members[0]}
    if way in PAIR:
        back(here, way)
        return
    roll_back_completed(
        here.registry, identifiers[way], lines=lambda name: line(model=name), because="", actor="ada", now=NOW
    )


@pytest.mark.parametrize("requires", [BOTH, ONE_WAY], ids=["both", "one way"])
@pytest.mark.parametrize("way", [*PAIR, "lead", "member"])
def test_whoever_is_asked_the_whole_set_goes_back(way: str, requires: Requires) -> None:
    """The one that was not named stayed: an old encoder ran beside a new decoder, or waited for ever."""
    with models(requires) as here:
        lead = complete(here, "encoder", 2)
        assert (baselines(here), runs(here)) == ((2, 2), (2, 2))
        ask(here, lead, way)
        assert (baselines(here), refused(here)) == ((1, 1), [[2], [2]])
        assert runs(here) == runs(here, active=(1, 1)) == (1, 1)
        assert [here.registry.aliases(name)["champion"] for name in PAIR] == [1, 1]
        assert [here.registry.version(name, 2).good for name in PAIR] == [False, False]
        states = {here.registry.rollout(each).state for each in (lead.id, *lead.members)}
        assert states == {State.ROLLING_BACK}


@pytest.mark.parametrize("way", [*PAIR, "lead", "member"])
def test_the_sets_rollouts_are_rolled_back_when_the_last_device_is_off_all(way: str) -> None:
    """A member that went back alone was asked by nobody whether its devices are off it, and went back for ever."""
    with models(ONE_WAY) as here:
        lead = complete(here, "encoder", 2)
        here.enrol("dev-1", models=PAIR)
        heard = [RunningVersion(device_id="dev-1", model=name, serial=2, hardware_class="", at=NOW) for name in PAIR]
        for each in heard:
            here.fleet.note_running(each)
        ask(here, lead, way)
        for n, name in enumerate(PAIR):
            follow(here.registry, here.fleet, here.registry.rollout(lead.id), published=True, now=NOW + n + 1)
            assert here.registry.rollout(lead.id).state is State.ROLLING_BACK
            running = RunningVersion(device_id="dev-1", model=name, serial=1, hardware_class="", at=NOW + n + 1)
            here.fleet.note_running(running)
        follow(here.registry, here.fleet, here.registry.rollout(lead.id), published=True, now=NOW + 5)
        states = {here.registry.rollout(each).state for each in (lead.id, *lead.members)}
        assert states == {State.ROLLED_BACK}


@pytest.mark.parametrize("requires", [BOTH, ONE_WAY], ids=["both", "one way"])
@pytest.mark.parametrize("name", PAIR)
def test_a_selectors_devices_leave_the_set_and_the_others_keep_it(name: str, requires: Requires) -> None:
    with models(requires) as here:
        lead = complete(here, "encoder", 2)
        back(here, name, selector=BOARDS)
        assert runs(here, hardware="pi3") == (1, 1)
        assert (runs(here, hardware="pi4"), baselines(here)) == ((2, 2), (2, 2))
        assert here.registry.rollout(lead.id).state is State.COMPLETED
        assert back(here, name).others[0].to.serial == 1  # then all of them
        assert runs(here) == (1, 1)


def test_the_words_and_the_audit_log_say_which_models_go_back() -> None:
    with models(BOTH) as here:
        complete(here, "encoder", 2)
        way = back(here, "encoder")
        sentences = way_back_sentences(way, devices=3, refresh_s=30)
        assert sentences[1].startswith("decoder goes back with it, from 2026.01.01.2 (2.0.0) to 2026.01.01.1 (1.0.0)")
        assert "decoder 2026.01.01.2 (2.0.0): refused by every device" in sentences[3]
        entries = here.registry.audit_log()[:2]
        assert [(each.action, each.model) for each in entries] == [
            ("move_with_set", "decoder"),
            ("roll_back", "encoder"),
        ]
        assert entries[0].because == "roll_back with encoder: it stutters"
        assert entries[1].evidence["others"] == {
            "decoder": {"leaves": 2, "to": 1, "quarantined": [2], "devices": "every device"}
        }


def test_two_sets_are_gone_back_through_to_the_version_that_is_named() -> None:
    requires = {**BOTH, ("encoder", 3): [("decoder", 3)], ("decoder", 3): [("encoder", 3)]}
    with models(requires) as here:
        complete(here, "encoder", 2)
        complete(here, "encoder", 3, tag="second")
        back(here, "decoder", to=1)
        assert (baselines(here), refused(here)) == ((1, 1), [[3, 2], [3, 2]])
        assert runs(here, active=(3, 3)) == (1, 1)


def test_two_sets_are_gone_back_through_one_by_one() -> None:
    requires = {**BOTH, ("encoder", 3): [("decoder", 3)], ("decoder", 3): [("encoder", 3)]}
    with models(requires) as here:
        complete(here, "encoder", 2)
        complete(here, "encoder", 3, tag="second")
        back(here, "decoder")
        assert (baselines(here), runs(here, active=(3, 3))) == ((2, 2), (2, 2))
        back(here, "encoder")
        assert (baselines(here), runs(here)) == ((1, 1), (1, 1))


def test_a_version_that_requires_what_is_left_goes_back_too_though_it_rolled_out_alone() -> None:
    with models(ONE_WAY) as here:
        complete(here, "decoder", 2)
        complete(here, "encoder", 2, tag="second")
        assert {each.model for each in back(here, "decoder").others} == {"encoder"}
        assert (baselines(here), runs(here)) == ((1, 1), (1, 1))
        assert {each.state for each in here.registry.rollouts() if each.model in PAIR} == {State.ROLLING_BACK}


def test_a_model_goes_back_alone_to_what_goes_with_the_others() -> None:
    with models(ONE_WAY) as here:
        complete(here, "decoder", 2)
        complete(here, "encoder", 2, tag="second")
        assert back(here, "encoder").others == ()
        assert (baselines(here), runs(here)) == ((2, 1), (2, 1))


def test_a_version_that_is_gone_back_to_takes_what_it_requires_along() -> None:
    with models(ONE_WAY) as here:
        complete(here, "encoder", 2)
        complete(here, "encoder", 3, tag="second")
        complete(here, "decoder", 3, tag="third1")
        back(here, "encoder")
        assert (baselines(here), runs(here, active=(3, 3))) == ((2, 2), (2, 2))


@contextmanager
def first_decoder(requires: Requires) -> Iterator[Town]:
    """No decoder ran before the encoder's 2, which brought decoder 2."""
    with models(requires) as here:
        here.registry.change_model("decoder", baseline=None)
        here.registry.change_version("decoder", 1, good=False)
        complete(here, "encoder", 2)
        assert baselines(here) == (2, 2)
        yield here


def test_a_member_that_had_no_version_before_stays_and_is_waited_for_by_nobody() -> None:
    """Its devices run its target on, so the rollout of the set would have gone back for ever."""
    with first_decoder(ONE_WAY) as here:
        here.enrol("dev-1", models=PAIR)
        here.fleet.note_running(RunningVersion(device_id="dev-1", model="decoder", serial=2, hardware_class="", at=NOW))
        way = back(here, "encoder")
        assert (way.others, baselines(here), runs(here)) == ((), (2, 1), (2, 1))
        assert way.rollout is not None
        follow(here.registry, here.fleet, here.registry.rollout(way.rollout), published=True, now=NOW + 1)
        assert here.registry.rollout(way.rollout).state is State.ROLLED_BACK


# --- refusals: nothing is changed ---


def test_a_member_that_had_no_version_before_and_requires_what_is_left_is_in_the_way() -> None:
    with first_decoder(BOTH) as here:
        with pytest.raises(
            Refused, match=r"decoder at serial 2 requires encoder at serial 2, and no .* what ran before"
        ):
            back(here, "encoder")
        with pytest.raises(Refused, match=r"decoder has no earlier version than 2026\.01\.01\.2"):
            back(here, "decoder")
        assert (baselines(here), refused(here)) == ((2, 2), [[], []])


def test_where_no_pair_goes_together_nothing_goes_back() -> None:
    with models(BOTH) as here:
        complete(here, "encoder", 2)
        here.registry.change_version("decoder", 1, retired=True)
        here.registry.quarantine(quarantined(1, model="decoder", because="it crashed"))
        with pytest.raises(
            Refused,
            match=r"encoder cannot go back to a version that goes with those of the other models\. 2026\.01\.01\.1 .*: "
            r"decoder 2026\.01\.01\.1 \(1\.0\.0\) was taken back itself \(it crashed\)\. Publish repaired versions",
        ):
            back(here, "encoder")
        assert (baselines(here), refused(here)) == ((2, 2), [[1], []])


def test_a_version_that_ran_with_nobody_knows_what_is_passed_by() -> None:
    with models(BOTH) as here:
        complete(here, "encoder", 2)
        here.registry.change_version("encoder", 3, good=True)
        with pytest.raises(Refused, match="no completed rollout says which version of decoder ran with it"):
            find_way_back(here.registry, "encoder", lines=lambda name: line(model=name), to=3)
        assert back(here, "encoder").to.serial == 1


def test_a_live_rollout_of_another_model_of_the_set_is_ended_first() -> None:
    with models(BOTH) as here:
        complete(here, "encoder", 2)
        publish(here, "decoder", 4, [("encoder", 2)])
        here.registry.add_rollout(
            rollout(id="live1", model="decoder", baseline=2, target=4),
            plan_text="",
        )
        with pytest.raises(Refused, match="rollout live1 of decoder is running"):
            back(here, "encoder")
        assert (baselines(here), refused(here)) == ((2, 2), [[], []])
