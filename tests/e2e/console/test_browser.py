"""The console in a real browser (Debian's chromium): signed in to, read, and a version rolled back by two clicks.

Every page must be without a message of the browser's console, without a violation of the policy, without a scroll to
the side on a phone, and without anything serious that axe finds, in light and dark.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python import sync_playwright as axe
from playwright.sync_api import Browser, Page, sync_playwright

from support.console import console_on_a_socket
from support.console_story import Story, tell
from support.server_in_memory import ServerInMemory
from support.values import T0

pytestmark = pytest.mark.long

AXE = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
CALM = "Password forms should have"  # a hint about forms without a name of a user: a token has none


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


def story_of(server: ServerInMemory) -> Story:
    server.clock.now = T0 + 30 * 86400
    return tell(server, devices=100, hours=1)


class Desk:
    """A page of a browser, and what the browser said about it."""

    def __init__(self, browser: Browser, url: str, *, scheme: str, width: int, scripts: bool = True) -> None:
        self.url, self.said = url, list[str]()
        context = browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
            java_script_enabled=scripts,
        )
        context.set_default_timeout(30_000)
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self._note(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self._note(f"error: {error}"))
        self.width = width

    def _note(self, words: str) -> None:
        if CALM not in words:
            self.said.append(words)

    def sign_in(self, token: str) -> None:
        self.page.goto(f"{self.url}/")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="Fleet").wait_for()

    def open(self, path: str) -> None:
        answer = self.page.goto(f"{self.url}{path}", wait_until="load")
        assert answer is not None
        assert answer.status == 200, path

    def check_width(self, path: str) -> None:
        """Nothing scrolls to the side."""
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.width, f"{path} scrolls to the side: {wide} px"
        assert self.said == [], path

    def check(self, path: str) -> None:
        """What is looked at on every page."""
        self.check_width(path)
        found: dict[str, Any] = self.page.evaluate(f"(() => {{ {AXE} }})(); axe.run()")
        serious = [
            (each["id"], [node["target"] for node in each["nodes"]][:3], each["help"])
            for each in found["violations"]
            if each["impact"] in {"serious", "critical", "moderate"}
        ]
        assert serious == [], path
        assert self.said == [], path


def pages(story: Story) -> list[str]:
    return [
        "/default/",
        "/default/rollouts",
        *(f"/default/rollouts/{each}" for each in (story.live, story.back, story.waiting, story.done)),
        f"/default/rollouts/{story.live}/rollback",
        *(f"/default/{each}" for each in ("models", "models/wake", "devices", "devices/phone-0003", "audit", "access")),
    ]


@pytest.fixture(scope="module")
def story() -> Iterator[tuple[str, str, Story]]:
    with console_on_a_socket(story_of) as told:
        yield told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_well_made(browser: Browser, story: tuple[str, str, Story], scheme: str) -> None:
    url, token, told = story
    desk = Desk(browser, url, scheme=scheme, width=1280)
    desk.page.goto(f"{url}/default/sign-in")
    desk.check("sign-in")
    desk.sign_in(token)
    for path in pages(told):
        desk.open(path)
        desk.check(path)
    desk.page.context.close()


def test_no_page_scrolls_to_the_side_of_a_phone(browser: Browser, story: tuple[str, str, Story]) -> None:
    url, token, told = story
    desk = Desk(browser, url, scheme="light", width=390)
    desk.sign_in(token)
    for path in pages(told):
        desk.open(path)
        desk.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        desk.check_width(path)
    desk.page.context.close()


def test_the_keyboard_reaches_everything_and_the_theme_is_chosen(
    browser: Browser, story: tuple[str, str, Story]
) -> None:
    url, token, told = story
    desk = Desk(browser, url, scheme="light", width=1280)
    desk.sign_in(token)
    desk.open(f"/default/rollouts/{told.live}")
    desk.page.keyboard.press("Tab")
    assert desk.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    desk.page.keyboard.press("Enter")
    desk.page.keyboard.press("Tab")
    desk.page.keyboard.press("Tab")
    assert desk.page.evaluate("document.activeElement.textContent") == "Roll back"
    desk.page.get_by_role("button", name="dark").click()
    desk.page.get_by_role("heading", name="wake").wait_for()
    assert desk.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 20, 23)"
    desk.check("dark by choice")
    desk.page.context.close()


def test_an_open_page_follows_what_somebody_else_does(browser: Browser, story: tuple[str, str, Story]) -> None:
    url, token, told = story
    watching, acting = (Desk(browser, url, scheme="dark", width=1280) for _ in range(2))
    watching.sign_in(token)
    acting.sign_in(token)
    watching.open(f"/default/rollouts/{told.live}")
    watching.page.get_by_text("Devices of each stage").click()
    watching.page.wait_for_timeout(1500)  # until the stream has sent its first mark
    acting.open(f"/default/rollouts/{told.live}/pause")
    acting.page.get_by_label("Why").fill("looking at crashes")
    acting.page.get_by_role("button", name="Pause").click()
    watching.page.get_by_text("Looking at crashes.").wait_for()
    assert watching.page.locator("details[data-key=stages]").evaluate("each => each.open")
    for desk in (watching, acting):
        assert desk.said == []
        desk.page.context.close()


def test_two_clicks_roll_a_version_back_without_any_script(browser: Browser, story: tuple[str, str, Story]) -> None:
    url, token, told = story
    desk = Desk(browser, url, scheme="light", width=1280, scripts=False)
    desk.sign_in(token)
    desk.open(f"/default/rollouts/{told.live}")
    desk.page.get_by_role("link", name="Roll back").click()
    desk.page.get_by_text("25 devices of 100 run 3.0.0 and go back to 2.0.0.").wait_for()
    desk.page.get_by_role("button", name="Roll back 25 devices").click()
    desk.page.get_by_text("3.0.0 is taken back now; 25 devices in reach still to go.").wait_for()
    assert desk.said == []
    desk.page.context.close()
