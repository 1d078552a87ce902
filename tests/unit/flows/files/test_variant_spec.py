"""`--variant` says which devices a file is for."""

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.variant_spec import leave_out, parse_variant
from whimbrel.model.selector import Expression


def test_labels_must_match_and_the_name_is_made_of_what_is_said() -> None:
    spec = parse_variant("platform=android,precision=int8,runtime=litert,region=NZ")
    assert (spec.name, spec.runtime, spec.precision) == ("android-litert-int8", "litert", "int8")
    assert spec.selector.match_labels == {"platform": "android", "region": "NZ"}


def test_a_name_may_be_given() -> None:
    assert parse_variant("name=small,platform=ios").name == "small"


def test_nothing_said_is_for_everyone_under_the_other_name() -> None:
    spec = parse_variant("", otherwise="onnx")
    assert spec.name == "onnx"
    assert spec.selector.everyone


def test_minimum_versions_are_compared_as_numbers() -> None:
    selector = parse_variant("min_app_version=1.9").selector
    assert selector.matches({"app_version": "1.10"})
    assert not selector.matches({"app_version": "1.8.9"})
    assert not selector.matches({})


def test_precision_that_is_no_name_becomes_one() -> None:
    assert parse_variant("platform=iOS,precision=Q4_K.M").name == "ios-q4_k-m"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("android", "is not key=value"),
        ("platform=", "is not key=value"),
        ("=android", "is not key=value"),
        ("platform=a,platform=b", "twice"),
        ("name=Big Model", "is not a variant name"),
        ("min_app_version=new", "not a dotted version"),
        ("precision=" + "x" * 65, "at most 64"),
        ("platform=" + "x" * 129, "is not key=value"),
        (",".join(f"l{n}=x" for n in range(99)), "at most 64"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, said: str) -> None:
    with pytest.raises(UntrustedInput, match=said):
        parse_variant(text)


def test_devices_with_too_old_a_runtime_are_left_out_unless_the_publisher_says_otherwise() -> None:
    too_old = Expression(key="runtime.onnxruntime", operator="NotVersion", values=("<1.18",))
    spec = leave_out(parse_variant("platform=linux"), too_old)
    assert spec.selector.matches({"platform": "linux", "runtime.onnxruntime": "1.20.1"})
    assert spec.selector.matches({"platform": "linux"})
    assert not spec.selector.matches({"platform": "linux", "runtime.onnxruntime": "1.17.3"})
    for text in ("min_runtime.onnxruntime=1.16", "runtime.onnxruntime=1.16.0"):
        assert leave_out(parse_variant(text), too_old) == parse_variant(text)
    assert leave_out(spec, None) == spec
