"""Wrong values at every edge: each answer is one sentence of ours, without a word of a library or of the system."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.server import Running, repository, serving, whimbrel

FOREIGN = re.compile(
    r"msgspec|litestar|typer|pydantic|sqlalchemy|sqlite3|psycopg|Traceback|Errno|strerror|codec|matching regex|"
    r"malformed|unknown field|required field|Expected `|got `|truncated|Validation failed|No such file|Is a directory|"
    r"<class|object at 0x|SELECT |UNIQUE|constraint|NoneType|Error\(|Invalid enum"
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(repository(tmp_path_factory.mktemp("words") / "repo", versions=1)) as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are not what a command takes."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "broken.json").write_text('{"a":')
    (folder / "list.json").write_text("[]")
    (folder / "other.json").write_text('{"keyid": 7, "zz": 1}')
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "list.yaml").write_text("- a\n- b\n")
    (folder / "wrong.yaml").write_text(
        'rollout:\n  model_version: "wake@1.0.0"\n  stages:\n    - {name: "ab", target_percent: 400}\n'
    )
    (folder / "settings.yaml").write_text("refresh_s: soon\nzz: 1\n")
    (folder / "tickets.jsonl").write_text('{"ticket": 7}\n')
    (folder / "tickets.csv").write_text("ticket,when\n1,2\n")
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    return folder


FILES = ("broken.json", "list.json", "other.json", "binary", "list.yaml", "empty", "folder", "absent")
TAKES_A_FILE = (  # {}: a file that is not what is expected
    ("keys", "add", "root", "{}"),
    ("keys", "show", "{}"),
    ("keys", "submit", "{}"),
    ("rollout", "start", "{}"),
    ("rollout", "plan", "check", "{}"),
    ("experiment", "start", "{}"),
    ("model", "set", "wake", "--settings", "{}"),
    ("gate", "check", "--plan", "{}", "{}"),
    ("feedback", "import", "{}"),
    ("publish", "--model", "wake", "{}"),
    ("publish", "--model", "wake", "{}", "--card", "{}"),
    ("audit", "verify", "{}"),
    ("token", "list", "--token-file", "{}"),
)
WRONG = (  # a command, and words that must be in its answer
    (("token", "create", "ci", "--role", "pipeline", "--for", "400d"), "expected more than 0s and at most 366d"),
    (("token", "create", "ci", "--role", "pipeline", "--for", "soon"), "'soon' is no length of time"),
    (("token", "create", "C I", "--role", "pipeline"), "expected lower-case letters, digits, - and _"),
    (("token", "create", "ci", "--role", "emperor"), "emperor"),
    (("token", "create", "ci", "--role", "pipeline", "--person", "x" * 200), "person is 200 characters long"),
    (("device", "allow-again", "dev-1", "--key", "short"), "expected a public key of 43 characters"),
    (("device", "label", "dev-1", "a b=c"), "a name in labels is not as it should be; expected letters, digits"),
    (("device", "list", "--silent-for", "soon"), "is no span of time"),
    (("device", "list", "--selector", "a in b in c"), "selector"),
    (("enrol-token", "create", "lot 7"), "expected lower-case letters, digits, - and _"),
    (("enrol-token", "create", "lot", "--label", "region"), "has no value; write region=VALUE, such as region=NZ"),
    (("enrol-token", "create", "lot", "--label", "region="), "has no value; write region=VALUE"),
    (("enrol-token", "create", "lot", "--give", "=x"), "has no key; write KEY=VALUE"),
    (("model", "set", "wake", "--refresh-s", "-5"), "refresh_s is -5.0; expected a number of at least 0.1"),
    (("model", "set", "wake", "--hardware-label", "a b"), "hardware_label is 'a b'; expected letters, digits"),
    (("model", "set", "wake", "--settings", "{files}/settings.yaml"), "settings.yaml"),
    (("model", "add", "A b"), "lower-case letters"),
    (("rollout", "start", "{files}/wrong.yaml"), "expected a number of at most 100 (found '400')"),
    (("feedback", "import", "{files}/tickets.jsonl"), "tickets.jsonl:1"),
    (("feedback", "import", "{files}/tickets.csv"), "unknown column 'when'"),
    (("feedback", "add", "--model", "wake", "--ticket", "a b"), "expected letters, digits"),
    (("policy", "diff", "wake", "1", "999"), "999"),
    (("keys", "threshold", "root", "9"), "9 of 1 keys would have to sign root"),
)


def is_ours(said: str) -> None:
    assert not FOREIGN.search(said), said


@pytest.mark.parametrize("command", TAKES_A_FILE, ids=lambda command: " ".join(command[:3]))
def test_a_file_that_is_another_one_is_said_in_our_words(here: Running, files: Path, command: tuple[str, ...]) -> None:
    """`keys add ROLE private.pem` said `JSON is malformed: invalid number (byte 1)`."""
    for name in FILES:
        arguments = [each.format(files / name) for each in command]
        said = whimbrel(*arguments, "-R", here.folder)
        if said.status == 0:
            assert command[0] in {"feedback", "token"}, (name, said)  # an empty file of tickets; -R needs no token
            continue
        assert said.status not in {70, 130}, (name, said)
        is_ours(said.err)
        assert (said.err or said.out).count("\n") == 1, said


@pytest.mark.parametrize(("command", "words"), WRONG, ids=lambda each: " ".join(each[:4]) * (type(each) is tuple))
def test_a_wrong_value_is_said_in_our_words(here: Running, files: Path, command: tuple[str, ...], words: str) -> None:
    arguments = [each.format(files=files) for each in command]
    said = whimbrel(*arguments, "-R", here.folder)
    assert said.status in {1, 2, 4}, said
    is_ours(said.err)
    assert words in said.err


BODIES: tuple[bytes, ...] = (b"", b"{", b"[]", b"7", b"null", b"\xff", b'{"zz":1}', b'{"because":7}', b'{"name":7}')


def test_every_route_with_a_body_answers_a_wrong_one_in_our_words(here: Running) -> None:
    """`Validation failed for POST ...: days Expected float <= 366.0`."""
    schema = json.loads(httpx.get(f"{here.admin}/schema/openapi.json", trust_env=False).text)
    asked = 0
    with here.people() as admin:
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                if "requestBody" not in operation or "octet-stream" in str(operation["requestBody"]):
                    continue
                filled = re.sub(r"\{[^}]*\}", "nothing", path.partition("/admin/v1/")[2])
                for body in BODIES:
                    answer = admin.request(
                        method.upper(), f"/{filled}", content=body, headers={"content-type": "application/json"}
                    )
                    assert answer.status_code < 500, (method, path, body, answer.text)
                    if answer.is_error:
                        is_ours(answer.text)
                        asked += 1
    assert asked > 150


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/devices?limit=0", "limit is '0'; expected a number of at least 1"),
        ("/devices?limit=lots", "limit is 'lots'; expected a whole number"),
        ("/devices?blocked=perhaps", "blocked is 'perhaps'; expected true or false"),
        ("/devices?after=" + "x" * 500, "after is 500 characters long; expected at most"),
        ("/audit?limit=-1", "limit is '-1'; expected a number of at least"),
    ],
)
def test_a_wrong_query_is_answered_in_our_words(here: Running, path: str, words: str) -> None:
    with here.people() as admin:
        answer = admin.get(path)
    assert answer.status_code in {400, 404}, answer.text
    is_ours(answer.text)
    assert words in answer.json()["detail"]
