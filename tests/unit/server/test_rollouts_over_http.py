"""Rollouts, experiments and the way back over the admin API, on a clock that the test moves."""

from typing import Any

import httpx
import pytest

from support.accounts import refusal
from support.experiments import TEXT
from support.server_in_memory import ServerInMemory
from support.values import T0
from whimbrel.model.release import Requirement

V1, V2 = "2026.01.01.1 (1.0.0)", "2026.01.01.2 (2.0.0)"
HOUR = 3600.0
PLAN = """
rollout:
  model_version: "wake@2.0.0"
  stages:
    - {name: canary, target_percent: 5, duration_hours: 24}
    - {name: half, target_percent: 50, duration_hours: 24}
    - {name: all, target_percent: 100}
"""
CONSENT = PLAN.replace("{name: half, target_percent: 50,", "{name: half, approval: {count: 1}, target_percent: 50,")


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    return server.people()


def start(http: httpx.Client, plan: str = PLAN, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = http.post("rollouts", json={"plan": plan} | more).raise_for_status().json()
    return answer


def move(http: httpx.Client, rollout: str, what: str, because: str = "") -> httpx.Response:
    return http.post(f"rollouts/{rollout}/{what}", json={"because": because})


def audited(http: httpx.Client, action: str) -> list[tuple[str, str]]:
    entries = http.get("audit", params={"action": action}).raise_for_status().json()
    return [(each["actor"], each["because"]) for each in entries]


# --- started ---
def test_a_rollout_starts_with_its_stages_and_shares(server: ServerInMemory, http: httpx.Client) -> None:
    server.clock.now = T0 + 5
    answer = server.person("rae").post("rollouts", json={"plan": PLAN, "hour_s": 60})
    assert answer.status_code == 201
    rollout = answer.json()
    shown = http.get(f"rollouts/{rollout['id']}").json()
    further = {"verdict", "classes", "builds"}
    assert {name: shown[name] for name in shown if name not in further} == rollout
    assert {name: rollout[name] for name in ("model", "baseline", "target", "state", "stage", "stage_name")} == {
        "model": "wake",
        "baseline": V1,
        "target": V2,
        "state": shown["state"],
        "stage": 0,
        "stage_name": "canary",
    }
    assert (rollout["created_at"], rollout["hour_s"], rollout["ended"], rollout["lead"]) == (T0 + 5, 60.0, False, "")
    assert rollout["range_percent"] == [0.0, 100.0]
    assert [(each["name"], each["target_percent"], each["duration_hours"]) for each in rollout["stages"]] == [
        ("canary", 5.0, 24.0),
        ("half", 50.0, 24.0),
        ("all", 100.0, 0.0),
    ]
    assert rollout["stages"][1]["share_percent"] is None
    assert (rollout["devices_left"], rollout["approval"], rollout["members"]) == (None, None, [])
    assert "verdict" in shown
    assert audited(http, "start")[0][0] == "rae"


def test_rollouts_are_listed_by_model_and_by_life(server: ServerInMemory, http: httpx.Client) -> None:
    server.add_model("sleep")
    first = start(http)["id"]
    move(http, first, "abort").raise_for_status()
    server.clock.now = T0 + 1
    second = start(http)["id"]
    listed = [each["id"] for each in http.get("rollouts").json()]
    assert listed == [first, second]
    assert [each["id"] for each in http.get("rollouts", params={"live": True}).json()] == [second]
    assert http.get("rollouts", params={"model": "sleep"}).json() == []
    assert len(http.get("rollouts", params={"model": "wake"}).json()) == 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "the field 'plan' is missing"),
        ({"plan": "x"}, 400, "plan.yaml"),
        ({"plan": "x", "file_name": "mine.yaml"}, 400, "mine.yaml"),
        ({"plan": PLAN.replace("wake@2.0.0", "wake@9.9.9")}, 404, "9.9.9"),
        ({"plan": PLAN.replace("wake@", "none@")}, 404, "none"),
        ({"plan": PLAN, "hour_s": 0}, 400, "hour_s is 0"),
        ({"plan": PLAN, "hour_s": 3601}, 400, "hour_s is 3601"),
        ({"plan": PLAN, "draft": "yes"}, 400, "draft is 'yes'; expected true or false"),
    ],
)
def test_a_rollout_that_cannot_start_leaves_nothing(
    http: httpx.Client, body: dict[str, Any], status: int, words: str
) -> None:
    assert words in refusal(http.post("rollouts", json=body), status=status)
    assert http.get("rollouts").json() == []


@pytest.mark.parametrize("hour_s", [0.001, 3600])
def test_an_hour_of_a_plan_is_at_most_an_hour(http: httpx.Client, hour_s: float) -> None:
    assert start(http, hour_s=hour_s)["hour_s"] == hour_s


def test_one_rollout_of_a_model_runs_at_a_time(http: httpx.Client) -> None:
    first = start(http)["id"]
    answer = http.post("rollouts", json={"plan": PLAN})
    assert answer.status_code in {403, 409}
    assert first in answer.json()["detail"]


def test_a_plan_is_explained_before_it_begins(http: httpx.Client) -> None:
    check = http.post("plans/check", json={"plan": PLAN}).raise_for_status().json()
    imagined = http.post("plans/check", json={"plan": PLAN, "devices": 1000}).raise_for_status().json()
    assert check != imagined
    assert "50" in str(imagined)
    for devices in (1, 10**10):
        assert http.post("plans/check", json={"plan": PLAN, "devices": devices}).status_code == 200
    for devices in (0, 10**10 + 1):
        assert "devices is" in refusal(http.post("plans/check", json={"plan": PLAN, "devices": devices}), status=400)
    assert http.get("rollouts").json() == []


# --- moved ---
@pytest.mark.parametrize("path", ["", "/replay", "/evidence", "/evidence/png"])
def test_a_rollout_that_is_not_there_is_404(http: httpx.Client, path: str) -> None:
    assert "none" in refusal(http.get(f"rollouts/none{path}"), status=404)
    assert "none" in refusal(move(http, "none", "pause"), status=404)


def test_a_move_that_is_none_is_404_with_those_that_are(http: httpx.Client) -> None:
    said = refusal(move(http, start(http)["id"], "dance"), status=404)
    assert said.startswith("a rollout cannot be asked to 'dance'; it can: ")
    assert {"pause", "resume", "abort", "rollback", "finish", "approve", "reject"} <= set(
        said.partition("it can: ")[2].split(", ")
    )


def test_a_rollout_is_paused_resumed_and_aborted_by_name(server: ServerInMemory, http: httpx.Client) -> None:
    rollout, rae = start(http)["id"], server.person("rae")
    states = []
    for what in ("pause", "resume", "abort"):
        answer = move(rae, rollout, what, f"{what}: lunch").raise_for_status().json()
        states.append((answer["state"], answer["because"]))
    assert states[0] == ("paused", "pause: lunch")
    assert states[2][1] == "abort: lunch"
    actions = [(each["actor"], each["action"]) for each in http.get("audit", params={"rollout": rollout}).json()]
    assert [action for actor, action in actions if actor == "rae"] == ["abort", "resume", "pause"]
    answer = move(rae, rollout, "resume")
    said = refusal(answer, status=409)
    assert said == "a rollout that is aborted takes no resume; nothing can be asked of it any more"
    assert answer.json()["title"] == "Conflict"  # and no bug
    assert "because is 2001 characters long" in refusal(move(rae, rollout, "pause", "x" * 2001), status=400)


def test_a_rollout_that_is_finished_makes_its_version_the_baseline_and_goes_back(
    server: ServerInMemory, http: httpx.Client
) -> None:
    rollout = start(http)["id"]
    done = move(http, rollout, "finish", "it is good").raise_for_status().json()
    assert done["state"] == "completed"
    assert done["ended"] is True
    model = http.get("models/wake").json()
    assert (model["baseline"], model["baseline_version"]) == (2, "2026.01.01.2")
    asked = http.post("models/wake/rollback", json={"dry_run": True}).raise_for_status().json()
    assert (asked["done"], asked["leaves"]["serial"], asked["to"]["serial"]) == (False, 2, 1)
    assert (asked["selector"], asked["devices"], asked["rollout"]) == ("every device", 0, rollout)
    assert [each["serial"] for each in asked["quarantined"]] == [2]
    assert http.get("models/wake").json()["baseline"] == 2
    back = server.person("sec", "security").post("models/wake/rollback", json={}).raise_for_status().json()
    assert back == asked | {"done": True}
    assert http.get("models/wake").json()["baseline"] == 1
    (entry, *_) = audited(http, "roll_back")
    assert entry == ("sec", "rollback by sec")
    first, second = http.get("models/wake/versions").json()
    assert (first["quarantined"], [each["because"] for each in second["quarantined"]]) == ([], ["rollback by sec"])
    assert second["quarantined"][0]["devices"] == "every device"
    (draft,) = http.get("models/wake/revocations/drafts").json()
    assert draft["serial"] == 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"leaves": 1}, 409, "wake is at 2026.01.01.2 (2.0.0) meanwhile, and not at serial 1; look again"),
        ({"to": "9.9.9"}, 404, "wake has no version '9.9.9'"),
        ({"rollout": "none"}, 404, "none"),
        ({"selector": "hardware=none"}, 403, "none"),
        ({"selector": "="}, 400, ""),
        ({"selector": "x" * 4097}, 400, "selector is 4097 characters long"),
    ],
)
def test_a_way_back_that_cannot_be_changes_nothing(
    http: httpx.Client, body: dict[str, Any], status: int, words: str
) -> None:
    move(http, start(http)["id"], "finish").raise_for_status()
    assert words in refusal(http.post("models/wake/rollback", json=body), status=status)
    assert http.get("models/wake").json()["baseline"] == 2


def test_a_completed_rollout_is_taken_back_by_its_name(server: ServerInMemory, http: httpx.Client) -> None:
    rollout = start(http)["id"]
    move(http, rollout, "finish").raise_for_status()
    back = move(http, rollout, "rollback", "it listens").raise_for_status().json()
    words = "it listens; every device that was heard from is off it"
    assert (back["state"], back["because"], back["devices_left"]) == ("rolled_back", words, None)
    assert http.get("models/wake").json()["baseline"] == 1
    said = refusal(move(http, rollout, "rollback"), status=409)
    assert said == "a rollout that is rolled back takes no rollback; nothing can be asked of it any more"


def test_a_model_goes_back_by_its_rollout_or_for_some_devices(server: ServerInMemory, http: httpx.Client) -> None:
    rollout = start(http)["id"]
    move(http, rollout, "finish").raise_for_status()
    body = {"selector": "hardware=pi3", "although_unknown": True, "dry_run": True, "rollout": rollout}
    asked = http.post("models/wake/rollback", json=body).raise_for_status().json()
    assert (asked["to"]["serial"], asked["devices"], asked["selector"]) == (1, 0, "hardware=pi3")
    assert any("with" in sentence for sentence in asked["sentences"])


def test_a_version_that_was_taken_back_is_let_again(server: ServerInMemory, http: httpx.Client) -> None:
    move(http, start(http)["id"], "finish").raise_for_status()
    http.post("models/wake/rollback", json={"because": "it listens"}).raise_for_status()
    server.round()
    view = server.person("rae").post("models/wake/versions/2/unquarantine", json={"because": "it does not"})
    assert view.raise_for_status().json()["serial"] == 2
    assert http.get("models/wake/versions").json()[1]["quarantined"] == []
    assert audited(http, "unquarantine")[0][0] == "rae"


# --- two people ---
def test_a_draft_waits_for_a_person_who_did_not_write_it(server: ServerInMemory, http: httpx.Client) -> None:
    ci = server.machine("ci", "pipeline")
    assert "'release'" in refusal(ci.post("rollouts", json={"plan": PLAN}))
    draft = start(ci, draft=True)
    assert (draft["state"], draft["ended"]) == ("draft", False)
    said = refusal(move(ci, draft["id"], "approve"))
    assert said == "ci is a machine's account, and only people approve; sign in as yourself"
    rae = server.person("rae")
    begun = move(rae, draft["id"], "approve", "looks good").raise_for_status().json()
    assert begun["state"] != "draft"
    assert audited(http, "approve")[0][0] == "rae"


def test_who_wrote_a_draft_does_not_approve_it_where_another_must(server: ServerInMemory, http: httpx.Client) -> None:
    http.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
    rae, ben = server.person("rae"), server.person("ben")
    rollout = start(rae)["id"]
    answer = move(rae, rollout, "finish", "at once")
    assert "another person" in refusal(answer)
    move(ben, rollout, "finish", "I looked").raise_for_status()
    assert http.get(f"rollouts/{rollout}").json()["state"] == "completed"


def test_a_machines_word_is_no_second_persons(server: ServerInMemory, http: httpx.Client) -> None:
    http.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
    rollout = start(server.person("rae"))["id"]
    robot = server.machine("robot", "admin")
    assert refusal(move(robot, rollout, "finish"))
    assert refusal(move(robot, rollout, "approve")) == (
        "robot is a machine's account, and only people approve; sign in as yourself"
    )


def test_a_draft_is_rejected(server: ServerInMemory, http: httpx.Client) -> None:
    draft = start(server.machine("ci", "pipeline"), draft=True)["id"]
    move(server.person("sec", "security"), draft, "reject", "not now").raise_for_status()
    shown = http.get(f"rollouts/{draft}").json()
    assert (shown["ended"], shown["because"]) == (True, "rejected by sec: not now")
    assert "verdict" not in shown


def test_models_whose_versions_go_together_move_and_go_back_together(
    server: ServerInMemory, http: httpx.Client
) -> None:
    server.add_model("sleep")
    for serial in (1, 2):
        server.publish(model="sleep", requires=() if serial == 1 else (Requirement(model="wake", serial=3),))
    server.publish(requires=(Requirement(model="sleep", serial=2),))
    server.round()
    rollout = start(http, PLAN.replace("2.0.0", "3.0.0"))
    (member,) = rollout["members"]
    names = "2026.01.01.1 (1.0.0)", "2026.01.01.2 (2.0.0)"
    assert (member["model"], member["baseline"], member["target"]) == ("sleep", *names)
    assert http.get(f"rollouts/{member['rollout']}").json()["lead"] == rollout["id"]
    move(http, rollout["id"], "finish").raise_for_status()
    back = http.post("models/wake/rollback", json={"because": "it listens"}).raise_for_status().json()
    (other,) = back["others"]
    assert (other["model"], other["leaves"]["serial"], other["to"]["serial"]) == ("sleep", 2, 1)
    assert [each["serial"] for each in other["quarantined"]] == [2]
    assert other["rollout"] == member["rollout"]
    assert [http.get(f"models/{model}").json()["baseline"] for model in ("wake", "sleep")] == [1, 1]


# --- evidence ---
def test_evidence_is_listed_and_replayed(http: httpx.Client) -> None:
    rollout = start(http)["id"]
    (point,) = http.get(f"rollouts/{rollout}/evidence").json()
    assert (point["at"], point["window"], point["stage"], point["log_e"]) == (T0, 0, "canary", 0)
    (verdict,) = http.get(f"rollouts/{rollout}/replay").json()["verdicts"]
    assert (verdict["at"], verdict["window"], verdict["same"]) == (T0, 0, True)
    said = refusal(http.get(f"rollouts/{rollout}/evidence/gif"), status=400)
    assert said == "a chart cannot be drawn as 'gif'; it can: png, svg"


# --- experiments ---
def test_an_experiment_starts_with_its_arms(server: ServerInMemory, http: httpx.Client) -> None:
    checked = http.post("experiments/check", json={"plan": TEXT}).raise_for_status().json()
    assert checked
    assert http.get("experiments").json() == []
    answer = server.person("rae").post("experiments", json={"plan": TEXT, "hour_s": 60})
    assert answer.status_code == 201
    begun = answer.json()
    assert (begun["name"], begun["model"], begun["winner"], begun["hour_s"]) == ("A larger encoder", "wake", None, 60)
    arms = [(each["id"], each["role"], each["version"], each["share"], each["description"]) for each in begun["arms"]]
    assert arms == [
        ("control", "control", V1, 0.5, "today's"),
        ("large", "treated", V2, 0.5, "twice the width"),
    ]
    assert begun["primary"] == {"name": "watch_time", "direction": "increase"}
    assert begun["guardrails"] == ["crash_rate", "latency_p99"]
    assert (begun["minimum_sample_size"], begun["duration_days"]) == (60, 0.5)
    assert (begun["created_at"], begun["ended_at"]) == (T0, None)
    assert [each["id"] for each in http.get("experiments", params={"live": True}).json()] == [begun["id"]]
    assert http.get("experiments", params={"model": "none"}).json() == []
    assert [(each["assigned"], each["active"], each["reported"], each["failed"]) for each in begun["arms"]] == [
        (0, 0, 0, 0),
        (0, 0, 0, 0),
    ]


def test_an_experiment_is_shown_with_its_verdict_and_history(http: httpx.Client) -> None:
    begun = http.post("experiments", json={"plan": TEXT}).raise_for_status().json()
    shown = http.get(f"experiments/{begun['id']}").json()
    assert shown["verdict"]["evidence"]["sample"] == {"reported": 0, "needed": 60}
    assert "history" not in shown
    whole = http.get(f"experiments/{begun['id']}", params={"history": True}).json()
    assert isinstance(whole["history"], list)
    assert [(each["actor"], each["action"]) for each in whole["acts"]] == [("admin", "start experiment")]
    (verdict,) = http.get(f"experiments/{begun['id']}/replay").json()["verdicts"]
    words = "0 of the 60 devices that are asked for have reported"
    assert (verdict["at"], verdict["move"], verdict["because"], verdict["same"]) == (T0, "wait", words, True)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "the field 'plan' is missing"),
        ({"plan": "x"}, 400, "experiment.yaml"),
        ({"plan": TEXT.replace("wake@2.0.0", "wake@9.9.9")}, 404, "9.9.9"),
        ({"plan": TEXT, "hour_s": 3601}, 400, "hour_s is 3601"),
    ],
)
def test_an_experiment_that_cannot_start_leaves_nothing(
    http: httpx.Client, body: dict[str, Any], status: int, words: str
) -> None:
    assert words in refusal(http.post("experiments", json=body), status=status)
    assert http.get("experiments").json() == []


def test_an_experiment_is_ended_by_hand(server: ServerInMemory, http: httpx.Client) -> None:
    begun = http.post("experiments", json={"plan": TEXT}).raise_for_status().json()["id"]
    said = refusal(http.post(f"experiments/{begun}/dance", json={}), status=404)
    assert said == "an experiment cannot be asked to 'dance'; it can: stop, keep, ship"
    sec = server.person("sec", "security")
    assert "'release'" in refusal(sec.post(f"experiments/{begun}/ship", json={"arm": "large"}))
    refusal(http.post(f"experiments/{begun}/ship", json={"arm": "none"}), status=404)
    server.clock.now = T0 + 50
    ended = sec.post(f"experiments/{begun}/stop", json={"because": "enough"}).raise_for_status().json()
    assert (ended["because"], ended["ended_at"]) == ("enough", T0 + 50)
    assert http.get("experiments", params={"live": True}).json() == []
    assert audited(http, "experiment stop")[0] == ("sec", "enough")
    for path in ("none", "none/replay"):
        refusal(http.get(f"experiments/{path}"), status=404)
    refusal(http.post("experiments/none/stop", json={}), status=404)


def test_a_shipped_arm_becomes_a_rollout(server: ServerInMemory, http: httpx.Client) -> None:
    begun = http.post("experiments", json={"plan": TEXT}).raise_for_status().json()["id"]
    shipped = http.post(f"experiments/{begun}/ship", json={"arm": "large", "because": "wider"}).raise_for_status()
    assert shipped.json()["winner"] == "large"
