"""What is refused is refused in words for people: the field, what was found, what is expected."""

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from support.server import done, repository, whimbrel
from whimbrel import limits
from whimbrel.cli.model_settings import checked
from whimbrel.errors import InvariantBroken, UntrustedInput
from whimbrel.flows.records import NewSettings
from whimbrel.model.document_errors import expectation, name_of, sentence, split_path
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


def said(kind: Any, content: bytes) -> str:
    """The sentence that refuses `content`, after "x cannot be read: "."""
    with pytest.raises(UntrustedInput, match=r"^x cannot be read: ") as refused:
        parse(kind, content, what="x")
    return str(refused.value).removeprefix("x cannot be read: ")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Expected `int` >= 5", "a number of at least 5"),
        ("Expected `float | null` >= 0.5", "a number of at least 0.5"),
        ("Expected `float` >= 5.0", "a number of at least 5"),
        ("Expected `int | null` <= 5", "a number of at most 5"),
        ("Expected `float` > 0.0", "a number above 0"),
        ("Expected `float` < 1.0", "a number below 1"),
        ("Expected `str` of length <= 64", "at most 64 characters"),
        ("Expected `str | null` of length >= 1", "a text that is not empty"),
        ("Expected `str` of length >= 12", "at least 12 characters"),
        ("Expected `array` of length <= 3", "at most 3 of them"),
        ("Expected `object | null` of length <= 3", "at most 3 of them"),
        ("Expected `bytes` of length >= 3", "at least 3 of them"),
        ("Expected `array` of length 2, got 3", "a list of 2"),
        ("Expected `array` of at least length 2, got 1", "a list of at least 2"),
        ("Expected `array` of length 2 to 4, got 1", "a list of 2 to 4"),
        ("Integer value out of range", "a number that fits into 64 bits"),
        ("Number out of range", "a number that fits into 64 bits"),
        ("Invalid base64 encoded string", "base64 text"),
        ("Invalid RFC3339 encoded datetime", "a time such as 2026-03-04T23:00:00Z"),
        ("Expected `str` matching regex '^nobody declared this$'", "text of another form"),
        ("Expected `int`, got `str`", "a whole number"),
        ("Expected `int | float | null`, got `str`", "a number"),
        ("Expected `int | str | null`, got `array`", "a whole number or text"),
        ("Expected `null`, got `int`", "nothing"),
        ("Expected `bytes`, got `int`", "base64 text"),
        ("Expected `bool`, got `int`", "true or false"),
        ("Expected `object`, got `int`", "fields with values"),
        ("Expected `date`, got `int`", "date"),
        ("Invalid enum value 3", "another word"),
        ("a check of our own", None),
        ("x Expected `int` >= 5", None),
    ],
)
def test_each_message_of_the_library_has_its_words(message: str, words: str | None) -> None:
    assert expectation(message) == words


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("$", ""),
        ("$.least", "least"),
        ("$.objectives[0].least", "least of objective 1"),
        ("$.stages[11].success_criteria.accuracy_min", "accuracy_min of success_criteria of stage 12"),
        ("$[2]", "entry 3"),
        ("$[2].name", "name of entry 3"),
        ("$.shares[...]", "a value of shares"),
        ("$.by_name[...].share", "share of a value of by_name"),
    ],
)
def test_a_path_is_told_from_the_inside_out_and_counted_from_one(path: str, name: str) -> None:
    assert name_of(path) == name


def test_a_message_without_a_path_is_about_the_whole_document() -> None:
    assert split_path("Expected `int` >= 5 - at `$.a[0]`") == ("Expected `int` >= 5", "$.a[0]")
    assert split_path("Expected `int` >= 5 - at `key` in `$.a`") == ("Expected `int` >= 5", "$.a")
    assert split_path("a check of our own") == ("a check of our own", "$")
    assert sentence("a check of our own - at `$.stages[0]`") == "stage 1: a check of our own"
    assert sentence("a check of our own") == "a check of our own"
    assert (
        sentence("Expected `object`, got `int`", 5, whole="the answer")
        == "the answer is 5; expected fields with values"
    )


class _Wide(Document, frozen=True):
    """Fourteen fields."""

    a1: int = 0
    a2: int = 0
    a3: int = 0
    a4: int = 0
    a5: int = 0
    a6: int = 0
    a7: int = 0
    a8: int = 0
    a9: int = 0
    b1: int = 0
    b2: int = 0
    b3: int = 0
    b4: int = 0
    b5: int = 0


class _Twelve(Document, frozen=True):
    """As many fields as are listed."""

    a1: int = 0
    a2: int = 0
    a3: int = 0
    a4: int = 0
    a5: int = 0
    a6: int = 0
    a7: int = 0
    a8: int = 0
    a9: int = 0
    b1: int = 0
    b2: int = 0
    b3: int = 0


def test_twelve_known_fields_are_listed_and_the_others_are_counted() -> None:
    twelve = "a1, a2, a3, a4, a5, a6, a7, a8, a9, b1, b2, b3"
    assert said(_Wide, b'{"zzzzzz":1}') == f"it has no field 'zzzzzz'; known here: {twelve}, and 2 more"
    assert said(_Twelve, b'{"zzzzzz":1}') == f"it has no field 'zzzzzz'; known here: {twelve}"
    assert said(_Wide, b"[]") == f"it is a list; expected fields with values: {twelve}, and 2 more"


def test_a_wrong_field_is_shown_up_to_64_characters_and_compared_by_them() -> None:
    long = "parts" + 80 * "z"
    assert said(_Whole, f'{{"{long}":1}}'.encode()).startswith(f"it has no field {long[:64]!r}; known here: parts, ")
    assert said(_Whole, b'{"prats":1}') == "it has no field 'prats'; did you mean 'parts'?"
    assert said(_Whole, b'{"byname":1}') == "it has no field 'byname'; did you mean 'by_name'?"
    assert said(dict[str, _Part], b'{"a":{"nme":"b"}}') == "a value has no field 'nme'; did you mean 'name'?"


@pytest.mark.parametrize("length", [78, 79])
def test_a_value_is_shown_up_to_80_characters_with_its_quotes(length: int) -> None:
    text = "A" * length
    shown = repr(text) if length == 78 else repr(text)[:80] + "..."
    words = "lower-case letters, digits, - and _; 1 to 64"
    assert said(_Part, f'{{"name":"{text}"}}'.encode()) == f"name is {shown}; expected {words}"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("[]", "a list"),
        ("{}", "fields with values"),
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("1.5", "1.5"),
        ('"5"', "'5'"),
    ],
)
def test_what_was_found_is_told_by_its_kind(value: str, found: str) -> None:
    content = f'{{"parts":[{{"name":"a"}}],"pair":[1,{value}]}}'.encode()
    assert said(_Whole, content) == f"pair 2 is {found}; expected a whole number"


class _Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class _Chosen(Document, frozen=True):
    color: _Color | None = None
    size: Literal[1, 2] | None = None


class _Tagged(Document, frozen=True, tag_field="format", tag="a-document-1"):
    name: Name = "a"


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        (_Chosen, b'{"color":"pink"}', "color is 'pink'; expected one of 'red', 'blue'"),
        (_Chosen, b'{"size":3}', "size is 3; expected one of 1, 2"),
        (_Tagged, b'{"format":"a-document-2"}', "format is 'a-document-2'; expected another word"),
        (_Part, b'{"share":1}', "the field 'name' is missing"),
        (_Whole, b'{"parts":[{}]}', "the field 'name' of part 1 is missing"),
        (_Whole, b'{"parts":[{"name":"a"}],"by_name":{"x":{}}}', "the field 'name' of a value of by_name is missing"),
        (_Whole, b'{"parts":[]} and more', "parts is not as it should be; expected at least 1 of them"),
        (_Whole, b"", "it is no JSON: it ends too early, or is empty"),
        (_Whole, b'{"parts":}', "it is no JSON: see its byte 10"),
    ],
)
def test_choices_gaps_and_broken_texts_are_told(kind: Any, content: bytes, words: str) -> None:
    assert said(kind, content) == words


@pytest.mark.parametrize("field", ["secret", "Password", "passphrase", "api_token", "credentials"])
def test_no_field_that_may_hold_a_secret_is_shown(field: str) -> None:
    kind = msgspec.defstruct("Hidden", [(field, Name)])
    words = "lower-case letters, digits, - and _; 1 to 64"
    content = msgspec.json.encode({field: "hunter2 and more"})
    assert said(kind, content) == f"{field} is not as it should be; expected {words}"


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
