"""A model comes with the documents that were signed for it, or not at all; its settings change field by field."""

from typing import Any

import msgspec
import pytest

from support.signed_roles import GOOD, InMemoryRoles
from support.values import SALT, T0, Town, line, town
from whimbrel.errors import Conflict, NotFound, UntrustedInput
from whimbrel.flows.publishing.add_model import add_model
from whimbrel.flows.publishing.change_settings import change_settings
from whimbrel.flows.records import ModelRecord, ModelSettings, NewConditions, NewSettings
from whimbrel.model.documents import convert, encode
from whimbrel.model.local_limits import LocalLimits
from whimbrel.policy.policy import Conditions


def added(here: Town, name: str = "sleep", *, roles: InMemoryRoles | None = None, **changes: Any) -> ModelRecord:
    values = {"targets": GOOD, "publisher": GOOD, "line": encode(line(model="sleep")), "salt": SALT} | changes
    return add_model(
        here.registry, roles or InMemoryRoles(), name, settings=ModelSettings(report_s=60), now=T0, **values
    )


def test_a_model_is_added_with_its_delegation_its_publisher_and_its_line() -> None:
    with town() as here:
        roles = InMemoryRoles()
        record = added(here, roles=roles)
        assert record == here.registry.model("sleep")
        assert (record.settings.report_s, record.baseline, record.created_at) == (60, None, T0)
        assert [role for role, _ in roles.accepted] == ["targets", "publisher-sleep"]
        assert roles.documents == {("publisher-sleep", "models/sleep/line.json"): encode(line(model="sleep"))}
        entry = here.registry.audit_log()[0]
        assert (entry.actor, entry.action, entry.model) == ("admin", "add model", "sleep")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"line": encode(line())}, UntrustedInput, "the line is of 'wake'; expected 'sleep'"),
        ({"line": b"{}"}, UntrustedInput, "the line cannot be read"),
        ({"targets": b"forged"}, UntrustedInput, "targets is not signed"),
        ({"publisher": b"forged"}, UntrustedInput, "publisher-sleep is not signed"),
        ({"name": "wake", "line": encode(line())}, Conflict, "exists already"),
    ],
)
def test_a_model_that_is_refused_leaves_no_entry(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with town() as here:
        with pytest.raises(error, match=words):
            added(here, **changes)
        assert here.registry.audit_log() == []


def test_settings_that_are_not_named_stay() -> None:
    with town() as here:
        change_settings(here.registry, "wake", NewSettings(refresh_s=60, size_bytes_max=7), now=T0)
        changes = NewSettings(size_bytes_max=None, conditions=NewConditions(start_jitter_s=5))
        after = change_settings(here.registry, "wake", changes, now=T0 + 1)
        assert after == ModelSettings(refresh_s=60, conditions=Conditions(start_jitter_s=5))
        assert here.registry.model("wake").settings == after
        entry = here.registry.audit_log()[0]
        assert (entry.action, entry.because, entry.at) == ("set model", "conditions, size_bytes_max", T0 + 1)
        assert entry.evidence == {"size_bytes_max": None, "conditions": {"start_jitter_s": 5}}


def test_each_condition_is_changed_alone() -> None:
    """`model set --start-jitter-s` took every other condition of the model away."""
    with town() as here:
        change_to(here, {"conditions": {"charging": True, "unmetered": True, "battery_min": 0.3}})
        change_to(here, {"conditions": {"start_jitter_s": 5}})
        change_to(here, {"conditions": {"unmetered": False, "battery_min": None}})
        change_to(here, {"refresh_s": 60})
        assert here.registry.model("wake").settings.conditions == Conditions(charging=True, start_jitter_s=5)
        with pytest.raises(UntrustedInput, match="battery_min"):
            change_to(here, {"conditions": {"battery_min": 30}})


def test_local_limits_are_set_taken_back_and_refused_where_they_make_no_sense() -> None:
    with town() as here:
        change_to(here, {"local_limits": {"crash_loop": 5, "accuracy_min": 0.8}})
        assert here.registry.model("wake").settings.local_limits == LocalLimits(crash_loop=5, accuracy_min=0.8)
        for wrong in ({"accuracy_min": 80}, {"crash_loop": -1}, {"on_failed_probe": "panic"}, {"errors": 0.1}):
            with pytest.raises(UntrustedInput, match="local_limits"):
                change_to(here, {"local_limits": wrong})
        change_to(here, {"local_limits": None})
        assert here.registry.model("wake").settings == ModelSettings()


def change_to(here: Town, settings: dict[str, Any]) -> None:
    change_settings(here.registry, "wake", convert(NewSettings, settings, what="the settings"), now=T0)


@pytest.mark.parametrize("setting", [{"unknown": 1}, {"refresh_s": -1}, {"refresh_s": "soon"}, {"metrics_min": 0.5}])
def test_a_setting_that_is_none_changes_nothing(setting: dict[str, Any]) -> None:
    with town() as here:
        with pytest.raises(UntrustedInput, match="the settings cannot be read"):
            change_to(here, {"report_s": 60, **setting})
        assert here.registry.model("wake").settings == ModelSettings()
        assert here.registry.audit_log() == []


def test_a_setting_may_go_back_to_its_default() -> None:
    with town() as here:
        change_settings(here.registry, "wake", NewSettings(on_revoked="stop", delta_bases=0), now=T0)
        after = change_settings(here.registry, "wake", NewSettings(on_revoked="keep"), now=T0 + 1)
        assert after == ModelSettings(delta_bases=0)
        assert here.registry.audit_log()[0].evidence == {"on_revoked": "keep"}


def test_each_setting_can_be_changed_within_the_same_bounds() -> None:
    for settings, changes in ((ModelSettings, NewSettings), (Conditions, NewConditions)):
        types = {field.name: field.type for field in msgspec.structs.fields(settings)}
        types |= {"conditions": NewConditions} if settings is ModelSettings else {}
        fields = msgspec.structs.fields(changes)
        assert {name: kind | msgspec.UnsetType for name, kind in types.items()} == {
            each.name: each.type for each in fields
        }
        assert all(field.default is msgspec.UNSET for field in fields)


def test_settings_of_no_model_are_refused() -> None:
    with town() as here, pytest.raises(NotFound, match="there is no model 'sleep'"):
        change_settings(here.registry, "sleep", NewSettings(), now=T0)
