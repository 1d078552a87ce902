"""What an earlier policy said comes back, and nothing that a gate stopped does."""

from typing import Any

import msgspec
import pytest

from support.values import T0, Town, line, quarantined, rollout, town
from whimbrel.errors import Conflict, Refused
from whimbrel.flows.publishing.restore_policy import restore_policy
from whimbrel.flows.records import ModelSettings
from whimbrel.flows.render_policy import render_policy
from whimbrel.model.release import Line
from whimbrel.model.selector import Selector
from whimbrel.policy.policy import Conditions, Policy, Quarantine

OS = Selector(match_labels={"os": "15"})


def rendered(here: Town, *, sequence: int = 1) -> Policy:
    """The policy of the rows as they are."""
    registry = here.registry
    return render_policy(
        registry.model("wake"),
        versions=registry.versions("wake"),
        rollouts=registry.rollouts(unended=True),
        quarantine=registry.quarantines("wake"),
        sequence=sequence,
        overrides=registry.overridden("wake"),
    )


def restored(here: Town, wanted: Policy, *, held: Line | None = None, because: str = "") -> Policy:
    restore_policy(here.registry, "wake", wanted, lines=lambda _: held or line(), because=because, actor="ana", now=T0)
    return rendered(here, sequence=wanted.sequence)


def changed(here: Town, **settings: Any) -> None:
    held = here.registry.model("wake").settings
    here.registry.change_model("wake", settings=msgspec.structs.replace(held, **settings))


def test_settings_come_back_under_the_number_to_come() -> None:
    with town() as here:
        changed(here, conditions=Conditions(charging=True), refresh_s=120.0, report_labels=("region",))
        wanted = rendered(here)
        changed(here, conditions=Conditions(), refresh_s=999.0, report_labels=(), on_revoked="stop")
        assert restored(here, wanted, because="the new ones drained batteries") == wanted
        entry = here.registry.audit_log()[0]
        assert (entry.actor, entry.action, entry.because) == ("ana", "restore_policy", "the new ones drained batteries")
        assert entry.evidence["settings"] == ["conditions", "on_revoked", "refresh_s", "report_labels"]


def test_what_a_policy_does_not_say_stays_as_it_is() -> None:
    with town() as here:
        wanted = rendered(here)
        changed(here, size_bytes_max=10, on_revoked="stop")
        restored(here, wanted)
        assert here.registry.model("wake").settings == ModelSettings(size_bytes_max=10)


def test_another_baseline_is_gone_back_to_and_what_is_left_is_refused() -> None:
    with town() as here:
        here.registry.change_version("wake", 1, good=True)
        wanted = rendered(here)
        here.registry.change_model("wake", baseline=2)
        after = restored(here, wanted)
        assert (after.baseline, [entry.serial for entry in after.quarantine]) == (1, [2])
        assert [entry.action for entry in here.registry.audit_log()] == ["restore_policy", "roll_back"]


def test_no_quarantine_is_lifted_and_one_that_was_comes_back() -> None:
    with town(versions=3) as here:
        here.registry.quarantine(msgspec.structs.replace(quarantined(3), selector=OS))
        wanted = rendered(here)
        here.registry.lift_quarantines("wake", 3, at=T0)
        here.registry.quarantine(quarantined(2))
        after = restored(here, wanted)
        assert sorted(after.quarantine, key=lambda entry: entry.serial) == [
            Quarantine(serial=2),
            Quarantine(serial=3, selector=OS),
        ]


def test_a_version_that_was_stopped_since_does_not_become_the_baseline() -> None:
    with town() as here:
        here.registry.change_version("wake", 2, good=True)
        here.registry.change_model("wake", baseline=2)
        wanted = rendered(here)
        here.registry.change_model("wake", baseline=1)
        here.registry.quarantine(quarantined(2))
        with pytest.raises(Refused, match="was taken back itself"):
            restored(here, wanted)
        assert here.registry.model("wake").baseline == 1


def test_a_version_that_its_publisher_revoked_does_not_become_the_baseline() -> None:
    with town() as here:
        here.registry.change_version("wake", 1, good=True)
        wanted = rendered(here)
        here.registry.change_model("wake", baseline=2)
        with pytest.raises(Refused, match="revoked"):
            restored(here, wanted, held=line(revoked=(1,)))


def test_nothing_is_restored_while_something_rolls_out() -> None:
    with town(running=rollout()) as here:
        wanted = msgspec.structs.replace(rendered(here), on_revoked="stop")
        with pytest.raises(Refused, match=r"rollout r1 of wake is .*whimbrel rollout rollback r1"):
            restored(here, wanted)
        assert here.registry.audit_log() == []


def test_the_cadence_of_a_rollout_does_not_become_the_models_own() -> None:
    """Restored from a policy of that time, it made a fleet look every 30 s for ever."""
    with town(running=rollout()) as here:
        wanted = rendered(here)
        after = msgspec.structs.replace(wanted, layers=(), conditions=Conditions(idle=True))
    with town() as here:
        assert wanted.refresh_s < ModelSettings().refresh_s
        for policy in (msgspec.structs.replace(wanted, conditions=Conditions(charging=True)), after):
            restored(here, policy)
            assert here.registry.model("wake").settings.refresh_s == ModelSettings().refresh_s


def test_what_is_there_already_and_what_never_was_a_version_are_refused() -> None:
    with town() as here:
        with pytest.raises(Conflict, match="has what can be restored of sequence 1 already"):
            restored(here, rendered(here))
        with pytest.raises(Refused, match="had no baseline"):
            restored(here, msgspec.structs.replace(rendered(here), baseline=None))
