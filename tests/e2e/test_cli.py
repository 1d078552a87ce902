"""The command line, on a folder: what it does, and the one sentence that each error is."""

import json
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import done, model_file, plan_file, repository, serving, whimbrel
from whimbrel import errors

COMMANDS = [
    (),
    ("init",),
    ("serve",),
    ("model",),
    ("model", "add"),
    ("model", "list"),
    ("model", "set"),
    ("model", "show"),
    ("model", "alias"),
    ("model", "rollback"),
    ("publish",),
    ("version",),
    ("version", "list"),
    ("version", "show"),
    ("version", "retire"),
    ("version", "revoke"),
    ("version", "unquarantine"),
    ("floor",),
    ("floor", "require"),
    ("floor", "renew"),
    ("floor", "show"),
    ("floor", "lift"),
    ("rollout",),
    ("rollout", "start"),
    ("rollout", "list"),
    ("rollout", "status"),
    ("rollout", "watch"),
    ("rollout", "wait"),
    ("rollout", "plan", "new"),
    ("context",),
    ("context", "add"),
    ("rollout", "pause"),
    ("rollout", "resume"),
    ("rollout", "abort"),
    ("rollout", "rollback"),
    ("audit",),
    ("feedback",),
    ("feedback", "add"),
    ("feedback", "import"),
    ("feedback", "list"),
    ("collect",),
    ("agent",),
    ("tuf-client",),
    ("tuf-client", "refresh"),
    ("demo",),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Path:
    """Two published versions."""
    return Path(shutil.copytree(template, tmp_path / "repo"))


def fails(*arguments: object, words: str, status: int | None = None) -> None:
    """One sentence on standard error, a status that is not 0, nothing on standard output, no traceback."""
    said = whimbrel(*arguments)
    assert said.status not in {0, 70}, said
    assert status in {None, said.status}, said
    assert said.err.startswith("whimbrel: "), said
    assert said.err.count("\n") == 1, said
    assert words in said.err
    assert said.out == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    said = whimbrel(*command, "--help")
    assert said.status == 0
    assert "Usage:" in said.out


# --- the whole journey on a desk ---


def test_init_keeps_the_keys_apart_and_to_oneself(repo: Path) -> None:
    assert {path.name for path in (repo / "keys" / "offline").iterdir()} == {
        "root.pem",
        "targets.pem",
        "publisher-wake.pem",
        "roles-seen.json",  # with it, what the folder remembers of the server
        "trusted-root",
    }
    secrets = [*(repo / "keys").rglob("*.pem"), *(repo / "keys").rglob("*.key"), *repo.glob("*.token")]
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}


def test_models_and_versions_are_listed(repo: Path) -> None:
    (model,) = done("model", "list", "-R", repo)
    assert (model["name"], model["versions"], model["aliases"]) == ("wake", 2, {"champion": 1})
    assert [v["semantic_version"] for v in done("version", "list", "-m", "wake", "-R", repo)] == ["1.0.0", "2.0.0"]
    shown = done("version", "show", "2.0.0", "-m", "wake", "-R", repo)
    variant = shown["release"]["variants"][0]
    assert variant["files"][0]["format"] == "onnx"
    assert variant["signature"]["inputs"][0] == {"name": "x", "dtype": "float32", "shape": [1, 4]}


def test_text_for_people(repo: Path) -> None:
    for command, words in (
        (("model", "list"), "wake"),
        (("version", "list", "-m", "wake"), "2.0.0"),
        (("version", "show", "1", "-m", "wake"), "serial 1"),
        (("version", "show", "2", "-m", "wake"), "onnx, fp32"),
        (("rollout", "list"), "none"),
        (("audit",), "publish"),
        (("collect",), "deleted 0 artifacts"),
    ):
        said = whimbrel(*command, "-R", repo)
        assert (said.status, said.err) == (0, "")
        assert words in said.out


@pytest.mark.long
def test_two_ten_is_listed_after_two_nine(repo: Path) -> None:
    for number, version in ((3, "2.9.0"), (4, "2.10.0")):
        done("publish", "-m", "wake", model_file(repo.parent, number), "--semantic-version", version, "-R", repo)
    assert [v["semantic_version"] for v in done("version", "list", "-m", "wake", "-R", repo)][-2:] == [
        "2.9.0",
        "2.10.0",
    ]
    next_one = done("publish", "-m", "wake", model_file(repo.parent, 5), "-R", repo)
    assert next_one["semantic_version"] == "2.10.1"


def test_what_a_file_asks_of_its_runtime_is_published_with_it(repo: Path) -> None:
    (one,) = done("version", "show", "1", "-m", "wake", "-R", repo)["release"]["variants"]
    (term,) = one["selector"]["match_expressions"]
    assert term == {"key": "runtime.onnxruntime", "operator": "NotVersion", "values": ["<1.15"]}
    said = whimbrel("publish", "-m", "wake", model_file(repo.parent, 8), "-R", repo, "--variant", "name=own")
    assert "not for devices whose runtime.onnxruntime is <1.15" in said.out


def test_the_same_bytes_are_stored_once_and_it_says_so(repo: Path) -> None:
    again = whimbrel("publish", "-m", "wake", model_file(repo.parent, 1), "-R", repo, "--semantic-version", "3.0.0")
    assert again.status == 0
    assert "stored once" in again.out
    assert "the same files as" in again.out
    assert len(list((repo / "files" / "default" / "artifacts").iterdir())) == 2


def test_a_published_number_is_refused_with_the_difference(repo: Path) -> None:
    other = model_file(repo.parent, 7)
    fails("publish", "-m", "wake", other, "-R", repo, "--semantic-version", "2.0.0", words="became", status=4)
    assert len(done("version", "list", "-m", "wake", "-R", repo)) == 2


def test_a_model_says_how_many_earlier_versions_get_a_direct_patch(repo: Path) -> None:
    assert done("model", "set", "wake", "--delta-bases", 5, "-R", repo)["settings"]["delta_bases"] == 5
    fails("model", "set", "wake", "--delta-bases", 65, "-R", repo, words="delta_bases")


def test_a_models_conditions_are_set_each_alone_and_shown(repo: Path) -> None:
    """`--start-jitter-s` was the only condition that could be set, and it took all others away."""

    def conditions(*options: object) -> dict[str, object]:
        changed = done("model", "set", "wake", *options, "-R", repo)
        assert done("model", "show", "wake", "-R", repo) == changed
        return changed["settings"].get("conditions", {})

    night = {"start_s": 79200, "end_s": 21600, "zone": "local"}
    everything = ("--unmetered", "--charging", "--window", "22:00-06:00 local", "--battery-min", 0.25)
    given = {"unmetered": True, "charging": True, "windows": [night], "battery_min": 0.25}
    assert conditions(*everything) == given
    assert conditions("--start-jitter-s", 60) == given | {"start_jitter_s": 60.0}
    shown = whimbrel("model", "show", "wake", "-R", repo).out
    assert "from 22:00 to 06:00 local time; spread over 60 s" in shown
    assert "with at least 25% of charge, or charging" in shown
    left = conditions("--no-unmetered", "--no-battery-min", "--no-window")
    assert left == {"charging": True, "start_jitter_s": 60.0}
    assert conditions("--no-charging", "--no-start-jitter-s") == {"start_jitter_s": 0.0}
    out = whimbrel("model", "show", "wake", "-R", repo).out
    assert "none: devices fetch and activate at once" in out
    assert done("model", "show", "wake", "-R", repo)["baseline_version"] in out
    fails("model", "set", "wake", "--window", "01:00-02:00", "--no-window", "-R", repo, words="keep one of them")
    fails("model", "set", "wake", "--battery-min", 30, "-R", repo, words="battery_min", status=2)
    added = done("model", "add", "other", "--idle", "--storage-mib-min", 500, "-R", repo)
    assert added["settings"]["conditions"] == {"idle": True, "storage_mib_min": 500}


@pytest.mark.long
def test_budgets_are_kept(repo: Path) -> None:
    done("model", "set", "wake", "--size-bytes-max", 1000, "--metric-min", "accuracy=0.84", "-R", repo)
    large, small = model_file(repo.parent, 8, size=5000), model_file(repo.parent, 9)
    fails("publish", "-m", "wake", large, "-R", repo, words="the budget of wake is 1000")
    fails("publish", "-m", "wake", small, "-R", repo, words="asks for the metric accuracy")
    fails("publish", "-m", "wake", small, "-R", repo, "--metric", "accuracy=0.5", words="asks for at least 0.84")
    fails("publish", "-m", "wake", small, "-R", repo, "--metric", "accuracy=nan", words="is not understood")
    done("publish", "-m", "wake", small, "-R", repo, "--metric", "accuracy=0.9")


def test_a_rollout_from_start_to_end(repo: Path) -> None:
    plan = plan_file(repo.parent)
    begun = done("rollout", "start", plan, "-R", repo)
    fails("rollout", "start", plan, "-R", repo, words="is running", status=4)
    assert done("rollout", "status", begun["id"], "-R", repo)["verdict"]["move"] == "wait"
    assert "gate: wait" in whimbrel("rollout", "status", begun["id"], "-R", repo).out
    for move, state in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
        assert done("rollout", move, begun["id"], "-R", repo, "--because", "a test")["state"] == state
    fails(
        "rollout",
        "resume",
        begun["id"],
        "-R",
        repo,
        words="aborted takes no resume; nothing can be asked of it any more",
    )
    second = done("rollout", "start", plan, "-R", repo)
    assert done("rollout", "rollback", second["id"], "-R", repo)["state"] == "rolled_back"
    fails("rollout", "start", plan, "-R", repo, words="was taken back before")
    assert [r["state"] for r in done("rollout", "list", "-R", repo)] == ["aborted", "rolled_back"]
    actions = [entry["action"] for entry in done("audit", "-R", repo, "--rollout", begun["id"])]
    assert actions == ["abort", "resume", "pause", "start"]


def test_a_pipeline_gates_on_the_end_of_a_rollout(repo: Path) -> None:
    first = done("rollout", "start", plan_file(repo.parent), "-R", repo)["id"]
    waiting = whimbrel("rollout", "wait", first, "--timeout", "1s", "-R", repo)
    assert (waiting.status, waiting.out) == (3, "")
    assert "after 1s" in waiting.err
    assert f"whimbrel rollout status {first}" in waiting.err
    fails("rollout", "wait", first, "--timeout", "1", "-R", repo, words="such as 90s, 30m", status=2)
    done("rollout", "abort", first, "-R", repo)
    second = done("rollout", "start", plan_file(repo.parent), "-R", repo)["id"]
    done("rollout", "finish", second, "-R", repo, "--because", "a test")
    for end, state, status in ((first, "aborted", 1), (second, "completed", 0)):
        for command in (("watch",), ("wait",), ("wait", "--for", "ended"), ("wait", "--json")):
            said = whimbrel("rollout", *command, end, "-R", repo)
            assert (said.status, said.err) == (status, "")
            assert state in said.out


def test_a_new_plan_is_accepted_by_the_check_of_plans(repo: Path, tmp_path: Path) -> None:
    plan = tmp_path / "my plan.yaml"
    written = whimbrel("rollout", "plan", "new", "-m", "wake", "-o", plan, "-R", repo)
    assert f"Next: whimbrel rollout plan check '{plan}'" in written.out
    checked = done("rollout", "plan", "check", plan, "-R", repo)
    assert checked["target"].endswith("(2.0.0)")
    assert [stage["name"] for stage in checked["stages"]] == ["canary", "early", "general"]
    assert done("rollout", "start", plan, "-R", repo)["stages"][0]["name"] == "canary"
    fails("rollout", "plan", "new", "-m", "wake", "-o", plan, "-R", repo, words="is there already", status=4)
    fails("rollout", "plan", "new", "-m", "sleep", "-R", repo, words="there is no model 'sleep'", status=4)
    printed = whimbrel("rollout", "plan", "new", "-m", "wake", "--version", "2.0.0")  # no server is asked
    assert (printed.status, 'model_version: "wake@2.0.0"' in printed.out) == (0, True)
    fails("rollout", "plan", "new", "-m", "Bad Name", "--version", "1.0.0", words="names no version", status=2)


def test_a_reference_is_counted_from_the_validation_samples_and_signed(repo: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(
        """semantic_version: "3.0.0"
reference: validation
probe:
  validation:
    inputs: {x: {dtype: float32, shape: [3, 4], values: [9, 0, 0, 0, 9, 0, 0, 0, 0, 9, 0, 0]}}
    labels: [0, 0, 1]
    output: y
    accuracy_min: 0.9
""",
        encoding="utf-8",
    )
    done("publish", "--model", "wake", model_file(tmp_path, 3), "--card", card, "-R", repo)
    reference = done("version", "show", "3.0.0", "-m", "wake", "-R", repo)["release"]["reference"]
    assert (reference["kind"], reference["bins"]) == ("classes", [0, 1])
    assert reference["shares"] == [2.5 / 4, 1.5 / 4]


def test_tickets_of_users_are_handed_on_once_and_listed(repo: Path, tmp_path: Path) -> None:
    given = ("feedback", "add", "--model", "wake", "--ticket", "Z-1", "--version", "2.0.0", "--text", "deaf")
    assert done(*given, "-R", repo) == {"new": 1, "known": 0, "refused": {}}
    assert done(*given, "-R", repo)["known"] == 1
    file = tmp_path / "tickets.csv"
    file.write_text("ticket,version,at,text\nZ-2,1.0.0,2026-03-04T23:00:00Z,slow\nZ-1,2.0.0,,again\n", encoding="utf-8")
    assert done("feedback", "import", file, "-m", "wake", "-R", repo) == {"new": 1, "known": 1, "refused": {}}
    lines = tmp_path / "tickets.jsonl"
    lines.write_text('{"ticket": "Z-3", "model": "wake", "device_id": "nobody"}\n', encoding="utf-8")
    said = whimbrel("feedback", "import", lines, "-R", repo)
    assert said.status == 1
    assert "Z-3: no device 'nobody' is enrolled" in said.out
    listed = done("feedback", "list", "-m", "wake", "-R", repo)
    assert [(each["ticket"], each["text"]) for each in listed] == [("Z-1", "deaf"), ("Z-2", "slow")]
    fails("feedback", "add", "-m", "wake", "--ticket", "Z-4", "-R", repo, words="either a device or a version")


def test_aliases_retirement_and_collection(repo: Path) -> None:
    done("model", "alias", "wake", "stable", "2.0.0", "-R", repo)
    assert done("version", "show", "stable", "-m", "wake", "-R", repo)["serial"] == 2
    fails("version", "retire", "1.0.0", "-m", "wake", "-R", repo, words="nobody can be asked")
    fails("version", "retire", "1.0.0", "-m", "wake", "--yes", "-R", repo, words="is the baseline")
    assert done("collect", "--older-than-hours", 0, "-R", repo)["collected"] == []
    done("version", "retire", "stable", "-m", "wake", "--yes", "-R", repo)
    fails("rollout", "start", plan_file(repo.parent), "-R", repo, words="is retired")
    fails("collect", "--older-than-hours", 0, "-R", repo, words="give --yes", status=4)
    tried = done("collect", "--older-than-hours", 0, "--dry-run", "-R", repo)
    assert (len(tried["collected"]), tried["dry_run"]) == (1, True)
    said = whimbrel("collect", "--older-than-hours", 0, "--dry-run", "-R", repo).out
    assert f"  {tried['collected'][0]}\nwould delete 1 artifact, " in said
    assert len(list((repo / "files" / "default" / "artifacts").iterdir())) == 2
    collected = done("collect", "--older-than-hours", 0, "--yes", "-R", repo)
    assert collected == tried | {"dry_run": False}
    assert len(list((repo / "files" / "default" / "artifacts").iterdir())) == 1


def test_a_revocation_is_signed_by_the_publisher_and_said_once(repo: Path) -> None:
    fails("version", "revoke", "2.0.0", "-m", "wake", "-R", repo, words="cannot be undone", status=4)
    assert done("version", "revoke", "2.0.0", "-m", "wake", "--yes", "--because", "a leak", "-R", repo)["revoked"] == [
        2
    ]
    fails("version", "revoke", "2.0.0", "-m", "wake", "-R", repo, words="is revoked already")
    assert done("audit", "-R", repo)[0]["because"] == "a leak"


def test_versions_are_listed_with_their_names_and_states(repo: Path) -> None:
    for number in (3, 4, 5):
        done(
            "publish", "-m", "wake", model_file(repo.parent, number), "-R", repo, "--semantic-version", f"{number}.0.0"
        )
    done("version", "retire", "3.0.0", "-m", "wake", "--yes", "-R", repo)
    done("version", "revoke", "3.0.0", "-m", "wake", "--yes", "-R", repo)
    taken_back = done("rollout", "start", plan_file(repo.parent, "wake@4.0.0"), "-R", repo)["id"]
    done("rollout", "rollback", taken_back, "--because", "too slow", "-R", repo)
    done("model", "alias", "wake", "next", "5.0.0", "-R", repo)
    listed = {each["semantic_version"]: each for each in done("version", "list", "-m", "wake", "-R", repo)}
    assert [each["baseline"] for each in listed.values()] == [True, False, False, False, False]
    assert [each["revoked"] for each in listed.values()] == [False, False, True, False, False]
    assert [len(each["quarantined"]) for each in listed.values()] == [0, 0, 0, 1, 0]
    assert listed["4.0.0"]["quarantined"][0]["devices"] == "every device"
    assert listed["4.0.0"]["quarantined"][0]["because"] == "too slow"
    lines = whimbrel("version", "list", "-m", "wake", "-R", repo).out.splitlines()
    assert "devices  names     state             published (UTC)" in lines[1]
    states = [line.split()[7:-2] for line in lines[2:]]
    assert states == [["champion", "baseline"], [], ["revoked,", "retired"], ["quarantined"], ["next"]]


def test_every_error_that_a_server_gives_reads_the_same_by_url(repo: Path, tmp_path: Path) -> None:
    token = repo / "admin.token"
    with serving(repo) as here:
        where = ("--server", here.admin, "--token-file", token)
        assert done("model", "list", *where)[0]["name"] == "wake"
        fails("version", "list", "-m", "sleep", *where, words="there is no model 'sleep' (models: wake)")
        fails("publish", "-m", "wake", model_file(tmp_path, 3), *where, words="--keys")
        wrong = tmp_path / "wrong.token"
        wrong.write_text("x" * 32)
        fails(
            "model",
            "list",
            "--server",
            here.admin,
            "--token-file",
            wrong,
            words="this token is not known here",
            status=4,
        )
        fails(
            "model",
            "list",
            "--server",
            here.devices,
            "--token-file",
            token,
            words="is the address that devices ask; people ask",
        )
        answer = whimbrel("rollout", "list", *where)
        assert answer.out == "rollouts: none\n"


# --- bad input ---

ERRORS = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def test_the_sentences_of_the_reference_are_those_that_are_printed(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = re.findall(r"^\| `whimbrel (.+)` \| (\d) \| (.+) \|$", ERRORS.read_text(), re.M)
    assert len(rows) > 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHIMBREL_REPOSITORY", str(repo))
    for command, status, sentence in rows:
        said = whimbrel(*shlex.split(command))
        assert (said.status, said.out, said.err) == (int(status), "", f"whimbrel: {sentence}\n")


def test_the_statuses_of_the_reference_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (\d*) \|", ERRORS.read_text(), re.M)
    listed = {kind: (int(status), int(http)) for status, kind, http in rows if http}
    kinds = [errors.WhimbrelError]
    for kind in kinds:
        kinds += [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    assert listed == {kind.__name__: (kind.exit_code, kind.status) for kind in kinds}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model", "list"), "name either a folder"),
        (("model", "list", "-R", "{no}"), "is no Whimbrel repository"),
        (("model", "list", "-R", "{repo}", "--server", "http://127.0.0.1:1"), "each name a repository"),
        (("model", "list", "--server", "http://127.0.0.1:1"), "asks for a token: sign in (whimbrel login)"),
        (("model", "add", "Bad Name", "-R", "{repo}"), "is not a model name"),
        (("model", "add", "wake", "-R", "{repo}"), "exists already"),
        (("model", "add", "x", "-R", "{repo}", "--salt", "-1"), "salt"),
        (("model", "set", "wake", "-R", "{repo}"), "nothing to change"),
        (("model", "set", "wake", "-R", "{repo}", "--refresh-s", "0"), "refresh_s"),
        (("model", "set", "wake", "-R", "{repo}", "--metric-min", "x"), "expected NAME=VALUE"),
        (("model", "set", "sleep", "-R", "{repo}", "--refresh-s", "60"), "there is no model 'sleep'"),
        (("publish", "-m", "wake", "{no}", "-R", "{repo}"), "there is no file"),
        (("publish", "-m", "wake", "{text}", "-R", "{repo}"), "model.txt"),
        (("publish", "-m", "wake", "{empty}", "-R", "{repo}"), "empty.onnx"),
        (("publish", "-m", "sleep", "{onnx}", "-R", "{repo}"), "there is no model 'sleep'"),
        (("publish", "-m", "wake", "{onnx}", "-R", "{repo}", "--version", "2026.02.30.1"), "day"),
        (("publish", "-m", "wake", "{onnx}", "-R", "{repo}", "--semantic-version", "3"), "not a semantic version"),
        (("publish", "-m", "wake", "{onnx}", "-R", "{repo}", "--card", "{no}"), "cannot be read"),
        (("publish", "-m", "wake", "{onnx}", "-R", "{repo}", "--keys", "{no}"), "there is no key"),
        (("version", "show", "9.9.9", "-m", "wake", "-R", "{repo}"), "has no version '9.9.9'"),
        (("version", "show", "1.0.0", "-m", "wake?x", "-R", "{repo}"), "wake?x"),
        (("version", "show", "99", "-m", "wake", "-R", "{repo}"), "no version with serial 99"),
        (("rollout", "start", "{no}", "-R", "{repo}"), "cannot be read"),
        (("rollout", "start", "{text}", "-R", "{repo}"), "model.txt"),
        (("rollout", "start", "{repo}", "-R", "{repo}"), "cannot be read"),
        (("rollout", "status", "none", "-R", "{repo}"), "there is no rollout 'none'"),
        (("rollout", "pause", "../../status", "-R", "{repo}"), "there is no POST"),
        (("init", "{repo}"), "is a Whimbrel repository already"),
        (("init", "{full}"), "is not empty"),
        (("init", "{no}", "--namespace", "A B"), "namespace"),
        (("init", "{no}", "--inbox", "kafka://x"), "inbox"),
        (("init", "{no}", "--database", "nonsense"), "database URL"),
        (("serve", "{no}"), "is no Whimbrel repository"),
        (("serve", "{repo}", "--listen", "nowhere"), "is no address"),
    ],
)
def test_bad_input_is_one_sentence(template: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.txt").write_text("not a model: [")
    (tmp_path / "full" / "empty.onnx").touch()
    places = {
        "no": tmp_path / "absent",
        "repo": template,
        "full": tmp_path / "full",
        "text": tmp_path / "full" / "model.txt",
        "empty": tmp_path / "full" / "empty.onnx",
        "onnx": model_file(tmp_path, 6),
    }
    fails(*(each.format(**places) for each in arguments), words=words)
    assert not (tmp_path / "absent").exists()


def test_a_settings_file_that_is_not_understood_is_refused(repo: Path) -> None:
    for content, words in (("database = 7", "database"), ("x = 1", "it has no field 'x'"), ("=", "is not TOML")):
        (repo / "whimbrel.toml").write_text(content)
        fails("model", "list", "-R", repo, words=words)


def test_a_damaged_database_is_refused(repo: Path) -> None:
    for path in repo.glob("whimbrel.db*"):
        path.unlink()
    (repo / "whimbrel.db").write_bytes(b"rubbish" * 1000)
    fails("model", "list", "-R", repo, words="not an SQLite database")


def test_a_locked_database_is_waited_for_and_then_said(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whimbrel.stores.database.LOCK_WAIT_S", 0.3)
    holder = sqlite3.connect(repo / "whimbrel.db", isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        fails("model", "list", "-R", repo, words="the database is locked", status=3)
    finally:
        holder.close()


def test_a_port_in_use_is_said(repo: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        fails("serve", repo, "--listen", address, words="cannot listen on", status=3)


def test_a_key_that_is_none_is_refused(repo: Path) -> None:
    (repo / "keys" / "offline" / "publisher-wake.pem").write_text("no key")
    fails("publish", "-m", "wake", model_file(repo.parent, 3), "-R", repo, words="is not a private key in PEM form")
    (repo / "keys" / "online" / "policy.pem").unlink()
    fails("model", "set", "wake", "--refresh-s", 61, "-R", repo, words="which this server does not hold")


def test_another_models_key_publishes_nothing(repo: Path) -> None:
    keys = repo / "keys" / "offline"
    shutil.copy(keys / "targets.pem", keys / "publisher-wake.pem")
    fails("publish", "-m", "wake", model_file(repo.parent, 3), "-R", repo, words="that may sign publisher-wake")
    assert len(done("version", "list", "-m", "wake", "-R", repo)) == 2


# --- real processes ---


def run(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "whimbrel.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def test_an_error_of_a_process_is_one_sentence_and_its_status() -> None:
    said = run("model", "list", "-R", "/nowhere")
    assert (said.returncode, said.stdout) == (4, "")
    assert said.stderr.startswith("whimbrel: /nowhere is no Whimbrel repository")
    assert "Traceback" not in said.stderr


@pytest.mark.long
def test_a_full_disk_leaves_no_half_written_state(repo: Path) -> None:
    """Files may not grow beyond 64 KiB, as on a full disk: the upload fails, and nothing of it is kept."""
    large = model_file(repo.parent, 3, size=400_000)

    def small_files() -> None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    before = sorted(path.name for path in (repo / "files" / "default" / "artifacts").iterdir())
    said = run("publish", "-m", "wake", large, "-R", repo, preexec_fn=small_files)
    assert said.returncode == 3
    assert said.stderr.count("\n") == 1
    assert "Traceback" not in said.stderr
    assert sorted(path.name for path in (repo / "files" / "default" / "artifacts").iterdir()) == before
    assert len(done("version", "list", "-m", "wake", "-R", repo)) == 2
    done("publish", "-m", "wake", large, "-R", repo)


def test_the_device_wing_is_small_to_import() -> None:
    """`import whimbrel` brings neither numpy, nor the server's libraries, nor tuf."""
    program = "import sys, json, whimbrel; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    heavy = {"numpy", "tuf", "sqlalchemy", "litestar", "uvicorn", "obstore", "nats", "typer", "rich", "urllib3", "onnx"}
    assert heavy.isdisjoint(json.loads(out))
