"""What should this device run?"""

from typing import Any

import msgspec
import pytest

from support.values import SALT, arm, devices_in, line, policy, selector
from whimbrel.agent.labels import labels_to_tell
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Line
from whimbrel.model.selector import Selector
from whimbrel.policy.bucket import BUCKETS, bucket, device_key, label_key
from whimbrel.policy.decide import Assignment, Beside, Decision, Profile, decide, edges
from whimbrel.policy.policy import Entry, Layer, Pin, Policy, Quarantine
from whimbrel.policy.shadow import Shadow

CANARY_OF_R1 = (Assignment("r1", 0, "canary", "treated"),)
CANARY = devices_in(0, 50_000, 1)[0]
REST = devices_in(50_000, BUCKETS, 1)[0]


def ask(
    said: Policy | None = None,
    *,
    device: str = CANARY,
    under: Line | None = None,
    refused: tuple[int, ...] = (),
    **labels: str,
) -> Decision:
    return decide(said or policy(), under or line(), Profile(device, labels, frozenset(refused)))


def layers(*entries: Entry) -> tuple[Layer, ...]:
    return (Layer(salt=SALT, entries=entries),)


def entry(name: str, *, start: int = 0, end: int = BUCKETS, serial: int = 2, **more: object) -> Entry:
    return Entry(rollout=name, arms=(arm("treated", start, end, serial=serial),), **more)


ROLLOUT = policy().layers[0].entries[0]


# --- buckets ---


def test_the_bucket_of_the_published_vector() -> None:
    assert device_key("dev-1") == 10522668389010243576
    assert bucket(10522668389010243576, salt=42) == 586382


def test_another_salt_is_another_division() -> None:
    assert bucket(device_key("dev-1"), salt=43) != 586382


def test_the_key_of_a_labels_value_is_the_same_hash_of_the_value() -> None:
    assert (label_key("ann"), bucket(label_key("ann"), salt=42)) == (811139115053772478, 344805)


# --- arms by a label's value ---


def by_person(start: int, end: int) -> Policy:
    return policy(layers=layers(entry("e1", start=start, end=end, bucket_by="user_id")))


def asked_of(labels: dict[str, str], *, device: str = CANARY, under: Policy | None = None) -> Decision:
    return decide(under or by_person(344_805, 344_806), line(), Profile(device, labels))


def test_the_devices_of_one_person_are_in_one_arm_whatever_their_ids() -> None:
    half = by_person(0, 500_000)
    for person in (f"person-{n}" for n in range(200)):
        serials = {asked_of({"user_id": person}, device=f"{person}-{n}", under=half).serial for n in range(3)}
        inside = bucket(label_key(person), salt=SALT) < 500_000
        assert serials == {2 if inside else 1}


def test_a_device_without_the_label_is_in_no_arm() -> None:
    for labels in ({}, {"user_id": ""}, {"user": "ann"}):
        decision = asked_of(labels, under=by_person(0, BUCKETS))
        assert (decision.serial, decision.assignments) == (1, ())


def test_the_reason_of_a_decision_does_not_tell_the_bucket_of_the_value() -> None:
    """It may leave the device, as what the device waits for: with the public salt every name could be tried."""
    decision = asked_of({"user_id": "ann"})
    assert (decision.serial, decision.because) == (2, "its user_id is in canary of e1")


def test_a_label_that_divides_devices_is_reported_by_none_of_the_ways() -> None:
    asked = msgspec.structs.replace(
        by_person(0, BUCKETS), slice_labels=("user_id", "region"), hardware_label="user_id", report_labels=("user_id",)
    )
    assert asked.reported_labels({"user_id": "ann", "region": "NZ"}) == ("", {"region": "NZ"})
    assert labels_to_tell({"user_id": "ann"}, [asked]) == {}
    other = policy(report_labels=("user_id", "region"))
    assert labels_to_tell({"user_id": "ann", "region": "NZ"}, [other, asked]) == {"region": "NZ"}
    assert labels_to_tell({"user_id": "ann"}, [other]) == {"user_id": "ann"}


def test_a_policy_without_the_key_has_the_bytes_that_it_had() -> None:
    assert b"bucket_by" not in encode(policy())
    read = parse(Policy, encode(by_person(0, 9)), what="a policy")
    assert read.layers[0].entries[0].bucket_by == "user_id"


# --- arms ---


def test_a_canary_device_runs_the_target_and_knows_its_arm() -> None:
    decision = ask()
    assert (decision.serial, decision.offer) == (2, "run")
    assert decision.assignments == (Assignment("r1", 0, "canary", "treated"),)


def test_a_control_runs_the_baseline_and_knows_its_cohort() -> None:
    decision = ask(device=REST)
    assert decision.serial == 1
    assert decision.assignments == (Assignment("r1", 0, "control", "control"),)


def test_a_device_may_be_a_control_of_several_stages() -> None:
    arms = (
        arm("treated", 0, 50_000, serial=2),
        arm("treated", 0, 100_000, serial=2, stage=1),
        arm("control", 100_000, BUCKETS, serial=1),
        arm("control", 100_000, BUCKETS, serial=1, stage=1),
    )
    said = policy(layers=layers(Entry(rollout="r1", arms=arms)))
    control = devices_in(100_000, BUCKETS, 1)[0]
    assert [a.stage for a in ask(said, device=control).assignments] == [0, 1]


def test_a_later_larger_share_leaves_the_earlier_cohort_in_its_stage() -> None:
    arms = (arm("treated", 0, 50_000, serial=2), arm("treated", 0, 900_000, serial=2, stage=1))
    said = policy(layers=layers(Entry(rollout="r1", arms=arms)))
    assert ask(said).assignments[0].stage == 0
    assert ask(said, device=devices_in(50_000, 900_000, 1)[0]).assignments[0].stage == 1


def test_the_start_of_a_range_is_inside_of_it() -> None:
    place = bucket(device_key(CANARY), salt=SALT)
    for start, serial in ((place, 2), (place + 1, 1)):
        assert ask(policy(layers=layers(entry("r1", start=start)))).serial == serial
        narrow = Entry(rollout="r1", arms=(arm("treated", 0, BUCKETS, serial=2),), start=start)
        assert ask(policy(layers=layers(narrow))).serial == serial


def test_the_end_of_a_range_is_outside_of_it() -> None:
    place = bucket(device_key(CANARY), salt=SALT)
    for end, serial in ((place, 1), (place + 1, 2)):
        narrow = Entry(rollout="r1", arms=(arm("treated", 0, BUCKETS, serial=2),), end=end)
        assert ask(policy(layers=layers(narrow))).serial == serial
    assert ask(policy(layers=layers(entry("r1", end=place)))).serial == 1
    assert ask(policy(layers=layers(entry("r1", end=place + 1)))).serial == 2


def test_without_a_baseline_a_device_in_no_arm_runs_no_version() -> None:
    """It kept what it had: a first version that was taken back, or aborted, stayed on its devices."""
    decision = ask(Policy(model="wake", sequence=1))
    assert (decision.serial, decision.offer) == (None, "stop")
    first = policy(baseline=None, known_good=(), layers=layers(entry("r1", end=50_000, serial=1)))
    assert (ask(first).serial, ask(first, device=REST).offer) == (1, "stop")


@pytest.mark.parametrize("on_revoked", ["keep", "stop"])
def test_a_first_version_that_may_not_run_leaves_no_version(on_revoked: str) -> None:
    """With a baseline a device keeps what it has rather than nothing; a first version has served nobody else yet."""
    first = policy(
        baseline=None, known_good=(), on_revoked=on_revoked, layers=layers(entry("r1", end=50_000, serial=1))
    )
    assert ask(first, under=line(revoked=(1,))).offer == "stop"
    assert ask(first, refused=(1,)).offer == "stop"
    gone = msgspec.structs.replace(first, quarantine=(Quarantine(serial=1),))
    assert (ask(gone).offer, ask(gone).assignments) == ("stop", (Assignment("r1", 0, "canary", "treated"),))


def test_the_edges_of_a_layer_are_those_of_its_entries_and_of_their_arms() -> None:
    first = Entry(rollout="r1", arms=(arm("treated", 20, 30, serial=2), arm("control", 25, 90, serial=1)), end=50)
    second = Entry(rollout="r2", arms=(arm("treated", 60, 70, serial=3),), start=55)
    assert edges(layers(first, second)[0]) == {0, 20, 25, 30, 50, 55, 60, 70, 90, BUCKETS}


# --- selectors, layers ---


def test_devices_outside_of_an_entrys_selector_run_the_baseline() -> None:
    said = policy(layers=layers(entry("r1", selector=selector(region="NZ"))))
    assert ask(said).serial == 1
    assert ask(said, region="AU").serial == 1
    assert ask(said, region="NZ").serial == 2


def test_within_a_layer_the_first_match_wins() -> None:
    said = policy(layers=layers(entry("first", serial=2), entry("second", serial=3)))
    assert ask(said).assignments[0].rollout == "first"


def test_a_first_match_without_an_arm_for_the_bucket_keeps_the_next_entry_out() -> None:
    said = policy(layers=layers(entry("first", end=0), entry("second", serial=3)))
    assert ask(said).serial == 1


def test_entries_of_disjoint_ranges_share_a_layer() -> None:
    place = bucket(device_key(CANARY), salt=SALT)
    first = Entry(rollout="first", arms=(arm("treated", 0, BUCKETS, serial=2),), end=place)
    second = Entry(rollout="second", arms=(arm("treated", 0, BUCKETS, serial=3),), start=place, before=("watch_time",))
    (found,) = ask(policy(layers=layers(first, second))).assignments
    assert (found.rollout, found.before) == ("second", ("watch_time",))


def test_a_layer_that_has_nothing_for_a_device_leaves_the_next_one_its_say() -> None:
    said = policy(layers=(*layers(entry("r1", end=0)), Layer(salt=7, entries=(entry("r2", serial=3),))))
    assert ask(said).serial == 3


# --- pins ---


def test_a_pin_by_id_beats_the_layers() -> None:
    said = policy(pins=(Pin(serial=7, devices=(CANARY,)),))
    assert ask(said) == Decision(7, "run", "pinned")
    assert ask(said, device=REST).serial == 1


def test_a_pin_by_selector_beats_the_layers() -> None:
    said = policy(pins=(Pin(serial=7, selector=selector(desk="yes")),))
    assert ask(said, desk="yes").serial == 7
    assert ask(said).serial == 2


def test_a_pin_does_not_beat_the_line() -> None:
    said = policy(pins=(Pin(serial=7, devices=(CANARY,)),))
    assert ask(said, under=line(revoked=(7,))).serial == 1


# --- shadow stages ---


TRIED = Shadow(sample_ppm=1000)


def shadow(**changes: Any) -> Policy:
    """Serial 2 is tried in the shadow by the canary; all others are its control."""
    tried = Entry(
        rollout="r1",
        arms=(
            arm("treated", 0, 50_000, serial=2, shadow=TRIED),
            arm("control", 50_000, BUCKETS, serial=1),
        ),
    )
    return policy(**{"layers": layers(tried)} | changes)


def test_a_device_of_a_shadow_stage_runs_the_baseline_and_tries_the_version_beside_it() -> None:
    place = bucket(device_key(CANARY), salt=SALT)
    assert ask(shadow()) == Decision(
        1,
        "run",
        f"bucket {place} is in canary of r1, which tries 2 in the shadow",
        CANARY_OF_R1,
        Beside(2, TRIED, "r1", 0),
    )
    control = ask(shadow(), device=REST)
    assert (control.serial, control.beside, control.assignments[0].role) == (1, None, "control")


@pytest.mark.parametrize(
    ("forbidden", "why"),
    [
        ({"refused": (2,)}, "refused by this device, where it failed before"),
        ({"under": line(revoked=(2,))}, "revoked by its publisher"),
        ({"said": shadow(quarantine=(Quarantine(serial=2),))}, "quarantined"),
    ],
)
def test_what_may_not_run_is_not_tried_in_the_shadow_either(forbidden: dict[str, Any], why: str) -> None:
    decision = ask(**{"said": shadow()} | forbidden)
    place = bucket(device_key(CANARY), salt=SALT)
    assert decision == Decision(
        1,
        "run",
        f"bucket {place} is in canary of r1, which tries 2 in the shadow; serial 2 is {why}",
        CANARY_OF_R1,
    )


def test_where_the_baseline_may_not_run_nothing_is_tried_beside_the_version_that_is_gone_back_to() -> None:
    back = ask(shadow(baseline=3, known_good=(3, 1)), under=line(revoked=(3,)))
    assert (back.serial, back.beside) == (1, None)
    assert back.because == "serial 3 is revoked by its publisher; 1 is the newest good one"


# --- what a decision says ---


@pytest.mark.parametrize(
    ("asked", "because"),
    [
        ({}, "bucket {canary} is in canary of r1"),
        ({"device": REST}, "bucket {rest} is a control of r1"),
        ({"said": policy(layers=())}, "the baseline"),
        ({"said": policy(layers=layers(entry("r1", end=0)))}, "the baseline"),
        ({"said": policy(baseline=None, layers=())}, "the policy names no version for this device"),
        ({"under": line(minimum_serial=3)}, "serial 2 is below the line's floor 3, and no other is allowed"),
        ({"under": line(revoked=(2,))}, "serial 2 is revoked by its publisher; 1 is the newest good one"),
        ({"unfit": (2,)}, "serial 2 is without a variant that fits this device; 1 is the newest good one"),
        (
            {"unmet": {2: "encoder at serial 7"}},
            "serial 2 is without encoder at serial 7, which it requires; 1 is the newest good one",
        ),
    ],
)
def test_a_decision_says_why(asked: dict[str, Any], because: str) -> None:
    here = {"unfit": frozenset(asked.pop("unfit", ())), "unmet": asked.pop("unmet", {})}
    device = asked.pop("device", CANARY)
    decision = decide(asked.pop("said", policy()), asked.pop("under", line()), Profile(device, **here))
    places = {name: bucket(device_key(each), salt=SALT) for name, each in (("canary", CANARY), ("rest", REST))}
    assert decision.because == because.format(**places)


def test_a_control_whose_baseline_may_not_run_is_still_counted() -> None:
    decision = ask(policy(baseline=3, known_good=(3, 1), layers=layers(ROLLOUT)), device=REST, refused=(3, 1))
    assert (decision.serial, decision.offer) == (None, "keep")
    assert decision.because == "serial 1 is refused by this device, where it failed before, and no other is allowed"
    assert decision.assignments == (Assignment("r1", 0, "control", "control"),)


def test_a_control_without_a_version_in_its_arm_of_a_first_rollout_is_counted_and_runs_none() -> None:
    """Of a first version there is no baseline: its control runs nothing, and stays a control."""
    tried = Entry(rollout="r1", arms=(arm("treated", 0, BUCKETS, serial=1, shadow=TRIED),))
    decision = ask(policy(baseline=None, known_good=(), layers=layers(tried)))
    assert decision == Decision(None, "stop", "the policy names no version for this device", CANARY_OF_R1)


def test_the_first_control_arm_of_a_device_says_what_it_runs() -> None:
    arms = (arm("control", 0, BUCKETS, serial=4), arm("control", 0, BUCKETS, serial=5, stage=1))
    decision = ask(policy(layers=layers(Entry(rollout="r1", arms=arms))))
    assert (decision.serial, [each.stage for each in decision.assignments]) == (4, [0, 1])


def test_an_arm_is_taken_by_the_devices_of_its_selector_alone() -> None:
    arms = (
        arm("treated", 0, BUCKETS, serial=2, selector=selector(region="NZ")),
        arm("treated", 0, BUCKETS, serial=3, stage=1),
    )
    said = policy(layers=layers(Entry(rollout="r1", arms=arms)))
    assert (ask(said, region="NZ").serial, ask(said, region="AU").serial) == (2, 3)


# --- cohort keys ---


def test_a_cohort_key_takes_the_place_of_the_id() -> None:
    assert Profile("whatever", cohort_key=CANARY).key == device_key(CANARY)
    assert decide(policy(), line(), Profile(REST, cohort_key=CANARY)).serial == 2
    assert decide(policy(), line(), Profile(CANARY, cohort_key=REST)).serial == 1
    assert Profile(CANARY, cohort_key="").key == device_key("")  # a key, though an empty one


def test_a_device_that_waits_for_its_cohort_key_is_in_no_layer_but_keeps_its_pin() -> None:
    waiting = Profile(CANARY, awaits_cohort_key=True)
    assert decide(policy(), line(), waiting) == Decision(1, "run", "the baseline")
    assert decide(policy(pins=(Pin(serial=7, devices=(CANARY,)),)), line(), waiting).serial == 7


# --- what is never the answer ---


def test_a_quarantined_version_is_never_the_answer() -> None:
    decision = ask(policy(quarantine=(Quarantine(serial=2),)))
    assert (decision.serial, decision.because) == (1, "serial 2 is quarantined; 1 is the newest good one")
    assert decision.assignments == CANARY_OF_R1  # its failure stays in the denominator


def test_a_quarantine_of_a_slice_spares_the_others() -> None:
    said = policy(quarantine=(Quarantine(serial=2, selector=selector(chip="x1")),))
    assert ask(said, chip="x1").serial == 1
    assert ask(said, chip="x2").serial == 2


def test_no_policy_goes_below_the_lines_floor() -> None:
    said = policy(baseline=3, known_good=(3, 2, 1), layers=())
    assert ask(said, under=line(minimum_serial=3)).serial == 3
    assert ask(said, under=line(minimum_serial=4)) == Decision(
        None, "keep", "serial 3 is below the line's floor 4, and no other is allowed"
    )


def test_a_revoked_version_gives_way_to_the_newest_good_one() -> None:
    said = policy(baseline=3, known_good=(3, 2, 1), layers=())
    assert ask(said, under=line(revoked=(3,))).serial == 2
    assert ask(said, under=line(revoked=(3, 2))).serial == 1


def test_where_all_is_revoked_the_plan_says_keep_or_stop() -> None:
    nothing = line(revoked=(1, 2))
    assert ask(policy(), under=nothing).offer == "keep"
    stopped = ask(policy(on_revoked="stop"), under=nothing)
    assert (stopped.serial, stopped.offer) == (None, "stop")


def test_what_failed_on_a_device_is_not_tried_again_there() -> None:
    decision = ask(refused=(2,))
    assert decision.serial == 1
    assert decision.because == "serial 2 is refused by this device, where it failed before; 1 is the newest good one"
    assert decision.assignments == CANARY_OF_R1


def test_a_person_may_say_try_again_where_it_failed() -> None:
    assert ask(policy(overrides=(2,)), refused=(2,)).serial == 2


def test_an_override_lifts_neither_quarantine_nor_revocation() -> None:
    assert ask(policy(overrides=(2,), quarantine=(Quarantine(serial=2),)), refused=(2,)).serial == 1
    assert ask(policy(overrides=(2,)), under=line(revoked=(2,)), refused=(2,)).serial == 1


def test_a_device_that_cannot_run_its_arm_takes_the_baseline_before_a_newer_good_one() -> None:
    """A baseline that a person moved back to must not be passed over for the version it was moved back from."""
    policy = Policy(model="wake", sequence=1, baseline=2, known_good=(3, 2, 1), pins=(Pin(serial=4, devices=("d",)),))
    refusing = Profile("d", refused=frozenset({4}))
    assert decide(policy, Line(model="wake", sequence=1), refusing).serial == 2


# --- the version to go back to, and no way round a quarantine ---


def going_back(**changes: object) -> Decision:
    """Serial 5 was taken back; 4 is the baseline, and 3, 2 and 1 are good too."""
    said = policy(
        baseline=4, known_good=(4, 3, 2, 1), quarantine=(Quarantine(serial=5),), layers=layers(entry("r1", serial=5))
    )
    under, refused, unfit = changes.get("under", line()), changes.get("refused", ()), changes.get("unfit", ())
    return decide(said, under, Profile(CANARY, {}, frozenset(refused), frozenset(unfit)))


@pytest.mark.parametrize(
    ("here", "serial"),
    [
        ({}, 4),
        ({"unfit": (4,)}, 3),
        ({"refused": (4,)}, 3),
        ({"under": line(revoked=(4,))}, 3),
        ({"unfit": (4,), "refused": (3,)}, 2),
        ({"unfit": (4,), "under": line(revoked=(3, 2))}, 1),
        ({"unfit": (4, 3), "under": line(minimum_serial=3)}, None),
    ],
)
def test_each_device_goes_back_to_the_newest_good_version_that_it_can_run(
    here: dict[str, object], serial: int | None
) -> None:
    assert going_back(**here).serial == serial


@pytest.mark.parametrize(
    "path",
    [
        {"layers": layers(entry("again", serial=5))},
        {"layers": (*layers(entry("r1", end=0)), Layer(salt=7, entries=(entry("experiment", serial=5),)))},
        {"layers": layers(Entry(rollout="r1", arms=(arm("control", 0, BUCKETS, serial=5),)))},
        {"pins": (Pin(serial=5, devices=(CANARY,)),)},
        {"pins": (Pin(serial=5, selector=selector(chip="x1")),)},
        {"baseline": 5, "layers": ()},
        {"baseline": 6, "known_good": (5, 1), "quarantine": (Quarantine(serial=5), Quarantine(serial=6)), "layers": ()},
        {"overrides": (5,)},
    ],
)
@pytest.mark.parametrize("slice_of", [selector(), selector(chip="x1")])
def test_no_path_leads_back_to_a_version_that_was_taken_back(path: dict[str, Any], slice_of: Selector) -> None:
    """A new rollout, an experiment, a control's arm, pins, the baseline, known good ones, a device's own override."""
    entries = (*path.get("quarantine", ()), Quarantine(serial=5, selector=slice_of))
    said = policy(**{"layers": layers(entry("r1", serial=5))} | path | {"quarantine": entries})
    decision = ask(said, chip="x1")
    assert decision.serial == 1
    if not slice_of.everyone and "quarantine" not in path:
        assert ask(said, chip="x2").serial in {1, 5}
