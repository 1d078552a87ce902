"""A device takes a set as a whole, stays as a whole, and never ends with neither."""

from collections.abc import Mapping

import numpy as np
import pytest

from support.values import SALT, arm, devices_in, line, policy
from whimbrel import limits
from whimbrel.model.release import Requirement
from whimbrel.model.selector import EVERYONE
from whimbrel.policy.bucket import BUCKETS, device_key
from whimbrel.policy.decide import Profile
from whimbrel.policy.decide_many import Kind, decide_many
from whimbrel.policy.decide_set import Lacking, ModelToDecide, SetDecisions, decide_set, wanted
from whimbrel.policy.policy import Entry, Layer, Pin, Policy, Quarantine, SetLead

PAIR = {"encoder": "decoder", "decoder": "encoder"}
OTHER_SALT = 7
TREATED = devices_in(0, 50_000, 1)[0]


def both(model: str, serial: int) -> list[Requirement]:
    """Each serial of one requires the same serial of the other."""
    return [Requirement(model=PAIR[model], serial=serial)]


def one_way(model: str, serial: int) -> list[Requirement]:
    return both(model, serial) if model == "encoder" else []


def of(name: str, **changes: object) -> Policy:
    return policy(model=name, **changes)


def decided(
    device: str = TREATED,
    *,
    requires: object = both,
    active: Mapping[str, int] | None = None,
    profile: Mapping[str, dict[str, object]] | None = None,
    **policies: Policy,
) -> SetDecisions:
    models = {
        name: ModelToDecide(
            each, line(model=name), Profile(device, **(profile or {}).get(name, {})), (active or {}).get(name)
        )
        for name, each in policies.items()
    }
    return decide_set(models, requires)


def pair(decisions: SetDecisions) -> tuple[int | None, int | None]:
    return decisions.decisions["encoder"].serial, decisions.decisions["decoder"].serial


def test_a_device_in_the_canary_of_both_takes_both() -> None:
    assert pair(decided(encoder=of("encoder"), decoder=of("decoder"))) == (2, 2)


@pytest.mark.parametrize("requires", [both, one_way])
@pytest.mark.parametrize("active", [{}, {"encoder": 1, "decoder": 1}])
def test_a_device_in_the_canary_of_one_stays_on_the_old_pair(requires: object, active: dict[str, int]) -> None:
    """Two canaries with two salts: a fresh device waited for the other of each for ever, and ended with neither."""
    apart = Layer(OTHER_SALT, policy().layers[0].entries)
    both_ways = 0
    for device in devices_in(0, BUCKETS, 400):
        alone = decided(
            device, requires=requires, active=active, encoder=of("encoder"), decoder=of("decoder", layers=(apart,))
        )
        assert pair(alone) in ({(1, 1), (2, 2)} if requires is both else {(1, 1), (2, 2), (1, 2)})
        both_ways += pair(alone) == (2, 2)
    assert both_ways < 10  # a twentieth of a twentieth: such a canary of a set is nearly empty


def test_a_set_with_one_salt_never_splits() -> None:
    carried = Layer(SALT, policy().layers[0].entries)
    own = Layer(OTHER_SALT)
    for device in devices_in(0, BUCKETS, 400):
        answer = decided(device, encoder=of("encoder"), decoder=of("decoder", layers=(carried, own)))
        assert answer.left_out == frozenset()
        assert pair(answer) == ((2, 2) if answer.decisions["encoder"].assignments[0].role == "treated" else (1, 1))


def test_many_devices_are_in_the_same_arm_of_every_member() -> None:
    keys = np.array([device_key(each) for each in devices_in(0, BUCKETS, 500)], dtype=np.uint64)
    kind = np.zeros(len(keys), dtype=np.int64)
    carried = of("decoder", layers=(Layer(SALT, policy().layers[0].entries), Layer(OTHER_SALT)))
    serials = [
        [many.decisions[which].serial for which in many.which]
        for many in (decide_many(each, line(), keys, kind, [Kind()]) for each in (of("encoder"), carried))
    ]
    assert serials[0] == serials[1]
    assert 2 in serials[0]


@pytest.mark.parametrize("why", ["refused", "unfit"])
@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_where_one_of_a_set_cannot_run_the_whole_set_stays(which: str, why: str) -> None:
    answer = decided(encoder=of("encoder"), decoder=of("decoder"), profile={which: {why: frozenset({2})}})
    assert pair(answer) == (1, 1)
    other = answer.lacking(PAIR[which])
    assert other is not None
    assert other.words == f"{which} at serial 2"
    assert f"without {which} at serial 2, which it requires" in answer.decisions[PAIR[which]].because


def test_of_several_versions_that_were_left_out_the_newest_is_told() -> None:
    left_out = frozenset(
        Lacking(model, serial, Requirement(model="voice", serial=serial + 10))
        for model, serial in (("encoder", 2), ("encoder", 3), ("decoder", 9))
    )
    newest = SetDecisions({}, left_out).lacking("encoder")
    assert newest is not None
    assert (newest.serial, newest.words) == (3, "voice at serial 13")
    assert SetDecisions({}, left_out).lacking("voice") is None


def test_a_version_wants_what_it_requires_and_the_leads_of_its_sets() -> None:
    models = {
        name: ModelToDecide(each, line(model=name), Profile(TREATED))
        for name, each in {
            "encoder": of("encoder"),
            "voice": of("voice"),
            "decoder": of(
                "decoder",
                set_leads=(
                    SetLead(serial=2, model="encoder", lead_serial=2),
                    SetLead(serial=3, model="encoder", lead_serial=3),
                    SetLead(serial=2, model="voice", lead_serial=4),
                    SetLead(serial=2, model="absent", lead_serial=2),
                ),
            ),
        }.items()
    }
    encoder, voice = Requirement(model="encoder", serial=2), Requirement(model="voice", serial=4)
    assert wanted(models, "decoder", 2, ()) == (encoder, voice)
    assert wanted(models, "decoder", 9, ()) == ()
    own = Requirement(model="encoder", serial=1)
    assert wanted(models, "decoder", 2, (own,)) == (own, voice)  # what the release says goes before the policy
    unknown = {"decoder": ModelToDecide(None, None, Profile(TREATED))}
    assert wanted(unknown, "decoder", 2, (own,)) == (own,)


@pytest.mark.parametrize(
    ("active", "offered", "mixes"),
    [
        (1, 2, True),
        (1, None, True),
        (2, 2, True),
        (3, 2, False),
        (None, 2, True),
        (2, None, True),
        (None, None, False),
        (1, 3, False),
    ],
)
def test_a_lead_is_wanted_where_the_device_has_and_is_offered_no_later_one(
    active: int | None, offered: int | None, mixes: bool
) -> None:
    lead = of("encoder", layers=(), baseline=offered, known_good=())
    models = {
        "encoder": ModelToDecide(lead, line(), Profile(TREATED), active),
        "decoder": ModelToDecide(led(), line(), Profile(TREATED)),
    }
    assert bool(wanted(models, "decoder", 2, ())) is mixes


def test_the_lead_of_a_model_without_policy_or_line_is_not_wanted() -> None:
    decoder = ModelToDecide(led(), line(), Profile(TREATED))
    for lead in (
        ModelToDecide(None, line(), Profile(TREATED), 2),
        ModelToDecide(of("encoder"), None, Profile(TREATED), 2),
    ):
        assert wanted({"encoder": lead, "decoder": decoder}, "decoder", 2, ()) == ()


def test_a_model_without_a_line_is_not_decided() -> None:
    models = {
        "encoder": ModelToDecide(of("encoder"), None, Profile(TREATED), active=1),
        "decoder": ModelToDecide(None, line(), Profile(TREATED), active=1),
    }
    assert decide_set(models, both) == SetDecisions({})


def test_of_three_that_require_each_other_none_moves_alone() -> None:
    """a requires b, b requires c: where c cannot move, neither can the others; c's failure is told of b alone."""
    chain = {"a": "b", "b": "c"}

    def requires(model: str, serial: int) -> list[Requirement]:
        return [Requirement(model=chain[model], serial=serial)] if model in chain else []

    models = {name: ModelToDecide(of(name), line(), Profile(TREATED)) for name in "abc"}
    assert {name: each.serial for name, each in decide_set(models, requires).decisions.items()} == dict.fromkeys(
        "abc", 2
    )
    models["c"] = ModelToDecide(of("c"), line(), Profile(TREATED, refused=frozenset({2})))
    answer = decide_set(models, requires)
    assert {name: each.serial for name, each in answer.decisions.items()} == dict.fromkeys("abc", 1)
    assert {(each.model, each.words) for each in answer.left_out} == {("a", "b at serial 2"), ("b", "c at serial 2")}


def test_a_try_that_keeps_a_version_for_a_sets_sake_is_passed_over_for_the_next() -> None:
    """The decoder has nothing to go back to, so leaving its 2 out is no answer; leaving the encoder's 1 out is."""
    ahead = decided(
        encoder=of("encoder", layers=(), known_good=(1, 2)),
        decoder=of("decoder", layers=(), baseline=2, known_good=()),
    )
    assert pair(ahead) == (2, 2)
    assert {(each.model, each.serial) for each in ahead.left_out} == {("encoder", 1)}


def test_a_model_that_runs_nothing_leaves_the_others_their_requirements() -> None:
    def only_the_new(model: str, serial: int) -> list[Requirement]:
        return both(model, serial) if serial == 2 else []

    none = of("decoder", baseline=None, known_good=(), layers=())
    assert pair(decided(requires=only_the_new, encoder=of("encoder"), decoder=none)) == (1, None)


def test_the_first_requirement_that_is_not_met_is_told() -> None:
    def three(model: str, serial: int) -> list[Requirement]:
        names = {2: [("decoder", 2), ("voice", 5), ("face", 6)]}.get(serial, []) if model == "encoder" else []
        return [Requirement(model=name, serial=number) for name, number in names]

    answer = decided(requires=three, encoder=of("encoder"), decoder=of("decoder"))
    lacking = answer.lacking("encoder")
    assert lacking is not None
    assert (lacking.serial, lacking.words) == (2, "voice at serial 5")


def test_a_search_that_is_too_wide_ends_with_each_model_decided_alone() -> None:
    """Twelve models whose baselines all lack something: the combinations are more than are looked at."""
    asked = 0

    def impossible(model: str, serial: int) -> list[Requirement]:
        nonlocal asked
        asked += 1
        return [Requirement(model="absent", serial=serial)]

    names = [f"m{n:02}" for n in range(12)]
    many = policy(layers=(), baseline=9, known_good=tuple(range(9, 0, -1)))
    answer = decide_set({name: ModelToDecide(many, line(), Profile(TREATED)) for name in names}, impossible)
    assert {each.serial for each in answer.decisions.values()} == {9}
    assert answer.left_out == frozenset()
    assert asked == limits.SET_TRIES * len(names)


def test_a_quarantine_of_one_takes_the_other_back_too() -> None:
    refused = of("decoder", quarantine=(Quarantine(serial=2, selector=EVERYONE),))
    active = {"encoder": 2, "decoder": 2}
    assert pair(decided(encoder=of("encoder"), decoder=refused, active=active)) == (1, 1)


def test_a_pin_of_one_of_a_set_pins_nothing() -> None:
    alone = of("encoder", layers=(), pins=(Pin(serial=2, devices=(TREATED,)),))
    assert pair(decided(encoder=alone, decoder=of("decoder", layers=()))) == (1, 1)


def test_baselines_that_do_not_go_together_fall_back_to_the_pair_before() -> None:
    ahead = of("encoder", layers=(), baseline=2, known_good=(2, 1))
    assert pair(decided(encoder=ahead, decoder=of("decoder", layers=()))) == (1, 1)


def test_nothing_is_kept_for_a_sets_sake() -> None:
    """The encoder's policy takes 2 back, and the decoder has nothing to go back to in its own: both are asked alone."""
    back = decided(
        encoder=of("encoder", layers=(), known_good=()),
        decoder=of("decoder", layers=(), baseline=2, known_good=()),
        active={"encoder": 2, "decoder": 2},
    )
    assert pair(back) == (1, 2)
    assert back.left_out == frozenset()


def test_a_model_without_a_policy_counts_as_it_runs() -> None:
    models = {
        "encoder": ModelToDecide(of("encoder"), line(), Profile(TREATED)),
        "decoder": ModelToDecide(None, None, Profile(TREATED), active=2),
    }
    assert decide_set(models, both).decisions["encoder"].serial == 2


def test_a_version_that_requires_a_model_which_the_device_does_not_follow_is_not_taken() -> None:
    def only_the_new(model: str, serial: int) -> list[Requirement]:
        return both(model, serial) if serial == 2 else []

    assert decided(requires=only_the_new, encoder=of("encoder")).decisions["encoder"].serial == 1


def test_a_first_set_that_cannot_run_leaves_both_without() -> None:
    entry = Entry(rollout="r1", arms=(arm("treated", 0, BUCKETS, serial=1),))
    first = {"baseline": None, "known_good": (), "layers": (Layer(SALT, (entry,)),)}
    unfit = {"decoder": {"unfit": frozenset({1})}}
    assert pair(decided(encoder=of("encoder", **first), decoder=of("decoder", **first), profile=unfit)) == (None, None)


def led(**changes: object) -> Policy:
    """The decoder's policy: its serial 2 came in a set that serial 2 of the encoder led."""
    return of("decoder", set_leads=(SetLead(serial=2, model="encoder", lead_serial=2),), **changes)


def none_required(model: str, serial: int) -> list[Requirement]:
    return [Requirement(model="decoder", serial=2)] if (model, serial) == ("encoder", 2) else []


@pytest.mark.parametrize("why", ["refused", "unfit"])
@pytest.mark.parametrize("active", [{}, {"encoder": 1, "decoder": 1}, {"encoder": 1, "decoder": 2}])
@pytest.mark.parametrize("changes", [{}, {"baseline": 2, "layers": (), "known_good": (2, 1)}])
def test_a_member_that_requires_nothing_goes_nowhere_without_its_lead(
    why: str, active: dict[str, int], changes: dict[str, object]
) -> None:
    """The encoder failed on the device, and the decoder of its set ran there beside the old encoder for ever."""
    lead = of("encoder", known_good=(1,))
    failing = {"encoder": {why: frozenset({2})}}
    answer = decided(
        requires=none_required,
        active=active,
        profile=failing,
        encoder=lead,
        decoder=led(**{"known_good": (1,)} | changes),
    )
    assert pair(answer) == (1, 1)
    without_leads = decided(
        requires=none_required, active=active, profile=failing, encoder=lead, decoder=of("decoder", **changes)
    )
    assert pair(without_leads) == (1, 2)


def test_a_set_with_its_lead_is_taken_whole() -> None:
    assert pair(decided(requires=none_required, encoder=of("encoder"), decoder=led())) == (2, 2)


def test_a_later_version_of_the_lead_needs_no_member_of_an_earlier_set() -> None:
    later = of("encoder", layers=(), baseline=3)
    decoder = led(layers=(), baseline=2)
    assert pair(decided(requires=none_required, encoder=later, decoder=decoder)) == (3, 2)
    running = {"encoder": 3, "decoder": 2}
    assert pair(decided(requires=none_required, active=running, encoder=later, decoder=decoder)) == (3, 2)


def test_where_no_version_of_the_lead_can_run_its_member_runs_alone() -> None:
    nowhere = {"encoder": {"unfit": frozenset({1, 2})}}
    assert pair(decided(requires=none_required, profile=nowhere, encoder=of("encoder"), decoder=led())) == (None, 2)


def test_a_member_of_a_lead_that_the_device_does_not_follow_runs_alone() -> None:
    assert decided(requires=none_required, decoder=led()).decisions["decoder"].serial == 2


def test_a_version_that_must_go_is_not_kept_for_the_lead_of_a_set() -> None:
    """The decoder's version before is in quarantine: the new one is the only one, and better than none."""
    only = led(baseline=2, layers=(), quarantine=(Quarantine(serial=1, selector=EVERYONE),), known_good=(2, 1))
    failing = {"encoder": {"refused": frozenset({2})}}
    active = {"encoder": 1, "decoder": 1}
    answer = decided(requires=none_required, active=active, profile=failing, encoder=of("encoder"), decoder=only)
    assert pair(answer) == (1, 2)
