"""Who signs which paths and for how long: every role, path and life is written down."""

from datetime import timedelta

import pytest

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.trust import roles
from whimbrel.trust.role_keys import RoleKeys, expiry_warning, key_changes

DAY = 86400.0
NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("role", "offline", "servers", "life"),
    [
        ("root", True, False, timedelta(days=730)),
        ("targets", True, False, timedelta(days=730)),
        ("publisher-wake", True, False, timedelta(days=730)),
        ("snapshot", False, True, timedelta(days=30)),
        ("timestamp", False, True, timedelta(hours=24)),
        ("policy-wake", False, True, timedelta(days=90)),
        ("floor-wake", False, False, timedelta(days=90)),
    ],
)
def test_each_role_is_signed_by_people_or_by_a_server_and_lives_its_time(
    role: str, offline: bool, servers: bool, life: timedelta
) -> None:
    assert (roles.is_offline(role), roles.is_servers(role), roles.life_of(role)) == (offline, servers, life)


def test_a_timestamp_is_signed_anew_long_before_it_ends() -> None:
    assert timedelta(hours=1) == roles.TIMESTAMP_RENEWAL < roles.TIMESTAMP_LIFE


def test_names_of_roles_lead_back_to_their_model_and_to_no_other() -> None:
    assert roles.publisher_role("wake") == "publisher-wake"
    assert roles.policy_role("wake") == "policy-wake"
    assert roles.floor_role("wake") == "floor-wake"
    assert [roles.published_model(role) for role in ("publisher-wake", "policy-wake", "root")] == ["wake", None, None]
    assert [roles.model_of_floor(role) for role in ("floor-wake", "publisher-wake", "targets")] == ["wake", None, None]


def test_each_delegated_role_signs_the_paths_of_its_model_alone() -> None:
    assert roles.paths_of("publisher-wake") == ["models/wake/*"]
    assert roles.paths_of("policy-wake") == ["policy/wake.json", "deltas/wake/*"]
    assert roles.paths_of("floor-wake") == ["floors/wake.json"]
    assert [roles.paths_of(role) for role in ("root", "snapshot", "wake", "publisher")] == [None] * 4


def test_documents_lie_where_their_role_signs() -> None:
    assert roles.release_path("wake", 7) == "models/wake/7.json"
    assert roles.line_path("wake") == "models/wake/line.json"
    assert roles.deltas_path("wake", 7) == "deltas/wake/7.json"
    assert roles.policy_path("wake") == "policy/wake.json"
    assert roles.floor_path("wake") == "floors/wake.json"


@pytest.mark.parametrize(
    "name",
    [
        roles.publisher_role,
        roles.policy_role,
        roles.floor_role,
        roles.publisher_paths,
        roles.policy_paths,
        roles.floor_path,
    ],
)
def test_what_is_no_name_of_a_model_makes_no_role_and_no_path(name) -> None:
    for text in ("", "../x", "a/b", "*"):
        with pytest.raises((ValueError, UntrustedInput)):
            name(text)


# --- changes of keys ---

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (RoleKeys((A,), 1), RoleKeys((A,), 1), []),
        (RoleKeys((A,), 1), RoleKeys((B,), 1), ["key aaaaaaaa is removed", "key bbbbbbbb is added"]),
        (RoleKeys((A,), 1), RoleKeys((A, B), 1), ["key bbbbbbbb is added"]),
        (RoleKeys((A, B), 2), RoleKeys((B,), 1), ["key aaaaaaaa is removed", "1 of 1 keys must sign, 2 before"]),
        (RoleKeys((A, B), 1), RoleKeys((A, B), 2), ["2 of 2 keys must sign, 1 before"]),
        (RoleKeys((A, B), 1), RoleKeys((B, A), 1), ["its keys are in another order"]),
        (None, RoleKeys((A,), 1), ["is delegated anew", "key aaaaaaaa is added"]),
        (RoleKeys((A,), 1), None, ["is delegated no more"]),
    ],
)
def test_a_change_of_keys_is_told_in_sentences(
    before: RoleKeys | None, after: RoleKeys | None, words: list[str]
) -> None:
    one, other = ({} if keys is None else {"root": keys} for keys in (before, after))
    assert key_changes(one, other) == [f"root: {each}" for each in words]


def test_the_same_change_of_many_roles_is_one_sentence() -> None:
    def keys(number: int, key: str) -> dict[str, RoleKeys]:
        return {f"policy-m{index}": RoleKeys((key,), 1) for index in range(number)}

    assert key_changes(keys(2, A), keys(2, B))[0] == "policy-m0, policy-m1: key aaaaaaaa is removed"
    assert key_changes(keys(3, A), keys(3, B))[0] == "policy-m0, policy-m1, policy-m2: key aaaaaaaa is removed"
    assert key_changes(keys(5, A), keys(5, B)) == [
        "policy-m0, policy-m1, policy-m2 and 2 more: key aaaaaaaa is removed",
        "policy-m0, policy-m1, policy-m2 and 2 more: key bbbbbbbb is added",
    ]


def test_roles_are_told_in_the_order_of_the_new_ones_and_those_that_go_last() -> None:
    before = {"gone": RoleKeys((A,), 1), "kept": RoleKeys((A,), 1)}
    after = {"kept": RoleKeys((B,), 1), "new": RoleKeys((C,), 1)}
    assert [sentence.partition(":")[0] for sentence in key_changes(before, after)] == [
        "kept",
        "kept",
        "new",
        "new",
        "gone",
    ]


def test_as_many_keys_as_the_threshold_says_are_enough_and_others_do_not_count() -> None:
    two = RoleKeys((A, B), 2)
    assert two.signed_by({A, B}) is True
    assert two.signed_by({A, B, C}) is True
    assert two.signed_by({A, C}) is False
    assert two.signed_by(set()) is False


# --- roles that expire ---


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (limits.EXPIRY_WARNING_S + 1, None),
        (limits.EXPIRY_WARNING_S, "in 60 days"),
        (2 * DAY, "in 2 days"),
        (2 * DAY - 1, "in 1 day"),
        (DAY, "in 1 day"),
        (DAY - 1, "within a day"),
        (1, "within a day"),
    ],
)
def test_a_role_that_expires_soon_is_told_with_its_day_and_the_days_that_are_left(
    left: float, words: str | None
) -> None:
    told = expiry_warning("publisher-wake", NOW + left, now=NOW)
    if words is None:
        assert told is None
        return
    assert told is not None
    assert told.startswith(f"publisher-wake expires on 2026-{'03' if left > 9 * DAY else '01'}-0")
    assert told.endswith(f", {words}; sign it anew with: whimbrel keys renew publisher-wake")


def test_a_role_that_expired_is_told_with_what_it_does_to_devices() -> None:
    words = "devices take no news under it; sign it anew with: whimbrel keys renew root"
    assert expiry_warning("root", NOW, now=NOW) == f"root expired on 2026-01-01: {words}"
    assert expiry_warning("root", NOW - 5 * DAY, now=NOW) == f"root expired on 2025-12-27: {words}"


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "policy-wake"])
def test_an_online_role_is_renewed_by_its_server_and_is_not_told(role: str) -> None:
    assert expiry_warning(role, NOW - DAY, now=NOW) is None
