"""Models, devices, the audit log and access: what their pages say, and what a person does with a device."""

import pytest

from support.console import Browser, signed_in, text_of
from support.console_story import Story
from support.server_in_memory import NAMESPACE, ServerInMemory
from support.values import HOUR, enrol
from whimbrel import limits
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.devices.records import Waiting

Told = tuple[ServerInMemory, Story]


@pytest.fixture
def board(server: ServerInMemory) -> str:
    """A device that runs the first version, and waits for Wi-Fi."""
    now = server.clock.now
    with server.stores() as stores:
        enrol(stores, "board-1", labels={"hardware": "pi4"}, models=("wake",), at=now)
        stores.fleet.note_running(
            RunningVersion(device_id="board-1", model="wake", serial=1, hardware_class="pi4", at=now)
        )
        stores.inventory.note_waiting(Waiting(device_id="board-1", model="wake", waits_for="no Wi-Fi", at=now))
    return "board-1"


def at(path: str) -> str:
    return f"/{NAMESPACE}/{path}"


# --- models ---


def test_models_are_listed_with_what_runs(told: Told, reader: Browser) -> None:
    words = text_of(reader.get(at("models")))
    assert "wake 3.0.0 2.0.0 3 120 gesture 2.0.0 1.0.0 2 40 keyword 2.0.0 1.0.0 2 40" in words


def test_a_model_shows_its_versions_side_by_side(told: Told, reader: Browser) -> None:
    words = text_of(reader.get(at("models/wake")))
    assert "25% of 120 devices run 3.0.0, published 2 days ago." in words
    assert "3.0.0 newest 2026.01.28.1 2 days ago 30 0.0% 0.2%" in words
    assert "2.0.0 baseline champion 2026.01.22.1 9 days ago 89 0.0% 0.2%" in words
    assert "2.0.0 → 3.0.0 soaking" in words
    assert "They update at any time" in words


def test_a_model_says_what_is_wrong_with_its_versions(told: Told, reader: Browser) -> None:
    assert "1.0.0 fails latency_p95_ms <= 80 Latency p95 is 96 ms" in text_of(reader.get(at("models/gesture")))
    words = text_of(reader.get(at("models/keyword")))
    assert "2.0.0 newest quarantined" in words
    assert "Refused by every device: harm is proven: error" in words


# --- devices ---


def test_devices_are_found_by_labels_model_and_version(told: Told, reader: Browser) -> None:
    def ids(query: str) -> list[str]:
        page = reader.get(at(f"devices?{query}"))
        assert page.status_code == 200
        return [each.partition('"')[0] for each in page.text.split(f'href="{at("devices/")}')[1:]]

    assert len(ids("")) == limits.CONSOLE_ROWS
    assert len(ids("model=wake&version=3.0.0")) == 30
    assert len(ids("model=wake&version=none")) == 1
    few = ids("selector=hardware%3Dmoto-g")
    assert 0 < len(few) < 20
    assert ids("show=silent") == [each for each in ids("show=silent") if each.startswith("phone-")]
    assert len(ids("show=silent")) == 3
    assert ids("show=blocked") == []


def test_the_next_part_begins_behind_the_last_device_and_keeps_the_conditions(told: Told, reader: Browser) -> None:
    first = reader.get(at("devices?model=wake"))
    assert f'href="{at("devices")}?model=wake&amp;after=phone-0049"' in first.text
    second = reader.get(at("devices?model=wake&after=phone-0089"))
    assert "phone-0100" in second.text
    assert "phone-0089<" not in second.text
    assert ">Next<" not in second.text


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("selector=%21%21", 400, "is no term of a selector"),
        ("show=everything", 400, "Devices cannot be shown as 'everything'"),
        ("version=1.0.0", 400, "was given without a model"),
        ("model=nope", 404, "no model 'nope'"),
        ("model=wake&version=9", 404, "9"),
        ("after=" + "x" * 200, 400, ""),
        ("selector=" + "x" * 5000, 400, ""),
    ],
)
def test_a_question_that_cannot_be_answered_is_said(browser: Browser, query: str, status: int, words: str) -> None:
    answer = browser.get(at(f"devices?{query}"))
    assert answer.status_code == status
    assert words in text_of(answer)


def test_a_device_says_what_it_runs_and_what_it_waits_for(server: ServerInMemory, browser: Browser, board: str) -> None:
    server.clock.now += 2 * HOUR
    words = text_of(browser.get(at(f"devices/{board}")))
    assert "board-1 in reach Wake waits since 2 hours ago: no Wi-Fi." in words
    assert "wake 2026.01.01.1 2 hours ago – no Wi-Fi (said 2 hours ago )" in words
    assert "hardware pi4 the device's word" in words
    assert "by a token that many devices share" in words


def test_a_device_that_is_silent_says_so(server: ServerInMemory) -> None:
    with server.stores() as stores:
        enrol(stores, "board-2", at=server.clock.now)
    server.clock.now += limits.CONSOLE_SILENT_S + 1
    words = text_of(signed_in(server).get(at("devices/board-2")))
    assert "board-2 silent It was heard of 24 hours ago last: off, out of reach, or lost." in words


def test_a_device_is_blocked_and_let_in_again(server: ServerInMemory, browser: Browser, board: str) -> None:
    question = browser.get(at(f"devices/{board}/block"))
    assert "Nothing that it sends is taken." in text_of(question)
    done = browser.submit(question, "/block", because="it was stolen")
    assert (done.status_code, done.headers["location"]) == (303, at(f"devices/{board}"))
    words = text_of(browser.get(done.headers["location"]))
    assert "board-1 blocked Admin blocked it just now: it was stolen." in words
    assert browser.submit(question, "/block").status_code == 409
    browser.submit(browser.get(at(f"devices/{board}/unblock")), "/unblock")
    assert "board-1 in reach" in text_of(browser.get(at(f"devices/{board}")))
    actions = [each["action"] for each in server.people().get("audit", params={"device": board}).json()]
    assert actions == ["unblock_device", "block_device"]


def test_a_device_is_removed(server: ServerInMemory, browser: Browser, board: str) -> None:
    done = browser.submit(browser.get(at(f"devices/{board}/remove")), "/remove")
    assert (done.status_code, done.headers["location"]) == (303, at("devices"))
    assert browser.get(at(f"devices/{board}")).status_code == 404


@pytest.mark.parametrize("act", ["admit", "allow-again", "labels", "<b>"])
def test_nothing_else_is_asked_of_a_device(browser: Browser, board: str, act: str) -> None:
    assert browser.get(at(f"devices/{board}/{act}")).status_code == 404
    assert browser.http.post(at(f"devices/{board}/{act}"), data={"csrf": ""}).status_code == 404


def test_who_may_not_change_devices_sees_no_button_and_is_refused(server: ServerInMemory, board: str) -> None:
    viewer = signed_in(server, server.token("vi-token", "viewer", person="vi"))
    page = viewer.get(at(f"devices/{board}"))
    assert "/block" not in page.text
    assert viewer.get(at(f"devices/{board}/block")).status_code == 403
    assert viewer.submit(page, "/sign-out", csrf="x").status_code == 403


def test_a_form_about_a_device_needs_its_session(browser: Browser, server: ServerInMemory, board: str) -> None:
    assert browser.submit(browser.get(at(f"devices/{board}/block")), "/block", csrf="x").status_code == 403
    assert server.people().get(f"devices/{board}").json()["blocked"] is None


# --- the audit log, and access ---


def test_the_audit_log_is_newest_first_and_of_one_model(told: Told, reader: Browser) -> None:
    words = text_of(reader.get(at("audit")))
    assert words.index("Waits for people gesture-2-d4 by gate") < words.index("Publish wake by publisher-wake")
    assert "entries in all, each with the hash of the one before" in words
    assert "gesture-2-d4" not in text_of(reader.get(at("audit?model=wake")))


def test_tokens_are_shown_to_whom_may_see_them_and_never_their_text(server: ServerInMemory) -> None:
    secret = server.token("ci", "pipeline")
    admin = signed_in(server).get(at("access"))
    assert "ci ci (machine) pipeline" in text_of(admin)
    assert "first yours admin (person) admin for ever" in text_of(admin)
    viewer = signed_in(server, server.token("vi-token", "viewer", person="vi")).get(at("access"))
    assert "Your roles do not show tokens of others." in text_of(viewer)
    assert "pipeline" not in text_of(viewer)
    for page in (admin, viewer):
        assert secret not in page.text
        assert server.admin_token not in page.text


def test_who_signs_and_until_when_is_told(browser: Browser) -> None:
    words = text_of(browser.get(at("access")))
    assert "root people, offline 1 of 1 key" in words
    assert "timestamp this server 1 of 1 key" in words
    assert "2026-01-02 00:00 UTC (in 24 hours)" in words
    assert "Nobody: whimbrel.toml names no receiver." in words
