"""One person tries to be two: by a name in the body, by a second token, by what skips the approval, by a machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.accounts import machine, person, refusal, signed_in, started, token_of
from support.server import Running, done, repository, serving, whimbrel

PLAN = """rollout:
  model_version: "wake@2.0.0"
  stages:
    - {name: canary, target_percent: 5, duration_hours: 24}
    - {name: half, target_percent: 50, duration_hours: 24}
    - {name: all, target_percent: 100}
"""
TWO = PLAN.replace("target_percent: 5,", "target_percent: 5, approval: {count: 2},")
WHOLE = 'rollout: {model_version: "wake@2.0.0", stages: [{name: all, target_percent: 100}]}\n'

EXPERIMENT = """experiment:
  name: "two"
  variants:
    - {id: control, model_version: "wake@1.0.0"}
    - {id: new, model_version: "wake@2.0.0"}
  allocation: {control: 50%, new: SHARE%}
  primary_metric: error_rate
  minimum_sample_size: 1000
  duration_days: 7
  on_decision: DECISION
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def here(template: Path, tmp_path: Path) -> Iterator[Running]:
    with serving(shutil.copytree(template, tmp_path / "repo")) as running:
        yield running


def test_a_name_in_the_body_is_refused_and_changes_nothing(here: Running) -> None:
    """Once the body said who approved, and one token approved as ada and as bob; the audit log showed two people."""
    with person(here, "ada") as ada, person(here, "mallory") as mallory:
        draft = started(ada, TWO)
        said = refusal(mallory.post(f"rollouts/{draft['id']}/approve", json={"actor": "bob"}), status=400)
        assert "who does something is the account of the token that asks; leave actor out" in said
        for body in ({"plan": WHOLE, "actor": "bob"}, {"model": "wake", "plan": "", "actor": "bob"}):
            assert mallory.post("rollouts", json=body).status_code == 400
        assert mallory.get(f"rollouts/{draft['id']}").json()["approval"]["by"] == []


def test_one_person_approves_once_with_however_many_tokens(here: Running) -> None:
    second = token_of(here, "mallory-phone", "releaser", person="mallory")
    with person(here, "ada") as ada, person(here, "mallory") as mallory, signed_in(here, second) as phone:
        draft = started(ada, TWO)
        assert mallory.post(f"rollouts/{draft['id']}/approve", json={}).json()["approval"]["by"] == ["mallory"]
        assert "mallory approved it already; 1 more must" in refusal(
            phone.post(f"rollouts/{draft['id']}/approve", json={})
        )
        with person(here, "bob") as bob:
            assert bob.post(f"rollouts/{draft['id']}/approve", json={}).json()["state"] != "draft"
        acts = [(each["actor"], each["action"]) for each in ada.get("audit", params={"rollout": draft["id"]}).json()]
        assert acts[:4] == [("bob", "start"), ("bob", "approve"), ("mallory", "approve"), ("ada", "draft")]


def test_who_started_it_is_not_the_second_person(here: Running) -> None:
    other = token_of(here, "ada-phone", "releaser", person="ada")
    with person(here, "ada") as ada, signed_in(here, other) as phone:
        draft = started(ada, TWO)
        for client in (ada, phone):
            assert "ada started it, and stage canary needs the approval of another person" in refusal(
                client.post(f"rollouts/{draft['id']}/approve", json={})
            )


def test_past_the_share_that_the_model_names_it_waits_for_another_person(here: Running) -> None:
    with here.people() as admin, person(here, "ada") as ada, person(here, "bob") as bob:
        admin.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
        begun = started(ada, PLAN)
        assert (begun["state"], [each["approvals"] for each in begun["stages"]]) == ("running", [0, 1, 0])
        # Nor does finishing it by hand skip the other person.
        said = refusal(ada.post(f"rollouts/{begun['id']}/finish", json={}))
        assert said == "ada started it, and stage half, which finishing skips, needs the approval of another person"
        assert bob.post(f"rollouts/{begun['id']}/finish", json={}).json()["state"] == "completed"


def test_a_plan_of_one_stage_past_that_share_is_a_draft(here: Running) -> None:
    with here.people() as admin, person(here, "ada") as ada, person(here, "bob") as bob:
        admin.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
        draft = started(ada, WHOLE)
        assert (draft["state"], draft["approval"]["note"]) == ("draft", "this model needs a second person above 10%")
        assert bob.post(f"rollouts/{draft['id']}/approve", json={}).json()["state"] != "draft"


def test_a_part_of_the_fleet_is_not_made_everybodys_by_the_one_who_began(here: Running) -> None:
    """A rollout of 5% of the buckets stays below the share, and `finish` would make its version everybody's."""
    part = PLAN.replace("rollout:\n", "rollout:\n  range_percent: [0, 5]\n")
    with here.people() as admin, person(here, "ada") as ada, person(here, "bob") as bob:
        admin.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
        begun = started(ada, part)
        assert [each["approvals"] for each in begun["stages"]] == [0, 0, 0]
        assert "what passes 10% of this model's devices needs the approval of another person" in refusal(
            ada.post(f"rollouts/{begun['id']}/finish", json={})
        )
        assert bob.post(f"rollouts/{begun['id']}/finish", json={}).json()["state"] == "completed"


def test_rollouts_beside_each_other_are_no_way_round_the_second_person(here: Running) -> None:
    """Ten rollouts of a tenth of the buckets each were everybody, and none of them passed the share of 10%."""
    with here.people() as admin, person(here, "ada") as ada:
        admin.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
        tenth = WHOLE.replace("{model", "{range_percent: [LOW, HIGH], holdback_percent: 0, model")
        states = [
            started(ada, tenth.replace("LOW", str(low)).replace("HIGH", str(low + 10)))["state"] for low in (0, 10, 90)
        ]
        assert states[0] != "draft"
        assert states[1:] == ["draft", "draft"]
        body = EXPERIMENT.replace("SHARE", "5").replace("DECISION", "record")
        assert "of which others have" in refusal(ada.post("experiments", json={"plan": body}))


def test_one_person_and_a_pipeline_are_not_two_people(here: Running) -> None:
    """Who set a pipeline's draft going had not started it, and could finish it past the share alone."""
    with (
        here.people() as admin,
        person(here, "ada") as ada,
        person(here, "bob") as bob,
        machine(here, "ci", "pipeline") as ci,
    ):
        admin.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
        draft = started(ci, PLAN, draft=True)
        assert ada.post(f"rollouts/{draft['id']}/approve", json={}).json()["state"] != "draft"
        assert "ada started it" in refusal(ada.post(f"rollouts/{draft['id']}/finish", json={}))
        assert bob.post(f"rollouts/{draft['id']}/abort", json={}).json()["state"] == "aborted"
        whole = started(ci, WHOLE, draft=True)
        first = ada.post(f"rollouts/{whole['id']}/approve", json={}).json()
        assert (first["state"], first["approval"]["missing"]) == ("draft", 1)
        assert bob.post(f"rollouts/{whole['id']}/approve", json={}).json()["state"] != "draft"


def test_a_machine_is_no_second_person_by_finishing_or_starting(here: Running) -> None:
    """A releaser's robot finished what ada started, and ada finished what it started: the rule saw two accounts."""
    with (
        here.people() as admin,
        person(here, "ada") as ada,
        person(here, "bob") as bob,
        machine(here, "robot", "releaser") as robot,
    ):
        admin.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
        part = PLAN.replace("rollout:\n", "rollout:\n  range_percent: [0, 5]\n")
        hers = started(ada, part)
        assert "a person who signed in as such, and robot did not" in refusal(
            robot.post(f"rollouts/{hers['id']}/finish", json={})
        )
        ada.post(f"rollouts/{hers['id']}/abort", json={}).raise_for_status()
        its = started(robot, part)
        assert "ada would be the only person" in refusal(ada.post(f"rollouts/{its['id']}/finish", json={}))
        ada.post(f"rollouts/{its['id']}/abort", json={}).raise_for_status()
        whole = started(robot, PLAN)
        assert [each["approvals"] for each in whole["stages"]] == [0, 2, 0]
        for anybody in (robot, bob):
            refusal(anybody.post(f"rollouts/{whole['id']}/finish", json={}))


def test_an_experiment_is_no_way_round_the_second_person(here: Running) -> None:
    with here.people() as admin, person(here, "ada") as ada:
        admin.patch("models/wake", json={"second_person_above_percent": 10}).raise_for_status()
        for share, decision, words in (
            ("50", "record", "its arms have 50% of the devices"),
            ("5", "baseline", "makes an arm everybody's by one person's word"),
        ):
            body = {"plan": EXPERIMENT.replace("SHARE", share).replace("DECISION", decision)}
            assert words in refusal(ada.post("experiments", json=body))


def test_a_machine_approves_nothing(here: Running) -> None:
    with person(here, "ada") as ada, machine(here, "robot", "admin") as robot:
        draft = started(ada, TWO)
        assert "robot is a machine's account, and only people approve" in refusal(
            robot.post(f"rollouts/{draft['id']}/approve", json={})
        )


def test_the_command_line_says_nobodys_name(here: Running, tmp_path: Path) -> None:
    """WHIMBREL_ACTOR and --by once named whoever the caller liked; a folder's user is the one that the system says."""
    said = whimbrel("rollout", "approve", "some", "--by", "bob", "-R", here.folder)
    assert (said.status, "no such option: --by" in said.err.lower()) == (2, True)


def test_in_a_folder_the_user_of_the_system_acts(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(template, tmp_path / "repo")
    before = done("token", "whoami", "-R", folder)
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "WHIMBREL_ACTOR"):
        monkeypatch.setenv(name, "somebody-else")
    after = done("token", "whoami", "-R", folder)
    assert before == after
    assert (after["kind"], after["roles"], after["token"]) == ("person", ["admin"], None)
    assert after["account"] != "somebody-else"
