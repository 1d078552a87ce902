"""Versions that require each other roll out as one: one salt, one share, one verdict."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from support.values import HOUR, SALT, T0, Town, cell, model, plan, release, stage, town, version
from whimbrel.errors import Conflict, Refused
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.check_plan import check_plan
from whimbrel.flows.rollouts.move import PersonMove, move_by_person
from whimbrel.flows.rollouts.progress import follow
from whimbrel.flows.rollouts.rollout_set import members_of, set_of
from whimbrel.flows.rollouts.start import begin_or_wait, start_rollout
from whimbrel.model.documents import encode
from whimbrel.model.release import File, Requirement, Variant
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import State
from whimbrel.policy.policy import Policy, SetLead

PAIR = ("decoder", "encoder")


def publish(here: Town, name: str, serial: int, requires: Sequence[tuple[str, int]], **changes: object) -> None:
    needs = tuple(Requirement(model=other, serial=needed) for other, needed in requires)
    record = version(serial, model=name, **changes)
    document = release(serial, model=name, requires=needs)
    here.registry.add_version(record, release=encode(document), digests=document.digests)


@pytest.fixture
def here() -> Iterator[Town]:
    """An encoder and a decoder at 1, whose 2 require each other."""
    with town(versions=0) as made:
        made.registry.change_model("wake", baseline=None)
        for n, (name, other) in enumerate((PAIR, PAIR[::-1])):
            made.registry.add_model(model(name=name, salt=SALT + n))
            publish(made, name, 1, [])
            publish(made, name, 2, [(other, 2)])
        yield made


def planned(*stages: object, **changes: object) -> Plan:
    return plan(*stages, model_version="encoder@2.0.0", **changes)


def start(here: Town, asked: Plan | None = None, **changes: object) -> RolloutRecord:
    values = {"plan_text": "text", "tag": "abcdef", "hour_s": HOUR, "actor": "me", "now": T0} | changes
    return start_rollout(here.registry, here.fleet, asked or planned(), **values)


def moved(here: Town, lead: RolloutRecord, to: PersonMove) -> RolloutRecord:
    return move_by_person(here.registry, here.fleet, lead.id, to, because="", actor="me", now=T0 + 9)


def policy_of(here: Town, name: str) -> Policy:
    return render_policy(
        here.registry.model(name),
        versions=here.registry.versions(name),
        rollouts=here.registry.rollouts(model=name, unended=True),
        quarantine=here.registry.quarantines(name),
        sequence=1,
        set_leads=here.registry.set_leads(name),
    )


def states(here: Town, lead: RolloutRecord) -> set[tuple[State, int, tuple[int, ...]]]:
    return {(each.state, each.stage, each.shares) for each in set_of(here.registry, here.registry.rollout(lead.id))}


def test_a_rollout_carries_what_its_version_requires(here: Town) -> None:
    lead = start(here)
    (member,) = members_of(here.registry, lead)
    assert (member.model, member.baseline, member.target, member.lead) == ("decoder", 1, 2, lead.id)
    assert (member.shares, member.salt, member.state) == (lead.shares, SALT + 1, State.ADVANCING)
    assert (lead.model, lead.salt, lead.lead) == ("encoder", None, "")
    assert lead.plan.alpha == member.plan.alpha == planned().alpha / 2


def test_the_policies_of_a_set_name_one_salt_and_the_same_buckets(here: Town) -> None:
    start(here)
    ours, theirs = policy_of(here, "encoder").layers[0], policy_of(here, "decoder").layers[0]
    assert ours.salt == theirs.salt == SALT + 1
    arms = [[(a.role, a.stage, a.start, a.end, a.serial) for a in layer.entries[0].arms] for layer in (ours, theirs)]
    assert arms[0] == arms[1]


def test_a_set_is_one_in_every_move(here: Town) -> None:
    lead = start(here)
    for at in (1, 2):
        follow(here.registry, here.fleet, here.registry.rollout(lead.id), published=True, now=T0 + at)
        assert len(states(here, lead)) == 1
    moved(here, lead, "pause")
    assert states(here, lead) == {(State.PAUSED, 0, lead.shares)}
    moved(here, lead, "resume")
    moved(here, lead, "finish")
    assert [here.registry.model(name).baseline for name in PAIR] == [2, 2]
    assert all(policy_of(here, name).layers[0].entries == () for name in PAIR)


def test_a_person_who_names_a_member_moves_the_set(here: Town) -> None:
    lead = start(here)
    (member,) = members_of(here.registry, lead)
    moved(here, member, "rollback")
    assert {each.state for each in set_of(here.registry, member)} == {State.ROLLING_BACK}
    assert [[entry.serial for entry in here.registry.quarantines(name)] for name in PAIR] == [[2], [2]]
    actions = [(entry.action, entry.rollout) for entry in here.registry.audit_log()]
    assert actions[:2] == [("move_with_set", member.id), ("roll_back", lead.id)]


def harmed(here: Town, rollout: str, *, crashed: int) -> None:
    cells = [
        (
            cell("treated", w, n=100, crashed=crashed),
            cell("control", w, n=1900, crashed=19 * crashed if crashed < 9 else 19),
        )
        for w in range(10)
    ]
    here.fleet.tally(rollout, [each for two in cells for each in two])


@pytest.mark.parametrize("bad", PAIR)
def test_harm_in_one_of_a_set_takes_all_back(here: Town, bad: str) -> None:
    lead = start(here)
    for each in set_of(here.registry, lead):
        harmed(here, each.id, crashed=40 if each.model == bad else 1)
    follow(here.registry, here.fleet, lead, published=True, now=T0 + 1)
    verdict = advance(here.registry, here.fleet, here.registry.rollout(lead.id), now=T0 + 3600)
    assert verdict.move == "roll_back"
    assert verdict.because.startswith(f"{bad}: harm is proven: crash")
    assert states(here, lead) == {(State.ROLLING_BACK, 0, lead.shares)}
    assert [[entry.serial for entry in here.registry.quarantines(name)] for name in PAIR] == [[2], [2]]


def test_a_member_is_judged_with_its_lead_alone(here: Town) -> None:
    lead = start(here)
    (member,) = members_of(here.registry, lead)
    harmed(here, member.id, crashed=40)
    assert advance(here.registry, here.fleet, member, now=T0 + 3600).move == "wait"
    assert here.registry.rollout(member.id) == member
    assert follow(here.registry, here.fleet, member, published=True, now=T0 + 1) is member


def test_a_set_that_waits_carries_nothing_before_it_begins(here: Town) -> None:
    lead = start(here, draft=True)
    assert lead.members == ()
    begun = begin_or_wait(here.registry, here.fleet, lead, actor="me", now=T0 + 1)
    assert [each.model for each in members_of(here.registry, begun)] == ["decoder"]


def test_whatever_lives_of_any_of_its_models_is_in_its_way(here: Town) -> None:
    publish(here, "decoder", 3, [("encoder", 1)], version="2026.01.01.3", semantic_version="3.0.0")
    other = start(here, plan(stage(), model_version="decoder@3.0.0", range_percent=(90, 100)), tag="other1")
    assert other.members == ()
    with pytest.raises(Conflict, match="of decoder is advancing; end that one first"):
        start(here)
    queued = start(here, planned(on_running="queue"))
    assert (queued.state, queued.members) == (State.QUEUED, ())


def test_nothing_of_a_member_begins_while_its_set_lives(here: Town) -> None:
    publish(here, "decoder", 3, [("encoder", 1)], version="2026.01.01.3", semantic_version="3.0.0")
    start(here, planned(range_percent=(0, 10)))
    with pytest.raises(Conflict, match="rollout decoder-2-abcdef of decoder is advancing"):
        start(here, plan(stage(), model_version="decoder@3.0.0", range_percent=(90, 100)), tag="other1")


def test_a_required_version_that_is_not_there_is_refused(here: Town) -> None:
    publish(here, "encoder", 3, [("decoder", 9)], version="2026.01.01.3", semantic_version="3.0.0")
    with pytest.raises(Refused, match="encoder at serial 3 requires decoder at serial 9, and decoder has no version"):
        start(here, plan(model_version="encoder@3.0.0"))


def test_a_set_that_contradicts_itself_is_refused(here: Town) -> None:
    publish(here, "encoder", 3, [("decoder", 2)], version="2026.01.01.3", semantic_version="3.0.0")
    with pytest.raises(Refused, match=r"decoder at serial 2 requires encoder at serial 2, and the set .* has serial 3"):
        start(here, plan(model_version="encoder@3.0.0"))


def test_a_version_that_breaks_the_set_that_devices_run_is_refused(here: Town) -> None:
    """The encoder that runs requires decoder 2: a decoder alone left it with one that it cannot use."""
    moved(here, start(here), "finish")
    publish(here, "decoder", 3, [], version="2026.01.01.3", semantic_version="3.0.0")
    with pytest.raises(
        Refused, match="encoder at serial 2, which devices run, requires decoder at serial 2; publish a"
    ):
        start(here, plan(model_version="decoder@3.0.0"))


def test_a_member_that_was_taken_back_is_refused_and_offered_again_with_a_reason(here: Town) -> None:
    moved(here, start(here), "rollback")
    with pytest.raises(Refused, match="was taken back before"):
        start(here, tag="again1")
    again = start(here, tag="again2", override="the harness was wrong")
    assert all(here.registry.quarantines(name) == [] for name in PAIR)
    assert [each.override for each in set_of(here.registry, again)] == ["the harness was wrong"] * 2


def test_a_device_that_one_of_the_set_does_not_fit_counts_for_nothing(here: Town) -> None:
    here.registry.change_model("encoder", settings=msgspec.structs.replace(model().settings, report_labels=("soc",)))
    here.registry.change_model("decoder", settings=msgspec.structs.replace(model().settings, report_labels=("soc",)))
    large = Variant(
        name="large",
        files=(File(name="m", size_bytes=1, sha256="b" * 64, format="onnx"),),
        selector=msgspec.convert({"match_labels": {"soc": "big"}}, type=type(release().variants[0].selector)),
    )
    record = version(3, model="decoder", version="2026.01.01.3", semantic_version="3.0.0")
    document = release(3, model="decoder", variants=(large,), requires=(Requirement(model="encoder", serial=3),))
    here.registry.add_version(record, release=encode(document), digests=document.digests)
    publish(here, "encoder", 3, [("decoder", 3)], version="2026.01.01.3", semantic_version="3.0.0")
    here.enrol("small-1", labels={"soc": "small"}, models=PAIR)
    here.enrol("big-1", labels={"soc": "big"}, models=PAIR)
    told = check_plan(here.registry, here.fleet, plan(stage("all", 100), model_version="encoder@3.0.0"), now=T0)
    assert [each.devices for each in told.stages] == [1]
    assert told.sentences[0].startswith(
        "It is one of a set, and carries what it requires: decoder 2026.01.01.3 (3.0.0)"
    )


def test_the_policy_of_a_member_names_its_lead_also_when_the_rollout_is_over(here: Town) -> None:
    """Where the lead failed on a device, the member that requires nothing ran there beside the lead's old version."""
    named = (SetLead(serial=2, model="encoder", lead_serial=2),)
    assert policy_of(here, "decoder").set_leads == ()
    lead = start(here)
    assert policy_of(here, "decoder").set_leads == named
    assert policy_of(here, "encoder").set_leads == ()
    for stopped in set_of(here.registry, lead):
        ended = msgspec.structs.replace(stopped, state=State.COMPLETED, ended_at=T0)
        here.registry.save_rollout(ended, before=stopped)
    assert policy_of(here, "decoder").set_leads == ()  # nobody is offered it: it never became the baseline here
    here.registry.change_model("decoder", baseline=2)
    assert policy_of(here, "decoder").set_leads == named
