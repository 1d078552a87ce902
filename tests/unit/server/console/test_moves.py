"""A person moves a rollout: who may, what the question says, and what the second of two people is told."""

import pytest

from support.console import Browser, forms, signed_in, text_of
from support.server_in_memory import NAMESPACE, ServerInMemory
from support.values import enrol
from whimbrel.flows.device_records import RunningVersion

PLAN = """\
rollout:
  model_version: wake@2.0.0
  stages:
    - {name: canary, target_percent: 50, duration_hours: 1}
    - {name: everyone, target_percent: 100, duration_hours: 1}
"""


@pytest.fixture
def rollout(server: ServerInMemory) -> str:
    """A live one: three of four devices run its version."""
    identifier: str = server.people().post("rollouts", json={"plan": PLAN}).raise_for_status().json()["id"]
    with server.stores() as stores:
        for n in range(4):
            enrol(stores, f"dev-{n}", models=("wake",), at=server.clock.now)
            serial = 2 if n < 3 else 1
            stores.fleet.note_running(
                RunningVersion(
                    device_id=f"dev-{n}", model="wake", serial=serial, hardware_class="", at=server.clock.now
                )
            )
    server.round()
    return identifier


def path(rollout: str, move: str = "") -> str:
    return f"/{NAMESPACE}/rollouts/{rollout}{f'/{move}' if move else ''}"


def state(server: ServerInMemory, rollout: str) -> str:
    answer: str = server.people().get(f"rollouts/{rollout}").json()["state"]
    return answer


def buttons(browser: Browser, rollout: str) -> set[str]:
    page = browser.get(path(rollout)).text
    return {move for move in MOVES if f'href="{path(rollout, move)}"' in page}


MOVES = ("approve", "reject", "pause", "resume", "finish", "abort", "rollback")


@pytest.mark.parametrize(
    ("move", "touches", "after"),
    [
        ("rollback", "3 devices of 4 run 2.0.0 and go back to 1.0.0.", {"rolling_back"}),
        ("abort", "3 devices of 4 run 2.0.0 and return to 1.0.0.", {"aborted"}),
        ("pause", "No device changes: 3 devices keep 2.0.0.", {"paused"}),
        ("finish", "1 more device of 4 get 2.0.0.", {"completed"}),
    ],
)
def test_a_move_says_how_many_devices_it_touches_and_is_done_by_the_second_click(
    server: ServerInMemory, browser: Browser, rollout: str, move: str, touches: str, after: set[str]
) -> None:
    question = browser.get(path(rollout, move))
    assert touches in text_of(question)
    before = state(server, rollout)
    assert before not in after  # to look changes nothing
    done = browser.submit(question, f"/{move}", because="seen on the dashboard")
    assert (done.status_code, done.headers["location"]) == (303, path(rollout))
    assert state(server, rollout) in after
    entry = server.people().get("audit", params={"rollout": rollout}).json()[0]
    assert (entry["actor"], entry["because"]) == ("admin", "seen on the dashboard")


def test_a_paused_rollout_is_resumed(server: ServerInMemory, browser: Browser, rollout: str) -> None:
    browser.submit(browser.get(path(rollout, "pause")), "/pause")
    assert "resume" in buttons(browser, rollout)
    assert "pause" not in buttons(browser, rollout)
    browser.submit(browser.get(path(rollout, "resume")), "/resume")
    assert state(server, rollout) == "running"


@pytest.mark.parametrize(
    ("role", "shown"),
    [
        ("viewer", set()),
        ("publisher", set()),
        ("security", {"pause", "abort", "rollback"}),
        ("releaser", {"pause", "finish", "abort", "rollback"}),
        ("admin", {"pause", "finish", "abort", "rollback"}),
    ],
)
def test_a_button_is_there_for_whom_it_works_and_the_route_refuses_the_others(
    server: ServerInMemory, rollout: str, role: str, shown: set[str]
) -> None:
    browser = signed_in(server, server.token("bo-token", role, person="bo"))
    assert buttons(browser, rollout) == shown
    admin = signed_in(server)
    for move in sorted({"pause", "finish", "abort", "rollback"} - shown):
        question = browser.get(path(rollout, move))
        assert question.status_code == 403
        assert f"The token of bo is a {role}'s, and this needs the permission" in text_of(question)
        fields = {"csrf": "", "seen": "", "because": ""}
        _, own = next(each for each in forms(browser.get(path(rollout)).text) if each[0].endswith("sign-out"))
        assert browser.http.post(path(rollout, move), data=fields | own).status_code == 403
    assert state(server, rollout) == "running"
    assert admin.get(path(rollout)).status_code == 200


def test_the_second_of_two_people_is_told_what_happened(server: ServerInMemory, rollout: str) -> None:
    ada = signed_in(server, server.token("ada-token", "releaser", person="ada"))
    bo = signed_in(server, server.token("bo-token", "releaser", person="bo"))
    questions = ada.get(path(rollout, "rollback")), bo.get(path(rollout, "finish"))
    assert ada.submit(questions[0], "/rollback", because="crashes in Oslo").status_code == 303
    late = bo.submit(questions[1], "/finish")
    assert late.status_code == 409
    words = text_of(late)
    assert "Nothing was done: it moved meanwhile" in words
    assert "It is rolling back now" in words
    assert "Taken back by ada Crashes in Oslo." in words
    assert state(server, rollout) == "rolling_back"


def test_two_clicks_of_one_person_are_one_move(server: ServerInMemory, browser: Browser, rollout: str) -> None:
    question = browser.get(path(rollout, "pause"))
    assert [browser.submit(question, "/pause").status_code for _ in range(2)] == [303, 409]
    assert len([each for each in server.people().get("audit").json() if each["action"] == "pause"]) == 1


@pytest.mark.parametrize("move", ["advance", "PAUSE", "pause ", "<script>", "x" * 300])
def test_there_is_no_other_move(server: ServerInMemory, browser: Browser, rollout: str, move: str) -> None:
    for answer in (browser.get(path(rollout, move)), browser.http.post(path(rollout, move), data={"csrf": ""})):
        assert 400 <= answer.status_code < 500 or answer.status_code == 303
        assert "<script>" not in answer.text
    assert state(server, rollout) == "running"


def test_a_reason_that_is_too_long_is_refused(server: ServerInMemory, browser: Browser, rollout: str) -> None:
    answer = browser.submit(browser.get(path(rollout, "pause")), "/pause", because="x" * 2001)
    assert answer.status_code == 400
    assert "the reason has 2001 characters; at most 2000 are kept" in text_of(answer).lower()
    assert state(server, rollout) == "running"


def test_a_completed_rollout_is_taken_back_as_the_whole_model(
    server: ServerInMemory, browser: Browser, rollout: str
) -> None:
    browser.submit(browser.get(path(rollout, "finish")), "/finish")
    question = browser.get(path(rollout, "rollback"))
    assert "the whole model goes back" in text_of(question)
    assert browser.submit(question, "/rollback").status_code == 303
    assert server.people().get("models/wake").json()["baseline"] == 1


def test_a_stage_is_approved_by_another_person_and_by_no_machine(server: ServerInMemory) -> None:
    plan = PLAN.replace(
        "duration_hours: 1}\n    - {name: everyone", "duration_hours: 1, approval: {count: 1}}\n    - {name: everyone"
    )
    rollout = server.person("ada").post("rollouts", json={"plan": plan}).raise_for_status().json()["id"]
    robot = signed_in(server, server.token("robot", "admin"))
    assert "approve" not in buttons(robot, rollout)
    assert robot.get(path(rollout, "approve")).status_code == 403
    bo = signed_in(server, server.token("bo-token", "releaser", person="bo"))
    assert "It waits for 1 more person to approve stage canary: nobody agreed yet." in text_of(bo.get(path(rollout)))
    bo.submit(bo.get(path(rollout, "approve")), "/approve")
    server.round()
    assert state(server, rollout) == "running"
