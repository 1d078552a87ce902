"""What people write is taken up to its exact limit, and refused beyond it with the line and the figure."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.values import plan
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.settings_file import read_limit, read_settings
from whimbrel.flows.files.variant_spec import VariantSpec, parse_variant, restrict
from whimbrel.flows.files.windows_file import read_windows
from whimbrel.flows.files.yaml_file import load_yaml
from whimbrel.health.tally import Cell


def refusal(read: Callable[..., object], *arguments: Any, **more: Any) -> str:
    with pytest.raises(UntrustedInput) as refused:
        read(*arguments, **more)
    return str(refused.value)


# --- YAML ---


def test_a_file_may_have_so_many_bytes_and_not_one_more() -> None:
    assert load_yaml("a: é", what="x", bytes_max=5)[0] == {"a": "é"}
    assert refusal(load_yaml, "a: é", what="x", bytes_max=4) == "x has 5 bytes; at most 4 are read"


def test_a_file_may_have_so_many_values_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "YAML_NODES", 4)
    assert load_yaml("a: 1\nb: [x]\n", what="x")[0] == {"a": 1, "b": ["x"]}  # the mapping, 1, the list, x
    assert refusal(load_yaml, "a: 1\nb:\n  - x\n  - y\n", what="x") == "x:4: more than 4 values"


def test_a_file_may_be_so_deep_and_not_deeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOCUMENT_DEPTH", 3)
    assert load_yaml("a: [[1]]", what="x")[0] == {"a": [[1]]}
    assert refusal(load_yaml, "a: [[[1]]]", what="x") == "x:1: nested more than 3 deep"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-0", 0),
        ("+7", 7),
        ("007", "007"),
        ("1" * 18, int("1" * 18)),
        ("1" * 19, float("1" * 19)),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1e300", 1e300),
        ("1.1e300", "1.1e300"),
        ("1e1000", "1e1000"),
        (".inf", ".inf"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ('"5"', "5"),
        ("'true'", "true"),
    ],
)
def test_a_plain_word_is_what_it_looks_like_to_everybody(text: str, value: object) -> None:
    ((read,), _) = load_yaml(f"[{text}]", what="x")
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("nothing", ["", "~", "null", "Null", "NULL"])
def test_a_key_without_a_value_names_its_line(nothing: str) -> None:
    assert refusal(load_yaml, f"a: 1\nb: {nothing}\n", what="x") == (
        "x:2: there is no value here; write one, or leave the key out"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "x:3: the key 'a' is said twice, first on line 1"),
        ("a: &b 1\n", "x:1: anchors and aliases (& and *) are not taken; write the value out"),
        ("a: 1\nb: !c 1\n", "x:2: the tag '!c' is not taken; write a plain value"),
        ("a: {<<: 1}\n", "x:1: merge keys (<<) are not taken; write the values out"),
        ("", "x is empty"),
        ("# nothing\n", "x is empty"),
        ("a: [1\n", "x:2: this is not YAML: did not find expected ',' or ']'"),
    ],
)
def test_what_is_not_taken_says_why_and_where(text: str, said: str) -> None:
    assert refusal(load_yaml, text, what="x") == said


def test_a_path_has_its_line_or_that_of_the_nearest_above_it() -> None:
    _, line_of = load_yaml("a:\n  b:\n    - 1\n    - c: 2\n", what="x")
    lines = [line_of(path) for path in ("$", "$.a", "$.a.b", "$.a.b[0]", "$.a.b[1].c", "$.a.b[1].d", "$.a.z", "$.z")]
    assert lines == [1, 1, 2, 3, 4, 4, 1, 1]


# --- windows ---

GOOD: dict[str, Any] = {"stage": 0, "window": 1, "role": "treated", "at_risk": 5}


def line_of(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def windows(*lines: bytes) -> list[Cell]:
    return read_windows(lines, plan=plan(), what="w")


def test_a_line_may_be_so_long_and_not_one_byte_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOW_LINE_BYTES", len(line_of()))
    assert len(windows(line_of())) == 1
    assert refusal(windows, b"\n", line_of() + b" ") == f"w, line 2 has over {len(line_of())} bytes"


def test_a_file_may_have_so_many_cells_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOW_CELLS", 2)
    two = line_of(), line_of(window=2)
    assert len(windows(*two, b" \n")) == 2
    assert refusal(windows, *two, line_of(window=3)) == "w, line 3: there are more than 2 cells; cut the file"


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ({"stage": 2}, {"stage": 3}, "stage 3, and the plan has 3, counted from 0"),
        ({"at_risk": 2**53}, {"at_risk": 2**53 + 1}, "a number is too large to be a count or a sum of a fleet"),
        (
            {"latency": {str(limits.SKETCH_KEY): 1, str(-limits.SKETCH_KEY): 1}},
            {"latency": {str(-limits.SKETCH_KEY - 1): 1}},
            "latency has a bucket beyond 4000",
        ),
        ({"unused": 5}, {"unused": 6}, "unused is 6, over at_risk, 5"),
        (
            {"metrics": {"m": {"n": 4, "sum": 2.0, "sumsq": 1.0}}},
            {"metrics": {"m": {"n": 4, "sum": 2.0, "sumsq": 0.99}}},
            "the squares of m add up to 0.99; of 4 values with the sum 2 they are at least 1",
        ),
        (
            {"metrics": {"m": {"n": 0, "sum": 0.0, "sumsq": 0.0}}},
            {"metrics": {"m": {"n": 0, "sum": 0.0, "sumsq": 1.0}}},
            "m has the sum 0 and the squares 1 of no device",
        ),
        (
            {"error_units": 4, "error_share": 2.0, "error_squares": 2.0},
            {"error_units": 4, "error_share": 2.0, "error_squares": 2.01},
            "error_squares is 2.01, over error_share, 2: each share is at most 1, so its square is no greater",
        ),
    ],
)
def test_a_figure_is_taken_up_to_its_bound(good: dict[str, Any], bad: dict[str, Any], said: str) -> None:
    assert len(windows(line_of(**good))) == 1
    assert refusal(windows, line_of(), line_of(window=2, **bad)) == f"w, line 2: {said}"


def shadow(**changes: Any) -> dict[str, Any]:
    fields = {"windows": 4, "inputs": 100, "compared": 90, "agreed": 80, "compared_windows": 4}
    return {"shadow": fields | changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agreed": 91}, "in its shadow agreed is 91.0, over compared, 90"),
        ({"compared": 101}, "in its shadow compared is 101, over inputs, 100"),
        ({"compared_windows": 5}, "in its shadow compared_windows is 5, over windows, 4"),
        ({"crashed_windows": 5}, "in its shadow crashed_windows is 5, over windows, 4"),
        ({"inputs": 3, "compared": 3, "agreed": 3}, "in its shadow windows is 4, over inputs, 3"),
        ({"ratios": {"1": 5}}, "in its shadow ratios holds more device-windows than compared_windows"),
        ({"failed": {"1": 3, "2": 2}}, "in its shadow failed holds more device-windows than windows"),
        ({"active": {"4001": 1}}, "its shadow has a bucket beyond 4000"),
        ({"dropped": 2**53 + 1}, "a number of its shadow is too large to be a count of a fleet"),
    ],
)
def test_what_no_shadow_can_have_told_is_refused(changes: dict[str, Any], said: str) -> None:
    edge = shadow(agreed=90, compared=100, ratios={"1": 4}, failed={"1": 4}, active={"4000": 1}, crashed_windows=4)
    assert len(windows(line_of(**edge))) == 1
    assert refusal(windows, line_of(**shadow(**changes))) == f"w, line 1: {said}"


def test_a_cell_that_came_before_is_named_whole() -> None:
    twice = line_of(hardware_class="pi", slices={"os": "x"}, age_bucket=1)
    assert refusal(windows, twice, twice) == (
        "w, line 2: a cell of stage 0, window 1, treated, class 'pi'{'os': 'x'}, age bucket 1 came before; each comes "
        "once"
    )


# --- variants ---


def variant(text: str = "", **minima: str) -> list[tuple[str, dict[str, str], list[tuple[str, str, tuple[str, ...]]]]]:
    made: tuple[VariantSpec, ...] = restrict(parse_variant(text), minima)
    return [
        (
            each.name,
            each.selector.match_labels,
            [(term.key, term.operator, term.values) for term in each.selector.match_expressions],
        )
        for each in made
    ]


def test_a_build_for_all_platforms_becomes_one_for_each_that_is_named_and_one_for_the_others() -> None:
    assert variant("name=m", min_ios_version="15.0", min_android_api="29", min_app_version="2") == [
        ("m-ios", {"platform": "ios"}, [("app_version", "Version", (">=2",)), ("ios_version", "Version", (">=15.0",))]),
        (
            "m-android",
            {"platform": "android"},
            [("app_version", "Version", (">=2",)), ("android_api", "Version", (">=29",))],
        ),
        (
            "m",
            {},
            [
                ("app_version", "Version", (">=2",)),
                ("platform", "NotIn", ("android", "ios")),
                ("ios_version", "DoesNotExist", ()),
                ("android_api", "DoesNotExist", ()),
            ],
        ),
    ]
    assert [each.given_name for each in restrict(parse_variant("name=m"), {"min_ios_version": "15"})] == ["m", "m"]


def test_a_build_for_one_platform_stays_one() -> None:
    ios = {"min_ios_version": "15.0", "min_app_version": "2"}
    app = ("app_version", "Version", (">=2",))
    assert variant("platform=ios", **ios) == [
        ("ios", {"platform": "ios"}, [app, ("ios_version", "Version", (">=15.0",))])
    ]
    assert variant("platform=linux", **ios) == [("linux", {"platform": "linux"}, [app])]
    assert variant("name=m", min_app_version="2") == [("m", {}, [app])]


def test_what_cannot_be_made_is_refused_with_its_name() -> None:
    assert refusal(variant, "name=m", min_ios_version="new").startswith("the variant 'm' cannot be made: ")
    name = "x" * limits.NAME_CHARS
    assert refusal(variant, f"name={name}", min_ios_version="15").startswith(f"the variant {name!r} cannot be made: ")


def test_parts_of_a_variant_have_bounds() -> None:
    parts = [f"l{n}=x" for n in range(limits.EXPRESSIONS)]
    assert len(parse_variant(",".join(parts)).selector.match_labels) == limits.EXPRESSIONS
    assert refusal(parse_variant, ",".join([*parts, "one=more"])) == "--variant has 65 parts; at most 64 are taken"
    assert parse_variant("runtime=" + "x" * 64).runtime == "x" * 64
    assert refusal(parse_variant, "runtime=" + "x" * 65) == (
        "--variant runtime has 65 characters; at most 64 are taken"
    )
    assert refusal(parse_variant, "a=1,b=2,a=3") == "--variant says 'a' twice; say it once"
    assert refusal(parse_variant, "android") == (
        "--variant 'android' is not key=value; expected for example platform=android"
    )


# --- settings ---


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("accuracy_min", "84%", 0.84),
        ("accuracy_min", "0.84", 0.84),
        ("crash_loop", "5", 5),
        ("crash_loop", "-5", -5),
        ("crash_loop", "5%", "5%"),
        ("accuracy_min", "1", 1),
        ("accuracy_min", "inf", "inf"),
        ("on_failed_probe", "keep", "keep"),
    ],
)
def test_a_local_limit_is_a_number_a_share_or_a_word(name: str, text: str, value: object) -> None:
    read = read_limit(name, text)
    assert (type(read), read) == (type(value), value)


def test_local_limits_of_a_file_are_read_as_people_write_them() -> None:
    told = read_settings("local_limits: {accuracy_min: 84%, crash_loop: 5}\n", what="x")
    assert told == {"local_limits": {"accuracy_min": 0.84, "crash_loop": 5}}
    assert refusal(read_settings, "- 1\n", what="x") == ("x has no settings; expected lines such as: refresh_s: 60")
