"""The table of a device's states, the step, and what is done after a restart."""

import itertools

import msgspec
import pytest

from whimbrel import limits
from whimbrel.device import effects, events
from whimbrel.device.journal import Candidate, GoingBack, Journal, Membership, Refusal
from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Content, Held
from whimbrel.device.states import NEXT, PREPARING, RESTING, State
from whimbrel.device.step import effects_of, step
from whimbrel.errors import IllegalTransition
from whimbrel.model.release import File
from whimbrel.policy.shadow import Shadow

FILE = File(name="model.onnx", size_bytes=4, sha256="a" * 64, format="onnx")
HELD = Held(
    slot="b", serial=2, version="2026.03.05.2", entry="model.onnx", contents=(Content(name="x", sha256="a" * 64),)
)
EVENTS: tuple[events.Event, ...] = (
    events.Offered(serial=2, version="2026.03.05.2", slot="b", files=(FILE,), policy_sequence=5, at=1.0, rollout="r"),
    events.Withdrawn(),
    events.Begun(),
    events.Fetched(bytes_moved=4),
    events.Corrupt("wrong hash"),
    events.InstallFailed("no"),
    events.Staged(HELD),
    events.ProbeBegun(),
    events.ProbePassed(),
    events.ProbeFailed("wrong answer"),
    events.Restarted(),
    events.Activated(at=9.0),
    events.SessionsSeen(healthy=1, failed=0),
    events.TrialPassed(),
    events.TrialFailed("crashes"),
    events.Recalled(to=1, leaves=2, reason="the baseline"),
    events.WentBack(to=1),
    events.Returned(),
    events.Emptied(),
    events.FallbackLost(),
    events.ShadowBegun(at=9.0),
    events.ShadowSeen(crashed=1),
    events.ShadowFailed("it crashes"),
    events.ShadowEnded(),
    events.LeftByItself(leaves=2, to=1, reason="it crashes", policy_sequence=5),
)
WAY = (0, 2, 3, 6, 7, 8, 11)  # from offered to on trial


def journal_in(state: State) -> Journal:
    candidate = Candidate(
        serial=2, version="2026.03.05.2", slot="b", files=(FILE,), policy_sequence=5, offered_at=1.0, held=HELD
    )
    going_back = GoingBack(leaves=2, to=1, by_policy=True, reason="x") if state is State.GOING_BACK else None
    return Journal(model="m", state=state, candidate=None if state in RESTING else candidate, going_back=going_back)


def after(*numbers: int, journal: Journal | None = None) -> Journal:
    journal = journal or Journal(model="m")
    for number in numbers:
        journal, _ = step(journal, EVENTS[number])
    return journal


def test_every_event_is_in_this_test() -> None:
    assert {type(event) for event in EVENTS} == set(events.Event.__subclasses__())


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, EVENTS)))
def test_pair_outside_of_the_table_is_refused_and_changes_nothing(state: State, event: events.Event) -> None:
    journal = journal_in(state)
    expected = NEXT.get((state, type(event)))
    if expected is None:
        with pytest.raises(IllegalTransition, match="it can take"):
            step(journal, event)
        assert journal == journal_in(state)
    else:
        assert step(journal, event)[0].state is expected


@pytest.mark.parametrize("state", State)
def test_every_state_is_reachable_and_has_a_way_on(state: State) -> None:
    assert state is State.IDLE or state in NEXT.values()
    assert any(before is state for before, _ in NEXT)


@pytest.mark.parametrize("state", sorted(PREPARING))
def test_a_version_that_is_not_active_can_be_withdrawn_at_any_time(state: State) -> None:
    assert step(journal_in(state), events.Withdrawn())[0].candidate is None


@pytest.mark.parametrize(("state", "event"), sorted(NEXT, key=str))
def test_a_restart_does_what_the_step_said(state: State, event: type[events.Event]) -> None:
    given = next(each for each in EVENTS if type(each) is event)
    journal, said = step(journal_in(state), given)
    assert effects_of(journal) == said


def test_on_the_whole_way_the_announcements_are_in_order() -> None:
    member = Membership(rollout="r", stage=0, role="treated", assigned_at=1.0)
    journal = after(*WAY, 13, journal=Journal(model="m", memberships=(member,)))
    assert journal.state is State.COMMITTED
    assert [(each.step, each.rollout, each.bytes_moved) for each in journal.outbox] == [
        ("begun", "r", 0),
        ("activated", "r", 4),
        ("committed", "r", 4),
    ]
    assert journal.memberships[0].since == 9.0


def test_a_failed_probe_is_told_and_refused() -> None:
    journal = after(*WAY[:5], 9)
    assert [(each.step, each.reason) for each in journal.outbox] == [("begun", ""), ("failed", "wrong answer")]
    assert [(each.serial, each.policy_sequence) for each in journal.refused] == [(2, 5)]


def test_a_device_that_stops_in_the_probe_again_and_again_gives_up() -> None:
    journal = after(*WAY[:4])
    for _ in range(limits.PROBE_ATTEMPTS):
        (effect,) = effects_of(journal)
        assert effect == effects.Then(events.ProbeBegun())
        journal = after(7, 10, journal=journal)
    (effect,) = effects_of(journal)
    assert isinstance(effect, effects.Then)
    journal, _ = step(journal, effect.event)
    assert journal.state is State.QUARANTINED


def test_bytes_that_are_wrong_again_and_again_are_tried_ever_later_and_refuse_nothing() -> None:
    """After five of them a good version was quarantined for ever, because of a network."""
    journal, waits = after(0), []
    for _ in range(20):
        assert isinstance(effects_of(journal)[0], effects.AwaitConditions)
        journal = after(2, journal=journal)
        journal, _ = step(journal, events.Corrupt("wrong hash", at=1000.0))
        assert journal.candidate is not None
        waits.append(journal.candidate.again_at - 1000.0)
    assert (journal.refused, [each.step for each in journal.outbox if each.step == "failed"]) == ((), [])
    assert waits[:4] == [0.0, 60.0, 120.0, 240.0]
    assert waits == sorted(waits)
    assert waits[-1] == limits.WRONG_BYTES_MOST_S


@pytest.mark.parametrize(
    ("healthy", "failed", "verdict"),
    [
        (limits.TRIAL_HEALTHY_SESSIONS, 0, events.TrialPassed),
        (limits.TRIAL_HEALTHY_SESSIONS, limits.TRIAL_FAILED_SESSIONS, events.TrialFailed),
        (0, limits.TRIAL_FAILED_SESSIONS, events.TrialFailed),
    ],
)
def test_a_trial_ends_by_its_sessions(healthy: int, failed: int, verdict: type[events.Event]) -> None:
    _, said = step(after(*WAY), events.SessionsSeen(healthy=healthy, failed=failed))
    assert [type(each.event) for each in said if isinstance(each, effects.Then)] == [verdict]


def test_a_trial_goes_on_while_nothing_is_known() -> None:
    assert effects_of(after(*WAY)) == (effects.PointTo(HELD),)


def test_going_back_by_itself_refuses_what_it_left() -> None:
    journal = after(*WAY, 14, 16)
    assert [each.serial for each in journal.refused] == [2]
    told = [(each.step, each.serial) for each in journal.outbox[-2:]]
    assert told == [("went_back", 2), ("activated", 1)], "what it left, and what runs now"


def test_going_back_by_the_policy_refuses_nothing() -> None:
    journal = after(*WAY, 15, 17)
    assert journal.refused == ()
    assert (journal.outbox[-1].step, journal.outbox[-1].serial, journal.outbox[-1].rollout) == ("activated", 1, None)


def test_what_waits_to_be_told_is_bounded() -> None:
    journal = Journal(model="m")
    for _ in range(limits.OUTBOX):
        journal = after(*WAY, 15, 17, journal=journal)
    assert len(journal.outbox) == limits.OUTBOX


def test_override_is_written_down_and_said() -> None:
    journal = Journal(
        model="m", state=State.COMMITTED, refused=(Refusal(serial=2, reason="it crashed", policy_sequence=3),)
    )
    offered = msgspec.structs.replace(EVENTS[0], policy_sequence=9, despite="it crashed")
    after_it, _ = step(journal, offered)
    assert [each.overridden_by for each in after_it.refused] == [9]
    assert after_it.outbox[-1].reason == "policy 9 overrides what was refused here: it crashed"


# --- the shadow ---

SHADOW = Shadowing(how=Shadow(sample_ppm=50_000))


def in_shadow() -> Journal:
    member = Membership(rollout="r", stage=0, role="treated", assigned_at=1.0)
    journal = after(*WAY[:-1], journal=Journal(model="m", memberships=(member,)))
    assert journal.candidate is not None
    ready = msgspec.structs.replace(journal, candidate=msgspec.structs.replace(journal.candidate, shadow=SHADOW))
    (effect,) = effects_of(ready)
    assert isinstance(effect, effects.BeginShadow)
    return step(ready, events.ShadowBegun(at=9.0))[0]


def test_a_version_that_is_to_be_tried_is_never_activated_and_its_device_is_counted_from_then_on() -> None:
    journal = in_shadow()
    assert effects_of(journal) == (effects.KeepShadow(journal.candidate),)
    assert [(each.step, each.rollout, each.serial) for each in journal.outbox][-1] == ("shadowing", "r", 2)
    assert journal.memberships[0].since == 9.0


def test_what_was_only_tried_is_ready_at_once_when_it_is_to_be_run() -> None:
    journal, said = step(in_shadow(), events.ShadowEnded())
    assert journal.state is State.READY
    assert [type(each) for each in said] == [effects.Activate]


def test_a_version_that_ends_its_worker_again_and_again_is_refused_and_that_is_told() -> None:
    journal = in_shadow()
    for _ in range(limits.SHADOW_CRASHES):
        journal, said = step(journal, events.ShadowSeen(crashed=1))
    (effect,) = said
    assert isinstance(effect, effects.Then)
    journal, _ = step(journal, effect.event)
    assert journal.state is State.QUARANTINED
    assert [each.serial for each in journal.refused] == [2]
    assert journal.outbox[-1].step == "failed"
    assert journal.outbox[-1].rollout == "r"
