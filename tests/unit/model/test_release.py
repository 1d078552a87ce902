"""What a release and a line say of a version, and what they cannot say."""

import math
import re
from typing import Any

import msgspec
import numpy as np
import pytest

from support.values import file, line, release
from whimbrel.model.provenance import Kept, ModelSignature
from whimbrel.model.release import (
    File,
    Probe,
    Reference,
    Release,
    Sealed,
    Tensor,
    Training,
    Validation,
    Variant,
    metric_of,
)

A, B, C, D = (letter * 64 for letter in "abcd")


def refusal(said: str) -> str:
    """A pattern of the whole sentence."""
    return f"^{re.escape(said)}$"


def variant(name: str, *files: File, **changes: Any) -> Variant:
    return Variant(name=name, files=files or (file(),), **changes)


def signed(*variants: str, bundle: str = C, anchor: str = D) -> ModelSignature:
    bundle_file, anchor_file = (Kept(sha256=each, size_bytes=1) for each in (bundle, anchor))
    return ModelSignature(method="key", signer="a key", bundle=bundle_file, anchor=anchor_file, variants=variants)


# --- lines ---


@pytest.mark.parametrize(("serial", "allowed"), [(1, False), (2, True), (3, False), (4, True), (5, False)])
def test_a_line_allows_what_is_not_below_its_floor_nor_revoked(serial: int, allowed: bool) -> None:
    assert line(minimum_serial=2, revoked=(3, 5)).allows(serial) is allowed


# --- releases ---


def test_variants_have_names_of_their_own() -> None:
    said = "two variants share a name: ['cpu', 'cpu', 'gpu']"
    with pytest.raises(ValueError, match=refusal(said)):
        release(variants=(variant("gpu"), variant("cpu"), variant("cpu")))


def test_a_model_signature_is_over_variants_that_are_there() -> None:
    variants = (variant("cpu"), variant("gpu"))
    assert release(variants=variants, model_signatures=(signed("cpu"), signed("gpu", "cpu"))).serial == 1
    said = "a model signature is over the variant 'npu', which is not there"
    with pytest.raises(ValueError, match=refusal(said)):
        release(variants=variants, model_signatures=(signed("cpu"), signed("gpu", "tpu", "npu")))


SEALED = Sealed(sha256=B, size_bytes=300)


def test_all_files_of_a_release_are_sealed_or_none_is() -> None:
    said = "some files of this release are sealed and some are not; all are, or none"
    for variants in (
        (variant("cpu", file(name="a", sealed=SEALED), file(name="b")),),
        (variant("cpu", file(sealed=SEALED)), variant("gpu", file())),
    ):
        with pytest.raises(ValueError, match=refusal(said)):
            release(variants=variants)


def test_what_is_stored_of_a_sealed_file_is_the_age_file() -> None:
    opened, closed = file(), file(sealed=SEALED)
    assert (opened.artifact_sha256, opened.artifact_bytes) == (A, 100)
    assert (closed.artifact_sha256, closed.artifact_bytes) == (B, 300)
    assert (closed.sha256, closed.size_bytes) == (A, 100)
    sealed = release(variants=(variant("cpu", closed),))
    assert (sealed.is_sealed, sealed.artifacts, sealed.digests) == (True, {B}, {A})
    plain = release(variants=(variant("cpu", file(), file(C, name="b")), variant("gpu", file())))
    assert (plain.is_sealed, plain.artifacts, plain.digests) == (False, {A, C}, {A, C})


def test_the_size_of_a_variant_is_that_of_all_its_files() -> None:
    assert variant("cpu", file(), file(name="b", size_bytes=7), file(name="c", size_bytes=0)).size_bytes == 107


def test_kept_files_are_the_recipe_and_what_verifies_the_signatures() -> None:
    recipe = Kept(sha256=A, size_bytes=9)
    two = (signed("any"), signed("any", bundle=B, anchor=A))
    assert [each.sha256 for each in release(model_signatures=two).kept] == [C, D, B, A]
    made = release(model_signatures=two[:1], training=Training(recipe=recipe))
    assert made.kept == (recipe, two[0].bundle, two[0].anchor)
    assert release().kept == ()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "A"), "the files of variant 'cpu': 'a' and 'A' are one name on some systems"),
        (("a", "b", "a"), "the files of variant 'cpu': 'a' is there twice"),
        (("a/b", "a"), "the files of variant 'cpu': 'a' is both a file and a folder"),
    ],
)
def test_the_files_of_a_variant_lie_beside_each_other(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=refusal(said)):
        variant("cpu", *(file(name=name) for name in names))


def test_a_file_whose_name_some_system_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=refusal("the file name 'a/com1.bin' is a reserved word on some systems")):
        file(name="a/com1.bin")


# --- tensors and samples ---


@pytest.mark.parametrize(
    ("shape", "count"), [((), 1), ((0,), 0), ((3,), 3), ((2, 3), 6), ((2, 0, 3), 0), ((1, 1, 4), 4)]
)
def test_a_tensor_holds_as_many_values_as_its_shape(shape: tuple[int, ...], count: int) -> None:
    assert len(Tensor(dtype="int8", shape=shape, values=(1,) * count).values) == count
    said = f"a tensor of shape {list(shape)} holds {count} values, found {count + 1}"
    with pytest.raises(ValueError, match=refusal(said)):
        Tensor(dtype="int8", shape=shape, values=(1,) * (count + 1))


def test_a_tensor_holds_a_million_values() -> None:
    def of_values(count: int) -> Tensor:
        return msgspec.convert({"dtype": "int8", "shape": [count], "values": [1] * count}, Tensor)

    assert len(of_values(1_000_000).values) == 1_000_000
    with pytest.raises(msgspec.ValidationError, match=r"of length <= 1000000 - at `\$.values`"):
        of_values(1_000_001)


def test_samples_have_a_label_each() -> None:
    def samples(*shape: int, labels: int = 2) -> Validation:
        tensor = Tensor(dtype="int8", shape=shape, values=(1,) * math.prod(shape))
        return Validation(inputs={"x": tensor}, labels=(7,) * labels, output="y", accuracy_min=0.5)

    assert samples(2, 3).labels == (7, 7)
    for shape in ((), (3,), (1, 2)):
        said = f"input 'x' has shape {list(shape)}; there are 2 labels"
        with pytest.raises(ValueError, match=refusal(said)):
            samples(*shape)


def test_a_probe_without_words_tolerates_a_thousandth_and_a_ten_thousandth() -> None:
    assert (Probe().relative_tolerance, Probe().absolute_tolerance) == (0.001, 0.0001)


# --- metrics ---


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (5, 5),
        (-5, -5),
        (2**53 - 1, 2**53 - 1),
        (1 - 2**53, 1 - 2**53),
        (2**53, float(2**53)),
        (-(2**53), -float(2**53)),
        (0.5, 0.5),
    ],
)
def test_a_whole_number_stays_one_as_long_as_every_reader_of_json_holds_it(value: float, kept: float) -> None:
    held = metric_of(value)
    assert (held, type(held)) == (kept, type(kept))


# --- the reference of predictions ---


def numbers(*bins: object, shares: tuple[float, ...] | None = None) -> Reference:
    return Reference(bins=bins, shares=shares or (1.0, *[0.0] * len(bins)))


CLASSES = Reference(kind="classes", bins=("cat", 1, "dog"), shares=(0.5, 0.25, 0.25))


@pytest.mark.parametrize(
    ("prediction", "place"),
    [
        (-9.0, 0),
        (0.5, 0),  # up to and with the edge
        (0.500001, 1),
        (2, 1),
        (2.5, 2),
        (True, 1),
        (np.float32(0.25), 0),
        (np.int64(9), 2),
        ("2", None),
        (None, None),
        (math.nan, None),
        (math.inf, None),
        ([1], None),
    ],
)
def test_edges_cut_numbers_into_bins(prediction: object, place: int | None) -> None:
    assert numbers(0.5, 2).bin_of(prediction) == place


@pytest.mark.parametrize(
    ("prediction", "place"),
    [
        ("cat", 0),
        ("dog", 2),
        (1, 1),
        (1.0, 1),
        (True, 1),
        (np.int8(1), 1),
        ("1", 1),
        (1.5, 3),
        ("Cat", 3),
        (None, 3),
        (0, 3),
    ],
)
def test_classes_are_known_by_their_text_and_all_others_have_one_bin(prediction: object, place: int) -> None:
    assert CLASSES.bin_of(prediction) == place


def test_unknown_classes_have_a_bin_without_a_share_and_numbers_have_none_more() -> None:
    assert CLASSES.bin_shares == (0.5, 0.25, 0.25, 0.0)
    assert numbers(0.5, shares=(0.25, 0.75)).bin_shares == (0.25, 0.75)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"bins": (2, 1), "shares": (1.0, 0.0, 0.0)}, "the edges must be numbers that rise; found [2, 1]"),
        ({"bins": (1, 1), "shares": (1.0, 0.0, 0.0)}, "the edges must be numbers that rise; found [1, 1]"),
        ({"bins": (1, "2"), "shares": (1.0, 0.0, 0.0)}, "the edges must be numbers that rise; found [1, '2']"),
        ({"bins": (1, math.inf), "shares": (1.0, 0.0, 0.0)}, "the edges must be numbers that rise; found [1, inf]"),
        ({"bins": (1, "1"), "shares": (0.5, 0.5), "kind": "classes"}, "a class is listed twice"),
        ({"bins": (1, 2), "shares": (0.5, 0.5)}, "2 edges need 3 shares; found 2"),
        ({"bins": (1,), "shares": (0.5, 0.25, 0.25)}, "1 edges need 2 shares; found 3"),
        ({"bins": ("a", "b"), "shares": (1.0,), "kind": "classes"}, "2 classes need 2 shares; found 1"),
        ({"bins": (1,), "shares": (0.5, 0.4)}, "the shares must add up to 1; they are 0.9 together"),
        ({"bins": (1,), "shares": (0.6, 0.5)}, "the shares must add up to 1; they are 1.1 together"),
    ],
)
def test_a_reference_that_says_no_spread_is_refused(reference: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=refusal(said)):
        Reference(**reference)


def test_a_release_is_refused_with_a_version_that_sorts_nowhere() -> None:
    for changes in ({"version": "2026.3.5.1"}, {"semantic_version": "1.0"}):
        with pytest.raises(ValueError, match=r"^'[0-9.]+' is not a (calendar|semantic) version; expected the form "):
            release(**changes)


def test_a_release_reads_back_from_its_own_words() -> None:
    """All that `__post_init__` refuses is refused on the way in, too."""
    written = msgspec.to_builtins(release())
    with pytest.raises(msgspec.ValidationError, match="two variants share a name"):
        msgspec.convert(written | {"variants": written["variants"] * 2}, Release)
