"""What is a version? The two documents that a publisher signs offline: the release, and the model's line.

A release never changes. A line says which releases may still run: a floor that no policy may go below, and revocations.
"""

import bisect
import math
import numbers
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.formats import Format
from whimbrel.model.ids import END, CalendarVersion, Digest, Label, LabelValue, Name, Serial, Text, semantic_key
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.paths import clash, file_and_folder, path_objection, shown
from whimbrel.model.patterns import matching
from whimbrel.model.provenance import Dataset, Kept, ModelSignature, Parent, SourceCode
from whimbrel.model.selector import EVERYONE, Selector

Dimension = int | str | None  # a number, a named dimension ("batch"), or unknown

TENSOR_NAME_CHARS = 1024
DTYPE_CHARS = 64
DIMENSIONS = 16
SIGNATURE_TENSORS = 1024
WHOLE_NUMBER_MAX = 2**53 - 1  # every reader of JSON holds whole numbers up to here
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+@=,()~ -]{0,199}"  # of a file's path; no dot first: those are temporary files
_VALUES_PER_TENSOR = 1_000_000  # golden values of one probe tensor; the document limit is reached first


Metric = Annotated[int, Meta(ge=-WHOLE_NUMBER_MAX, le=WHOLE_NUMBER_MAX)] | float


def metric_of(value: float) -> Metric:
    """`value` as a release holds it: a whole number stays one, unless it is too large for readers of JSON."""
    return value if isinstance(value, int) and abs(value) <= WHOLE_NUMBER_MAX else float(value)


class TensorSpec(Document, frozen=True):
    """A tensor's name, dtype (numpy's words: float32, int8, ...; a format's own where numpy has none) and shape."""

    name: Annotated[str, Meta(max_length=TENSOR_NAME_CHARS)]
    dtype: Annotated[str, Meta(max_length=DTYPE_CHARS)]
    shape: Annotated[tuple[Dimension, ...], Meta(max_length=DIMENSIONS)] = ()


class Signature(Document, frozen=True):
    """The inputs and outputs of a model."""

    inputs: Annotated[tuple[TensorSpec, ...], Meta(max_length=SIGNATURE_TENSORS)] = ()
    outputs: Annotated[tuple[TensorSpec, ...], Meta(max_length=SIGNATURE_TENSORS)] = ()


class Tensor(Document, frozen=True):
    """Golden values: `values` are row by row, as many as `shape` holds."""

    dtype: Annotated[str, Meta(max_length=DTYPE_CHARS)]
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=DIMENSIONS)]
    values: Annotated[tuple[float | int | bool | str, ...], Meta(max_length=_VALUES_PER_TENSOR)]

    def __post_init__(self) -> None:
        expected = 1
        for size in self.shape:
            expected *= size
        if expected != len(self.values):
            raise ValueError(f"a tensor of shape {list(self.shape)} holds {expected} values, found {len(self.values)}")


class Validation(Document, frozen=True):
    """A few labelled samples. `inputs`: by name; their first dimension counts the samples. `labels`: a class each.

    A sample's answer is the greatest value of `output`, or the output itself where it is one whole number.
    """

    inputs: Annotated[dict[str, Tensor], Meta(min_length=1, max_length=64)]
    labels: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(min_length=1, max_length=10_000)]
    output: Annotated[str, Meta(max_length=1024)]
    accuracy_min: Annotated[float, Meta(ge=0, le=1)]

    def __post_init__(self) -> None:
        for name, tensor in self.inputs.items():
            if not tensor.shape or tensor.shape[0] != len(self.labels):
                raise ValueError(f"input {name!r} has shape {list(tensor.shape)}; there are {len(self.labels)} labels")


class Probe(Document, frozen=True):
    """What a device runs before it trusts a version: golden inputs, and the outputs that they must give.

    |output - expected| <= absolute_tolerance + relative_tolerance * |expected|, value by value. `output_ranges`: the
    least and the greatest value of an output for any input. `validation`: the accuracy on a few samples. `smoke`
    False: no run on made-up inputs where there are neither golden inputs nor samples.
    """

    inputs: Annotated[dict[str, Tensor], Meta(max_length=64)] = {}
    outputs: Annotated[dict[str, Tensor], Meta(max_length=64)] = {}
    absolute_tolerance: Annotated[float, Meta(ge=0)] = 1e-4
    relative_tolerance: Annotated[float, Meta(ge=0)] = 1e-3
    latency_ms_max: Annotated[float, Meta(gt=0)] | None = None
    memory_mib_max: Annotated[int, Meta(gt=0)] | None = None
    output_ranges: Annotated[dict[str, tuple[float, float]], Meta(max_length=64)] = {}
    validation: Validation | None = None
    smoke: bool = True


class Sealed(Document, frozen=True):
    """What is stored and travels in a file's place: an age file (age-encryption.org/v1) to the release's key.

    `sha256`, `size_bytes`: of the age file. Those of the file itself are of what a device gets by opening it.
    """

    sha256: Digest
    size_bytes: Annotated[int, Meta(ge=1, le=limits.SEALED_BYTES)]


class File(Document, frozen=True):
    """One artifact of a variant: its place in the folder that a device keeps the variant in, and its bytes.

    `name`: a relative path of at most `limits.FILE_DEPTH` parts. A part begins with a letter, a digit or `_`, and all
    of it is ASCII, so that it is the same name on every device. `format`: of the model that the file is a part of. A
    folder that is one artifact (a Core ML package) travels packed; `packed` says so. `sealed`: where the model's bytes
    are secret, what travels instead of them.
    """

    name: Annotated[
        str,
        matching(
            f"^{_PART}(/{_PART}){{0,{limits.FILE_DEPTH - 1}}}" + END,
            f"a relative path of at most {limits.FILE_DEPTH} parts, each of ASCII letters, digits and _ . + -",
        ),
    ]
    size_bytes: Annotated[int, Meta(ge=0, le=limits.ARTIFACT_BYTES)]
    sha256: Digest
    format: Format
    packed: bool = False
    sealed: Sealed | None = None

    @property
    def artifact_sha256(self) -> str:
        """The digest under which its artifact is stored and fetched."""
        return self.sealed.sha256 if self.sealed is not None else self.sha256

    @property
    def artifact_bytes(self) -> int:
        """The bytes of its artifact."""
        return self.sealed.size_bytes if self.sealed is not None else self.size_bytes

    def __post_init__(self) -> None:
        if objection := path_objection(self.name):
            raise ValueError(f"the file name {shown(self.name)} {objection}")


class Variant(Document, frozen=True):
    """One build of a version for a class of devices. The first file is the model's entry point; others lie beside it.

    `runtime` and `precision` are for people: they are shown, and nothing decides by them.
    """

    name: Name
    files: Annotated[tuple[File, ...], Meta(min_length=1, max_length=limits.FILES)]
    selector: Selector = EVERYONE
    runtime: Annotated[str, Meta(max_length=64)] = ""
    precision: Annotated[str, Meta(max_length=64)] = ""
    signature: Signature | None = None
    probe: Probe | None = None

    def __post_init__(self) -> None:
        names = [file.name for file in self.files]
        if (clashing := clash(names)) is not None:
            raise ValueError(f"the files of variant {self.name!r}: {clashing}")
        if (both := file_and_folder(names)) is not None:
            raise ValueError(f"the files of variant {self.name!r}: {shown(both)} is both a file and a folder")

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for file in self.files)


class Reference(Document, frozen=True):
    """How the predictions of a version are spread while it works well: shares, by class or between edges.

    For numbers, `bins` are rising edges. They cut the numbers into one bin more: up to and with the first edge, ...,
    above the last. For classes, `bins` are the classes, each known by its text; all others fall into one more bin.
    """

    bins: Annotated[tuple[float | int | str, ...], Meta(min_length=1, max_length=limits.REFERENCE_BINS - 1)]
    shares: Annotated[tuple[Annotated[float, Meta(ge=0, le=1)], ...], Meta(max_length=limits.REFERENCE_BINS)]
    kind: Literal["numbers", "classes"] = "numbers"

    def __post_init__(self) -> None:
        shares = len(self.bins)
        if self.kind == "numbers":
            edges = [each for each in self.bins if not isinstance(each, str) and math.isfinite(each)]
            if len(edges) < len(self.bins) or edges != sorted(set(edges)):
                raise ValueError(f"the edges must be numbers that rise; found {list(self.bins)}")
            shares += 1
        elif len(set(self._texts)) != len(self.bins):
            raise ValueError("a class is listed twice")
        if len(self.shares) != shares:
            what = "edges" if self.kind == "numbers" else "classes"
            raise ValueError(f"{len(self.bins)} {what} need {shares} shares; found {len(self.shares)}")
        if not 0.99 <= sum(self.shares) <= 1.01:
            raise ValueError(f"the shares must add up to 1; they are {sum(self.shares):g} together")

    @property
    def _texts(self) -> tuple[str, ...]:
        return tuple(str(each) for each in self.bins)

    @property
    def bin_shares(self) -> tuple[float, ...]:
        """The share of every bin; unknown classes have a bin with the share 0."""
        return self.shares if self.kind == "numbers" else (*self.shares, 0.0)

    def bin_of(self, prediction: object) -> int | None:
        """The bin of a prediction. None where the bins are of numbers and the prediction is no number."""
        if self.kind == "numbers":
            if not isinstance(prediction, numbers.Real) or not math.isfinite(float(prediction)):
                return None
            return bisect.bisect_left([float(each) for each in self.bins], float(prediction))
        if isinstance(prediction, numbers.Real) and float(prediction).is_integer():
            prediction = int(float(prediction))  # True, 1.0 and a number of numpy's are the class 1
        text, texts = str(prediction), self._texts
        return texts.index(text) if text in texts else len(texts)


class Training(Document, frozen=True):
    """Where a version comes from. `build_hash` and `target_hardware` are the pipeline's own words.

    `dataset`, `parent` and `run` are words that nothing checks; `datasets` have digests, `code` has a commit, and
    `parents` were published here. `recipe`: how its files are made again (`model/recipe.py`).
    """

    date: Annotated[str, Meta(max_length=64)] = ""
    dataset: Annotated[str, Meta(max_length=256)] = ""
    framework: Annotated[str, Meta(max_length=256)] = ""
    run: Annotated[str, Meta(max_length=1024)] = ""
    parent: Annotated[str, Meta(max_length=256)] = ""  # the version it was trained from
    architecture: Annotated[str, Meta(max_length=256)] = ""
    build_hash: Annotated[str, Meta(max_length=64)] = ""
    target_hardware: Annotated[tuple[LabelValue, ...], Meta(max_length=limits.TARGET_HARDWARE)] = ()
    datasets: Annotated[tuple[Dataset, ...], Meta(max_length=limits.DATASETS)] = ()
    code: SourceCode | None = None
    parents: Annotated[tuple[Parent, ...], Meta(max_length=limits.PARENTS)] = ()
    recipe: Kept | None = None


class Requirement(Document, frozen=True):
    """Another model that must run at a given version with this one (an encoder and its decoder)."""

    model: Name
    serial: Serial


class Release(Document, frozen=True, tag_field="format", tag="whimbrel-release-1"):
    """One publication of a model, signed by its publisher, never changed. TUF target `models/<model>/<serial>.json`.

    `unchecked`: the objections that the publisher passed over, a sentence each. `local_limits`: what each device
    decides by itself. `model_signatures`: those of other people over its files, as the publisher verified them.
    """

    model: Name
    serial: Serial
    version: str
    semantic_version: str
    build_hash: Annotated[str, matching("^[0-9a-f]{12}" + END, "12 lower-case hexadecimal digits")]
    created: Annotated[
        str,
        matching(
            r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z" + END,
            "a time in UTC such as 2026-03-05T10:00:00Z",
        ),
    ]
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=limits.VARIANTS)]
    training: Training = msgspec.field(default_factory=Training)
    metrics: Annotated[dict[Label, Metric], Meta(max_length=256)] = {}
    changelog: Annotated[tuple[Text, ...], Meta(max_length=limits.CHANGELOG_LINES)] = ()
    requires: Annotated[tuple[Requirement, ...], Meta(max_length=16)] = ()
    reference: Reference | None = None
    unchecked: Annotated[tuple[Text, ...], Meta(max_length=limits.OBJECTIONS)] = ()
    local_limits: LocalLimits | None = None
    model_signatures: Annotated[tuple[ModelSignature, ...], Meta(max_length=limits.MODEL_SIGNATURES)] = ()

    def __post_init__(self) -> None:
        CalendarVersion.parse(self.version)
        semantic_key(self.semantic_version)
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"two variants share a name: {sorted(names)}")
        if unknown := {name for signed in self.model_signatures for name in signed.variants} - set(names):
            raise ValueError(f"a model signature is over the variant {min(unknown)!r}, which is not there")
        if len({file.sealed is None for file in self._files}) > 1:
            raise ValueError("some files of this release are sealed and some are not; all are, or none")

    @property
    def kept(self) -> tuple[Kept, ...]:
        """The files that people may fetch, beside its artifacts: its recipe, bundles and what verifies them."""
        recipe = () if self.training.recipe is None else (self.training.recipe,)
        return (*recipe, *(each for signed in self.model_signatures for each in (signed.bundle, signed.anchor)))

    @property
    def _files(self) -> tuple[File, ...]:
        return tuple(file for variant in self.variants for file in variant.files)

    @property
    def is_sealed(self) -> bool:
        """Whether its artifacts travel sealed, and a device needs the release's key."""
        return any(file.sealed is not None for file in self._files)

    @property
    def artifacts(self) -> frozenset[str]:
        """The digests under which its artifacts are stored: of the sealed ones where it is sealed."""
        return frozenset(file.artifact_sha256 for file in self._files)

    @property
    def digests(self) -> frozenset[str]:
        """The digests of its files, as they lie on devices."""
        return frozenset(file.sha256 for file in self._files)


class Line(Document, frozen=True, tag_field="format", tag="whimbrel-line-1"):
    """Which serials of a model may run. TUF target `models/<model>/line.json`. The sequence only grows."""

    model: Name
    sequence: Annotated[int, Meta(ge=1, le=limits.SEQUENCE_MAX)]
    minimum_serial: Serial = 1
    revoked: Annotated[tuple[Serial, ...], Meta(max_length=limits.REVOKED)] = ()

    def allows(self, serial: int) -> bool:
        """Whether this line lets `serial` run."""
        return serial >= self.minimum_serial and serial not in self.revoked


class Floor(Document, frozen=True, tag_field="format", tag="whimbrel-floor-1"):
    """The newest line of a model has this `sequence`, or a greater one. TUF target `floors/<model>.json`.

    `days`: how long its role holds from when it is signed; it is signed anew before.
    """

    model: Name
    sequence: Annotated[int, Meta(ge=1, le=limits.SEQUENCE_MAX)]
    days: Annotated[int, Meta(ge=1, le=limits.FLOOR_DAYS)]
