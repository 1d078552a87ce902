"""What sessions say of a version on trial, and of one in the shadow."""

from typing import Any

from support.values import file
from whimbrel.agent.marks import Closed, Ended
from whimbrel.agent.session_results import shadow_crashes, trial_sessions
from whimbrel.device import events
from whimbrel.device.journal import Candidate
from whimbrel.health.shadow import ShadowSums

CANDIDATE = Candidate(serial=2, version="2026.01.01.2", slot="b", files=(file(),), policy_sequence=1, offered_at=0.0)


def closed(serial: int = 2, **changes: Any) -> Ended:
    return Ended("1-a", serial, Closed(serial=serial, **changes))


def crashed(serial: int = 2, *, crashes_before: int = 0) -> Ended:
    return Ended("1-b", serial, crashes_before=crashes_before)


def test_sessions_of_the_version_on_trial_speak_for_or_against_it() -> None:
    ended = [closed(), closed(inferences=3, errors=2), closed(failed=True), closed(inferences=3, errors=3)]
    assert trial_sessions(ended, CANDIDATE) == events.SessionsSeen(healthy=2, failed=1)


def test_sessions_of_other_versions_and_torn_summaries_say_nothing() -> None:
    assert trial_sessions([closed(1), crashed(1), Ended("1-c", None)], CANDIDATE) is None
    assert trial_sessions([], CANDIDATE) is None


def test_a_session_in_which_nothing_but_errors_came_is_neither_healthy_nor_failed() -> None:
    assert trial_sessions([closed(inferences=3, errors=3)], CANDIDATE) is None


def test_crashes_of_one_moment_are_one_event_and_those_of_a_loop_are_many() -> None:
    assert trial_sessions([crashed(), crashed()], CANDIDATE) == events.SessionsSeen(healthy=0, failed=1)
    loop = [crashed(), crashed(crashes_before=1), crashed(crashes_before=2)]
    assert trial_sessions(loop, CANDIDATE) == events.SessionsSeen(healthy=0, failed=3)
    assert trial_sessions([closed(failed=True), *loop], CANDIDATE) == events.SessionsSeen(healthy=0, failed=4)


def test_what_was_only_tried_beside_a_session_is_no_session_of_the_trial() -> None:
    assert trial_sessions([closed(session=False)], CANDIDATE) is None


def test_crashes_in_the_shadow_are_counted_against_the_version_that_was_tried() -> None:
    def tried(serial: int, count: int) -> Ended:
        return closed(1, session=False, shadow=ShadowSums(serial=serial, inputs=count, crashed=count))

    assert shadow_crashes([tried(2, 1), tried(2, 2), tried(3, 5), closed(1)], CANDIDATE) == events.ShadowSeen(crashed=3)
    assert shadow_crashes([tried(2, 0), tried(3, 5)], CANDIDATE) is None
    assert shadow_crashes([], CANDIDATE) is None
