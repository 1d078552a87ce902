"""What may be offered no more, and which artifacts are then forgotten."""

import pytest

from support.experiments import village
from support.values import T0, Town, file, rollout, town
from whimbrel.errors import NotFound, Refused
from whimbrel.flows.publishing.collect import forget_unheld
from whimbrel.flows.publishing.retire import retire
from whimbrel.flows.records import VersionRecord
from whimbrel.plan.rollout_states import State


def retired(here: Town, name: str, *, because: str = "a leak") -> VersionRecord:
    return retire(here.registry, here.stores.experiments, "wake", name=name, because=because, actor="ana", now=T0)


def test_a_version_is_retired_and_logged() -> None:
    with town() as here:
        version = retired(here, "2.0.0")
        assert version.retired
        assert version == here.registry.version("wake", 2)
        entry = here.registry.audit_log()[0]
        assert (entry.actor, entry.action, entry.because, entry.evidence) == ("ana", "retire", "a leak", {"serial": 2})
        retired(here, "2.0.0", because="")
        assert here.registry.audit_log()[0].because == "no reason given"


@pytest.mark.parametrize("name", ["1", "1.0.0", "2026.01.01.1"])
def test_the_baseline_is_not_retired(name: str) -> None:
    with town() as here, pytest.raises(Refused, match="is the baseline; roll another version out first"):
        retired(here, name)


@pytest.mark.parametrize("serial", [2, 3])
def test_both_versions_of_a_live_rollout_are_kept(serial: int) -> None:
    with town(versions=3, running=rollout(baseline=2, target=3)) as here:
        with pytest.raises(Refused, match="is part of rollout r1; abort it first"):
            retired(here, str(serial))
        assert not here.registry.version("wake", serial).retired


def test_a_rollout_that_ended_holds_no_version() -> None:
    with town(running=rollout(state=State.ABORTED, ended_at=T0)) as here:
        assert retired(here, "2").retired


def test_the_control_of_a_live_experiment_is_kept_and_an_arm_is_not() -> None:
    with village() as there:
        there.town.registry.change_model("wake", baseline=2)  # the control is version 1
        with pytest.raises(Refused, match="is the control of e1; stop it first"):
            retired(there.town, "1")
        there.town.registry.change_model("wake", baseline=1)
        assert retired(there.town, "2").retired


def test_what_is_no_version_is_not_retired() -> None:
    with town() as here, pytest.raises(NotFound, match=r"has no version .9\.9\.9."):
        retired(here, "9.9.9")


def test_an_artifact_is_forgotten_when_nothing_holds_it_and_once() -> None:
    with town() as here:
        spare = "b" * 64
        for digest in (file().sha256, spare):
            here.registry.add_artifact(digest, size_bytes=100, at=T0)
        forget = {"artifacts": here.registry, "patches": here.stores.deltas, "actor": "ana", "now": T0 + 2}
        assert not forget_unheld(**forget, digest=file().sha256, older_than=T0 + 1)  # the versions hold it
        assert not forget_unheld(**forget, digest=spare, older_than=T0)  # its version may still come
        assert forget_unheld(**forget, digest=spare, older_than=T0 + 1)
        assert not forget_unheld(**forget, digest=spare, older_than=T0 + 1)
        assert here.registry.artifact_size(spare) is None
        (entry,) = [each for each in here.registry.audit_log() if each.action == "collect_artifact"]
        assert (entry.actor, entry.evidence) == ("ana", {"sha256": spare, "size_bytes": 100})
        assert here.registry.artifact_size(file().sha256) == 100
