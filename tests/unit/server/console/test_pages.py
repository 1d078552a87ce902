"""What the pages of the console say, and that nothing of it becomes markup or is kept."""

import re

import pytest

from support.console import Browser, signed_in, text_of
from support.console_story import Story
from support.server_in_memory import NAMESPACE, ServerInMemory
from support.values import enrol
from whimbrel import limits
from whimbrel.console.static_parts import PARTS, PREFIX
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.records import RoleExpiry

Told = tuple[ServerInMemory, Story]


def pages(story: Story) -> list[str]:
    """Every page of the story."""
    of_rollouts = [f"rollouts/{each}" for each in (story.live, story.back, story.waiting, story.done)]
    asks = [f"rollouts/{story.live}/rollback", f"rollouts/{story.waiting}/approve", "devices/phone-0003/block"]
    lists = ["rollouts", "models", "devices", "devices?selector=hardware%3Dpixel-7&model=wake", "audit", "access"]
    return ["", *of_rollouts, *lists, "models/wake", "models/gesture", "devices/phone-0003", *asks]


# --- what they say ---


def test_the_fleet_says_first_what_needs_a_person(told: Told, reader: Browser) -> None:
    words = text_of(reader.get(f"/{NAMESPACE}/"))
    assert words.startswith("Fleet 120 devices, 3 models. 1 thing needs you now, and 1 can wait.")
    places = [
        words.index(each)
        for each in (
            "gesture 1.0.0 fails a monitor",
            "Latency p95 is 96 ms over the last 24 hours",
            "gesture 2.0.0 waits for one more person",
            "not heard of for 24 h",
            "wake rollout of 3.0.0: soaking",
        )
    ]
    assert places == sorted(places)
    assert "25% of 120 devices run 3.0.0, published 2 days ago." in words
    assert "2.0.0, published 5 days ago, was taken back." in words


def test_a_quiet_fleet_needs_nobody(server: ServerInMemory, browser: Browser) -> None:
    words = text_of(browser.get(f"/{NAMESPACE}/"))
    assert "0 devices, 1 model. Nothing needs you now." in words
    assert "2.0.0, published just now. No device follows this model yet." in words


def test_a_role_that_expires_and_a_stale_timestamp_are_told(server: ServerInMemory, browser: Browser) -> None:
    with server.stores() as stores:
        stores.role_expiries.save(RoleExpiry(role="targets", version=1, expires=server.clock.now + 5 * 86400))
    server.clock.now += limits.CONSOLE_STALE_S + 60
    words = text_of(browser.get(f"/{NAMESPACE}/"))
    assert "targets expires soon" in words
    assert "sign it anew with: whimbrel keys renew targets" in words
    assert "The timestamp is stale It was signed 2 h ago, and should be every hour; it is over in 22 h" in words


def test_a_rollout_says_where_it_stands_and_what_it_waits_for(told: Told, reader: Browser) -> None:
    _, story = told
    words = text_of(reader.get(f"/{NAMESPACE}/rollouts/{story.live}"))
    assert "wake 2.0.0 → 3.0.0 soaking Stage early: 25% of the devices run 3.0.0." in words
    assert "The gate says: stage early has soaked 23 of 48 h." in words
    assert "5% canary" in words
    assert "Crash takes it back" in words
    assert "Silence takes it back 1.2% against 1.7% 2 of 168 against 9 of 528" in words
    assert "Crash takes it back 0.0% against 0.0% 0 of 168 against 0 of 528 No event in either arm." in words
    waiting = text_of(reader.get(f"/{NAMESPACE}/rollouts/{story.waiting}"))
    assert "It waits for 1 more person to approve stage everyone: nobody agreed yet (look at the battery)." in waiting


def test_a_rollout_that_was_taken_back_says_why_in_both_arms_figures(told: Told, reader: Browser) -> None:
    _, story = told
    page = reader.get(f"/{NAMESPACE}/rollouts/{story.back}")
    words = text_of(page)
    assert (
        "2.0.0 was taken back: error 15.6% against 0.19%. Every device that was heard from runs 1.0.0 again." in words
    )
    assert "Harm is proven: error" in words
    assert "Error takes it back 15.6% against 0.19% 15.0 of 96 against 0.5 of 240" in words
    assert words.count("harm is proven") == 1  # of one guardrail: the others see none
    assert 'class="band harm"' in page.text


def test_who_is_not_judged_is_told_with_the_reason(told: Told, reader: Browser) -> None:
    _, story = told
    words = text_of(reader.get(f"/{NAMESPACE}/rollouts/{story.live}"))
    assert "2 devices got the version assigned and did not activate it yet" in words
    assert "activated it and did not report since" in words


def test_rollouts_are_listed_newest_first(told: Told, reader: Browser) -> None:
    words = text_of(reader.get(f"/{NAMESPACE}/rollouts"))
    assert words.index("completed") > words.index("soaking") > words.index("waiting for approval") >= 0


# --- how they are answered ---


def test_every_page_has_one_heading_landmarks_and_no_empty_name(told: Told, reader: Browser) -> None:
    for path in pages(told[1]):
        page = reader.get(f"/{NAMESPACE}/{path}")
        assert page.status_code == 200, path
        assert page.text.count("<h1") == 1, path
        for mark in (
            '<main id="main"',
            '<a class="skip" href="#main">',
            '<html lang="en"',
            "<title>",
            "<nav aria-label",
        ):
            assert mark in page.text, (path, mark)
        assert 'aria-label=""' not in page.text, path
        assert "None" not in text_of(page), path


def test_no_page_is_kept_and_none_may_load_or_run_anything_else(told: Told, reader: Browser) -> None:
    for path in [*(f"/{NAMESPACE}/{each}" for each in pages(told[1])), "/nothing", f"/{NAMESPACE}/sign-in", "/"]:
        headers = reader.get(path).headers
        assert headers["cache-control"] == "no-store", path
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_no_page_holds_a_script_or_a_style_of_its_own(told: Told, reader: Browser) -> None:
    for path in pages(told[1]):
        text = reader.get(f"/{NAMESPACE}/{path}").text
        assert " style=" not in text, path
        assert "<style" not in text, path
        assert not re.search(r"<[^>]+ on[a-z]+=", text), path
        assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.S) in ([], [""]), path


def test_parts_are_named_by_what_they_hold_and_kept_for_a_year(server: ServerInMemory) -> None:
    browser = Browser(server)
    for part in PARTS.values():
        answer = browser.get(part.url)
        assert answer.status_code == 200
        assert answer.content == part.content
        assert answer.headers["content-type"].partition(";")[0] == part.media_type
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert browser.get(f"{PREFIX}style.0000000000000000.css").status_code == 404
    assert browser.get(f"{PREFIX}../pages.py").status_code == 404


def test_the_first_page_leads_to_the_only_namespace(server: ServerInMemory) -> None:
    answer = Browser(server).get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/{NAMESPACE}/")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/default/nothing", 404),
        ("/default/rollouts/none", 404),
        ("/default/rollouts/%3Cscript%3Ealert(1)%3C%2Fscript%3E", 404),
        ("/default/rollouts/a%00b", 404),
        ("/default/rollouts/" + "x" * 3000, 404),
        ("/default/rollouts/..%2f..%2fadmin", 404),
        ("/%3Cscript%3E/", 404),
        ("/default/rollouts/none/live", 404),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(browser: Browser, path: str, status: int) -> None:
    answer = browser.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script>" not in answer.text
    assert '<a class="button"' in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_method_that_is_not_possible_is_said_on_a_page(browser: Browser, method: str) -> None:
    answer = browser.http.request(method, f"/{NAMESPACE}/rollouts")
    assert answer.status_code == 405
    assert "<script" not in answer.text


HOSTILE = '"><script>alert(1)</script>\u202e{{7*7}}'


def test_what_devices_and_people_write_never_becomes_markup(server: ServerInMemory, browser: Browser) -> None:
    plan = (
        "rollout:\n  model_version: wake@2.0.0\n  stages:\n    - {name: all, target_percent: 50, duration_hours: 1}\n"
    )
    rollout = server.people().post("rollouts", json={"plan": plan}).raise_for_status().json()["id"]
    with server.stores() as stores:
        enrol(stores, "dev-1", models=("wake",), at=server.clock.now)
        told = RunningVersion(device_id="dev-1", model="wake", serial=1, hardware_class=HOSTILE, at=server.clock.now)
        stores.fleet.note_running(told)
    browser.submit(browser.get(f"/{NAMESPACE}/rollouts/{rollout}/pause"), "/pause", because=HOSTILE)
    for path in ("", "rollouts", f"rollouts/{rollout}", "models/wake", "audit"):
        text = browser.get(f"/{NAMESPACE}/{path}").text
        assert "<script>alert" not in text, path
        assert "&lt;script&gt;alert(1)" in text, path
        assert "\\u202e" in text, path  # what hides is written as an escape
        assert "{{7*7}}" in text, path


def test_who_may_only_look_sees_it_all_and_no_button(told: Told) -> None:
    server, story = told
    viewer = signed_in(server, server.token("vi-token", "viewer", person="vi"))
    for path in pages(story)[:-3]:
        page = viewer.get(f"/{NAMESPACE}/{path}")
        assert page.status_code == 200
        assert "danger" not in page.text
        assert 'method="post" action="/default/' not in page.text.replace('action="/default/sign-out"', "")
    assert "You look at it as viewer, and may not move it." in text_of(
        viewer.get(f"/{NAMESPACE}/rollouts/{story.live}")
    )
