"""Who looks at the console? Sessions begin with a token, end with it, and are no other's."""

import pytest

from support.console import Browser, forms, signed_in, text_of
from support.server_in_memory import NAMESPACE, ServerInMemory
from whimbrel import limits

FIRST = f"/{NAMESPACE}/"
SIGN_IN = f"/{NAMESPACE}/sign-in"
COOKIE = f"whimbrel-{NAMESPACE}"


def lets_in(browser: Browser) -> bool:
    answer = browser.get(FIRST)
    assert answer.status_code in {200, 303}
    return answer.status_code == 200


def test_who_has_no_session_is_sent_to_sign_in_and_comes_back_to_the_page(server: ServerInMemory) -> None:
    browser = Browser(server)
    away = browser.get(f"/{NAMESPACE}/rollouts?x=1")
    assert (away.status_code, away.headers["location"]) == (303, f"{SIGN_IN}?next=%2Fdefault%2Frollouts%3Fx%3D1")
    page = browser.get(away.headers["location"])
    back = browser.submit(page, "/sign-in", token=server.admin_token)
    assert (back.status_code, back.headers["location"]) == (303, f"/{NAMESPACE}/rollouts?x=1")
    assert lets_in(browser)


def test_the_cookie_is_no_token_and_no_script_reads_it(server: ServerInMemory) -> None:
    answer = Browser(server).sign_in(server.admin_token)
    made = next(each for each in answer.headers.get_list("set-cookie") if each.startswith(COOKIE))
    assert server.admin_token not in made
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= {each.strip() for each in made.split(";")}
    assert "Secure" not in made  # it came over http, on this machine


def test_over_tls_the_cookie_is_bound_to_this_host(server: ServerInMemory) -> None:
    browser = Browser(server)
    browser.http.base_url = "https://server"
    made = next(each for each in browser.sign_in(server.admin_token).headers.get_list("set-cookie") if COOKIE in each)
    assert made.startswith(f"__Host-{COOKIE}=")
    assert "Secure" in made
    assert "Domain" not in made
    assert lets_in(browser)


@pytest.mark.parametrize("token", ["", "whimbrel_wrong", "x" * 10_000, "Bearer x", "é"])
def test_a_wrong_token_is_refused_on_the_form(server: ServerInMemory, token: str) -> None:
    browser = Browser(server)
    answer = browser.sign_in(token)
    assert answer.status_code == 401
    assert "token" in text_of(answer)
    assert not lets_in(browser)


def test_wrong_tokens_of_both_faces_are_counted_together(server: ServerInMemory) -> None:
    """The console's sign-in is another door of one house: the bound on an address is one."""
    context = server.repository.admin_context()
    browser = Browser(server)
    for _ in range(limits.SIGN_IN_FAILURES):
        assert browser.sign_in("whimbrel_wrong").status_code == 401
    answer = browser.sign_in("whimbrel_wrong")
    assert answer.status_code == 429
    assert "sign-ins from 192.0.2.1 failed within a minute" in text_of(answer)
    assert context.acts is server.acts


def test_a_session_ends_with_its_token(server: ServerInMemory) -> None:
    browser = signed_in(server, server.token("ada-token", "viewer", person="ada"))
    assert lets_in(browser)
    server.people().post("tokens/ada-token/revoke", json={"because": "left"}).raise_for_status()
    assert not lets_in(browser)


def test_a_session_is_of_one_namespace(server: ServerInMemory) -> None:
    browser = signed_in(server)
    assert browser.get("/other/").status_code == 404
    assert browser.get("/other/sign-in").status_code == 404


@pytest.mark.parametrize("after_s", [limits.CONSOLE_IDLE_S, limits.CONSOLE_SESSION_S])
def test_a_session_has_an_end_whatever_is_done(server: ServerInMemory, after_s: float) -> None:
    browser, step, began = signed_in(server), limits.CONSOLE_IDLE_S - 1, server.clock.now
    if after_s == limits.CONSOLE_IDLE_S:
        server.clock.now = began + after_s - 1
        assert lets_in(browser)
        server.clock.now += after_s
    while after_s == limits.CONSOLE_SESSION_S and server.clock.now + step < began + after_s:
        server.clock.now += step
        assert lets_in(browser)
    server.clock.now = max(server.clock.now, began + after_s)
    assert not lets_in(browser)


def test_signing_out_ends_the_session_on_the_server(server: ServerInMemory) -> None:
    browser = signed_in(server)
    kept = dict(browser.http.cookies)
    answer = browser.submit(browser.get(FIRST), "/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, SIGN_IN)
    browser.http.cookies.update(kept)  # a thief had copied it
    assert not lets_in(browser)
    assert server.people().get("caller").status_code == 200  # the token lives: a script may use it


def test_a_cookie_that_was_made_up_lets_nobody_in(server: ServerInMemory) -> None:
    browser = Browser(server)
    for value in ("x", "0" * 43, "x" * 9000, "%00", '"'):
        browser.http.cookies.set(COOKIE, value)
        assert not lets_in(browser)
        browser.http.cookies.clear()


# --- forms ---


def test_every_form_has_a_token_that_is_looked_at(server: ServerInMemory) -> None:
    browser = signed_in(server)
    page = browser.get(FIRST)
    assert all("csrf" in fields or action == "/-/theme" for action, fields in forms(page.text))
    for wrong in ("", "x", "é" * 20):
        answer = browser.submit(page, "/sign-out", csrf=wrong)
        assert answer.status_code == 403
        assert "not of your session" in text_of(answer)
    assert lets_in(browser)


def test_a_form_of_another_session_is_refused(server: ServerInMemory) -> None:
    mine, other = signed_in(server), signed_in(server)
    _, fields = next(each for each in forms(other.get(FIRST).text) if each[0].endswith("sign-out"))
    assert mine.http.post(f"/{NAMESPACE}/sign-out", data=fields).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_form_that_another_site_sends_is_refused(server: ServerInMemory, site: str) -> None:
    browser = signed_in(server)
    _, fields = next(each for each in forms(browser.get(FIRST).text) if each[0].endswith("sign-out"))
    sent = browser.http.post(f"/{NAMESPACE}/sign-out", data=fields, headers={"sec-fetch-site": site})
    assert sent.status_code == 403
    assert lets_in(browser)


def test_a_sign_in_that_another_site_made_up_is_refused(server: ServerInMemory) -> None:
    """Else somebody could sign a person in as himself, and read what the person writes."""
    browser = Browser(server)
    browser.get(SIGN_IN)
    fields = {"csrf": "guessed", "token": server.admin_token, "next": "/"}
    assert browser.http.post(SIGN_IN, data=fields).status_code == 403
    browser.http.cookies.clear()
    assert browser.http.post(SIGN_IN, data=fields | {"csrf": ""}).status_code == 403


@pytest.mark.parametrize(
    "next_",
    [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "/other/",
        "javascript:alert(1)",
        "/default",
        "\x00",
    ],
)
def test_a_sign_in_leads_nowhere_else(server: ServerInMemory, next_: str) -> None:
    browser = Browser(server)
    page = browser.get(SIGN_IN, params={"next": next_})
    assert browser.submit(page, "/sign-in", token=server.admin_token).headers["location"] == FIRST
    again = Browser(server)
    sent = again.submit(again.get(SIGN_IN), "/sign-in", token=server.admin_token, next=next_)
    assert sent.headers["location"] == FIRST


def test_what_was_written_outlives_the_session_and_is_sent_by_a_click_of_its_writer(server: ServerInMemory) -> None:
    rollout = started(server)
    browser = signed_in(server)
    question = browser.get(f"/{NAMESPACE}/rollouts/{rollout}/pause")
    server.clock.now += limits.CONSOLE_IDLE_S + 1
    stopped = browser.submit(question, "/pause", because="the <b>battery</b> & more")
    assert stopped.status_code == 401
    assert "What you wrote is kept" in text_of(stopped)
    carried = browser.submit(stopped, "/sign-in", token=server.admin_token)
    assert carried.status_code == 200
    assert state(server, rollout) != "paused"  # nothing is done by signing in: another site may have sent the form
    assert "the &lt;b&gt;battery&lt;/b&gt; &amp; more</textarea>" in carried.text
    done = browser.submit(carried, "/pause", because="the <b>battery</b> & more")
    assert done.status_code in {303, 409}, text_of(done)
    if done.status_code == 303:
        assert state(server, rollout) == "paused"


def test_a_form_that_is_too_large_or_no_form_is_refused_as_such(server: ServerInMemory) -> None:
    browser = signed_in(server)
    _, fields = next(each for each in forms(browser.get(FIRST).text) if each[0].endswith("sign-out"))
    path = f"/{NAMESPACE}/sign-out"
    assert browser.http.post(path, data=fields | {"x": "y" * limits.CONSOLE_FORM_BYTES}).status_code == 413
    many = fields | {f"x{n}": "" for n in range(limits.CONSOLE_FORM_FIELDS + 1)}
    for answer in (
        browser.http.post(path, json=fields),
        browser.http.post(path, data=many),
        browser.http.post(path, content=b"csrf=\xff", headers={"content-type": "application/x-www-form-urlencoded"}),
        browser.http.post(path, files={"csrf": b"x"}),
    ):
        assert answer.status_code == 400
        assert answer.headers["content-type"].startswith("text/html")
    assert lets_in(browser)


# --- the theme ---


@pytest.mark.parametrize(
    ("theme", "mark"), [("dark", ' data-theme="dark"'), ("light", ' data-theme="light"'), ("", "")]
)
def test_a_theme_is_kept_and_leads_back(server: ServerInMemory, theme: str, mark: str) -> None:
    browser = signed_in(server)
    answer = browser.submit(browser.get(f"/{NAMESPACE}/rollouts"), "/-/theme", theme=theme)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/{NAMESPACE}/rollouts")
    assert f'<html lang="en"{mark}>' in browser.get(FIRST).text


def test_no_other_theme_and_no_other_place(server: ServerInMemory) -> None:
    browser = signed_in(server)
    assert browser.http.post("/-/theme", data={"theme": '"><script>'}).status_code == 400
    away = browser.http.post("/-/theme", data={"theme": "dark", "back": "//evil.example"})
    assert away.headers["location"] == "/"
    browser.http.cookies.set("whimbrel-theme", '"><script>alert(1)</script>')
    assert "<script>alert" not in browser.get(FIRST).text


def started(server: ServerInMemory) -> str:
    """A rollout of the second version."""
    plan = (
        "rollout:\n  model_version: wake@2.0.0\n  stages:\n    - {name: all, target_percent: 50, duration_hours: 1}\n"
    )
    rollout: str = server.people().post("rollouts", json={"plan": plan}).raise_for_status().json()["id"]
    return rollout


def state(server: ServerInMemory, rollout: str) -> str:
    answer: str = server.people().get(f"rollouts/{rollout}").json()["state"]
    return answer
