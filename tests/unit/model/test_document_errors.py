"""What is refused is refused in words for people: the field, what was found, what is expected."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from support.server import done, repository, whimbrel
from whimbrel import limits
from whimbrel.cli.model_settings import checked
from whimbrel.errors import InvariantBroken, UntrustedInput
from whimbrel.flows.records import NewSettings
from whimbrel.model.documents import Document, parse
from whimbrel.model.ids import Name
from whimbrel.model.patterns import matching


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"refresh_s": -1}, "refresh_s is -1; expected a number of at least 0.1"),
        ({"delta_bases": 100}, "delta_bases is 100; expected a number of at most 64"),
        (
            {"objectives": [{"measure": "ab", "at_most": 1, "least": 0}]},
            "least of objective 1 is 0; expected a number of at least 1",
        ),
        (
            {"objectives": [{"measure": "a b", "at_most": 1}]},
            "measure of objective 1 is 'a b'; expected letters, digits, and _ . / - between them",
        ),
        ({"hardware_label": "a b"}, "hardware_label is 'a b'; expected letters, digits"),
        ({"slice_labels": ["os"] * 20}, "slice_labels is 20 long; expected at most 3 of them"),
        ({"conditions": {"battery_min": 3}}, "battery_min of conditions is 3; expected a number of at most 1"),
        ({"refresh_s": "x"}, "refresh_s is 'x'; expected a number"),
        ({"local_limits": {"accuracy_min": 84}}, "accuracy_min of local_limits is 84; expected a number below 1"),
        (
            {"conditions": {"windows": [{"start_s": 0, "end_s": 1, "zone": "x!"}]}},
            "zone of window 1 of conditions is 'x!'",
        ),
    ],
)
def test_a_setting_is_refused_in_words(settings: dict[str, Any], words: str) -> None:
    """`Validation failed for PATCH ...: objectives[0].least Expected int >= 1`, and regular expressions, came."""
    with pytest.raises(UntrustedInput) as refused:
        checked(NewSettings, settings)
    assert words in str(refused.value)
    assert "`" not in str(refused.value)


class _Part(Document, frozen=True):
    name: Name
    share: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    color: Literal["red", "blue"] = "red"


class _Whole(Document, frozen=True):
    parts: Annotated[tuple[_Part, ...], msgspec.Meta(min_length=1, max_length=2)]
    by_name: dict[str, _Part] = {}
    pair: tuple[int, int] | None = None
    shares: dict[Name, int] = {}
    text: Annotated[str, msgspec.Meta(max_length=5)] = ""
    on: bool = False


class _Secret(Document, frozen=True):
    api_token: Name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[]", "it is a list; expected fields with values: parts, by_name, pair, shares, text, on"),
        (b"{}", "the field 'parts' is missing"),
        (b'{"parts":[]}', "parts is 0 long; expected at least 1 of them"),
        (b'{"parts":[{"name":"A b"}]}', "name of part 1 is 'A b'; expected lower-case letters, digits, - and _"),
        (b'{"parts":[{"nam":"a"}]}', "part 1 has no field 'nam'; did you mean 'name'?"),
        (b'{"parts":[{"name":"a","zz":1}]}', "part 1 has no field 'zz'; known here: name, share, color"),
        (b'{"parts":[{"name":"a","share":400}]}', "share of part 1 is 400; expected a number of at most 100"),
        (b'{"parts":[{"name":"a","share":"5"}]}', "share of part 1 is '5'; expected a number"),
        (b'{"parts":[{"name":"a","share":null}]}', "share of part 1 is null; expected a number"),
        (b'{"parts":[{"name":"a","color":"pink"}]}', "color of part 1 is 'pink'; expected one of 'blue', 'red'"),
        (b'{"parts":[{"name":"a"}],"pair":[1]}', "pair is 1 long; expected a list of 2"),
        (b'{"parts":[{"name":"a"}],"pair":7}', "pair is 7; expected a list"),
        (b'{"parts":[{"name":"a"}],"text":"secrets"}', "text is 7 characters long; expected at most 5 characters"),
        (b'{"parts":[{"name":"a"}],"on":"yes"}', "on is 'yes'; expected true or false"),
        (
            b'{"parts":[{"name":"a"}],"shares":{"A b":1}}',
            "a name in shares is not as it should be; expected",
        ),
        (b'{"parts":[{"name":"a"}],"shares":{"a":"1"}}', "a value of shares is text; expected a whole number"),
        (b"{", "it is no JSON: it ends too early, or is empty"),
        (b"-----BEGIN PRIVATE KEY-----", "it is no JSON: see its byte 2"),
        (b'{"parts":[{"name":"\xff"}]}', "it is no UTF-8 text: see its byte"),
        (b"[" * 100_000, "x cannot be read: it is"),
    ],
)
def test_a_document_is_refused_in_words(content: bytes, words: str) -> None:
    with pytest.raises(UntrustedInput) as refused:
        parse(_Whole, content, what="x")
    assert words in str(refused.value)
    assert "`" not in str(refused.value)


def test_a_secret_is_not_shown() -> None:
    """A terminal and a log are read by others."""
    for content in (b'{"api_token":"hunter2 and more"}', b'{"api_token":12345678}'):
        with pytest.raises(UntrustedInput) as refused:
            parse(_Secret, content, what="x")
        assert "api_token is " in str(refused.value)
        assert "hunter2" not in str(refused.value)
        assert "12345678" not in str(refused.value)


def test_a_large_document_is_not_read_again_to_explain_it() -> None:
    content = b'{"parts":[{"name":7}],"text":"' + b"x" * limits.EXPLAINED_BYTES + b'"}'
    with pytest.raises(UntrustedInput, match="name of part 1 is a whole number; expected text"):
        parse(_Whole, content, what="x")


def test_the_command_line_says_them_and_takes_limits_in_percent(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", versions=1)
    for command, words in (
        (("--objective", "accuracy >= 84% least 0"), "least of objective 1 is 0; expected a number of at least 1"),
        (("--refresh-s", "-5"), "refresh_s is -5.0; expected a number of at least 0.1"),
        (("--local-limit", "accuracy_min=84"), "accuracy_min is 84; expected a number below 1"),
        (("--local-limit", "crash_loop=50%"), "crash_loop is '50%'; expected a whole number"),
        (("--local-limit", "accuracy_min=nan"), "accuracy_min is 'nan'; expected a number"),
    ):
        said = whimbrel("model", "set", "wake", *command, "-R", repo)
        assert (said.status, words in said.err) == (2, True), said.err
    limits = (
        "--local-limit",
        "accuracy_min=84%",
        "--local-limit",
        "error_rate_max=5%",
        "--local-limit",
        "crash_loop=4",
    )
    view = done("model", "set", "wake", *limits, "-R", repo)
    assert view["settings"]["local_limits"] == {"accuracy_min": 0.84, "error_rate_max": 0.05, "crash_loop": 4}
    file = tmp_path / "wake.yaml"
    file.write_text("local_limits: {accuracy_min: 80%}\nobjectives: [battery < 5% a day]\n")
    view = done("model", "set", "wake", "--settings", file, "-R", repo)
    assert view["settings"]["local_limits"]["accuracy_min"] == 0.8
    assert "battery <= 0.208% an hour, as a mean over a day" in whimbrel("model", "show", "wake", "-R", repo).out
    noted = whimbrel("model", "set", "wake", "--objective", "Accuracy >= 84%", "-R", repo)
    assert (noted.status, "Note: no device told of 'Accuracy'" in noted.err) == (0, True)
    refused = whimbrel("model", "set", "wake", "--objective", "error_rate > 5%", "-R", repo)
    assert (refused.status, "less of error_rate is better" in refused.err) == (2, True)


def test_a_pattern_has_one_description() -> None:
    """Whichever was declared last described the fields of all: a device's key was "32 bytes" of something."""
    matching("^only in this test$", "one")
    with pytest.raises(InvariantBroken, match="two descriptions"):
        matching("^only in this test$", "another")
