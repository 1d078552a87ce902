"""The model card, `--card card.yaml`: what a person says of a version, in the field's published manifest form.

    semantic_version: "2.4.1"
    training_date: 2026-03-04T23:00:00Z
    training_dataset: 2026_q1_v3
    framework: pytorch_2.1
    metadata: {accuracy: 0.842, training_samples: 2347891}
    compatibility: {min_ios_version: "15.0", min_android_api: 26, min_app_version: 1.8.0}
    changelog: [Fewer false alarms in wind.]
    lineage: {run: "mlflow:5d1e", parent: "2.4.0"}
    probe: {golden: golden.npz, latency_ms_max: 50}
    reference: {classes: [left, right], shares: [0.6, 0.4]}     # or edges and shares of numbers; or: validation
    budgets: {size_bytes_max: 500000, metric_min: {accuracy: 0.84}}
    local_limits: {crash_loop: 3, error_rate_max: 0.05, latency_ms_p95_max: 50, accuracy_min: 0.8}
    variants: {int8: {probe: {absolute_tolerance: 0.05, latency_ms_max: 20}, budgets: {size_bytes_max: 200000}}}

1. A manifest that exists already (JSON is YAML) is taken as it is: `model_id`, `version_parts`, `files` and `rollout`
   are read too, for publishing to check and to use. `build_hash` and `target_hardware` are the pipeline's own words. By
   `rollout` a model's first version reaches whom it says; without it, or with 100% of all devices, every device gets
   the first version at once.
2. An unknown key is refused with its line; a version such as 2.10 must be quoted, since a number it is 2.1.

Called by publishing, which reads the files that a card names.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.variant_spec import VariantSpec, restrict
from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.model.documents import Document
from whimbrel.model.ids import CalendarVersion, Digest, Label, LabelValue, Name, Text, dotted_key, semantic_key
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.paths import PATH_CHARS
from whimbrel.model.release import Metric, Probe, Reference, Requirement, Tensor, Training, Validation, metric_of
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.plan.plan import Plan, Stage

Short = Annotated[str, Meta(max_length=256)]
Version = Annotated[str, Meta(max_length=128)]


class VersionParts(Document, frozen=True):
    """A calendar version, taken apart."""

    year: int
    month: int
    day: int
    iteration: int


class Compatibility(Document, frozen=True):
    """The oldest system and app that a version runs on; `selector` says anything else."""

    min_ios_version: Version | None = None
    min_android_api: Version | int | None = None
    min_app_version: Version | None = None
    selector: Selector = EVERYONE

    def __post_init__(self) -> None:
        for key, version in self.minima.items():
            _checked(key, dotted_key, version)

    @property
    def minima(self) -> dict[str, str]:
        """Those that are given, as text."""
        keys = ("min_ios_version", "min_android_api", "min_app_version")
        return {key: str(getattr(self, key)) for key in keys if getattr(self, key) is not None}


class Lineage(Document, frozen=True):
    """The run that made a version, and the version that it was trained from."""

    run: Annotated[str, Meta(max_length=1024)] = ""
    parent: Short = ""


class CardProbe(Document, frozen=True):
    """Golden values, inline or in a file beside the card (`golden`: .npz or .json), and the budgets of the probe."""

    golden: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    inputs: Annotated[dict[str, Tensor], Meta(max_length=64)] = {}
    outputs: Annotated[dict[str, Tensor], Meta(max_length=64)] = {}
    absolute_tolerance: Annotated[float, Meta(ge=0)] | None = None
    relative_tolerance: Annotated[float, Meta(ge=0)] | None = None
    latency_ms_max: Annotated[float, Meta(gt=0)] | None = None
    memory_mib_max: Annotated[int, Meta(gt=0)] | None = None
    output_ranges: Annotated[dict[str, tuple[float, float]], Meta(max_length=64)] | None = None
    validation: Validation | None = None
    smoke: bool | None = None

    def __post_init__(self) -> None:
        if self.golden is not None and (self.inputs or self.outputs):
            raise ValueError("golden: values are given in a file and inline; give them once")
        if bool(self.inputs) != bool(self.outputs):
            raise ValueError("golden inputs come with the outputs that they must give; one of the two is missing")

    def probe(self, golden: Probe | None = None) -> Probe:
        """The release's probe. `golden`: what the file that `self.golden` names holds."""
        words = golden or Probe(inputs=self.inputs, outputs=self.outputs)
        return msgspec.structs.replace(words, **self._asked)

    def over(self, general: "CardProbe | None") -> "CardProbe":
        """This probe of one variant, and what it leaves out as the card's general probe has it.

        Golden values are inputs with their outputs: they are taken from the one or from the other.
        """
        if general is None:
            return self
        own = self if self.golden is not None or self.inputs else general
        golden = {"golden": own.golden, "inputs": own.inputs, "outputs": own.outputs}
        return msgspec.structs.replace(general, **(golden | self._asked))

    @property
    def _asked(self) -> dict[str, Any]:
        """What it says besides golden values, by the names of the release's probe."""
        keys = (
            "absolute_tolerance",
            "relative_tolerance",
            "latency_ms_max",
            "memory_mib_max",
            "output_ranges",
            "validation",
            "smoke",
        )
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}


class CardReference(Document, frozen=True):
    """The spread of right predictions: `edges` of numbers, or `classes`, and the share of each bin."""

    edges: Annotated[tuple[float, ...], Meta(max_length=limits.REFERENCE_BINS - 1)] = ()
    classes: Annotated[tuple[int | str, ...], Meta(max_length=limits.REFERENCE_BINS - 1)] = ()
    shares: Annotated[tuple[float, ...], Meta(max_length=limits.REFERENCE_BINS)] = ()

    def __post_init__(self) -> None:
        if bool(self.edges) == bool(self.classes):
            raise ValueError("reference: give either edges or classes")
        self.reference()

    def reference(self) -> Reference:
        """The release's."""
        kind: Literal["numbers", "classes"] = "numbers" if self.edges else "classes"
        return Reference(kind=kind, bins=self.edges or self.classes, shares=self.shares)


class Budgets(Document, frozen=True):
    """What a version may not exceed to be published."""

    size_bytes_max: Annotated[int, Meta(gt=0)] | None = None  # of the largest variant
    metric_min: Annotated[dict[Label, float], Meta(max_length=256)] = {}
    metric_max: Annotated[dict[Label, float], Meta(max_length=256)] = {}

    def broken(self, *, size_bytes: int, metrics: dict[str, float]) -> list[str]:
        """One sentence a budget that is not kept; a metric that is not there keeps none."""
        overruns = []
        if self.size_bytes_max is not None and size_bytes > self.size_bytes_max:
            overruns.append(f"it has {size_bytes} bytes, over the budget of {self.size_bytes_max}")
        for bounds, word in ((self.metric_min, "below the floor"), (self.metric_max, "over the ceiling")):
            for name, bound in sorted(bounds.items()):
                value = metrics.get(name)
                if value is None:
                    overruns.append(f"{name} has a budget of {bound:g} and was not measured")
                elif value < bound if bounds is self.metric_min else value > bound:
                    overruns.append(f"{name} is {value:g}, {word} of {bound:g}")
        return overruns


class VariantBudgets(Document, frozen=True):
    """What one variant may not exceed to be published."""

    size_bytes_max: Annotated[int, Meta(gt=0)] | None = None  # of all its files


class CardVariant(Document, frozen=True):
    """What a card says of one variant alone: what it leaves out is as in the rest of the card."""

    probe: CardProbe | None = None
    budgets: VariantBudgets = msgspec.field(default_factory=VariantBudgets)


class CardFile(Document, frozen=True):
    """A file that a manifest lists: checked against the one that is published under its name."""

    name: Annotated[str, Meta(max_length=PATH_CHARS)]
    size: Annotated[int, Meta(ge=0, le=limits.ARTIFACT_BYTES)] | None = None
    sha256: Digest | None = None
    platform: LabelValue | None = None
    url: Annotated[str, Meta(max_length=4096)] = ""

    def differs(self, *, size_bytes: int, sha256: str) -> str | None:
        """A sentence, where the card says another thing than the file is."""
        if self.size is not None and self.size != size_bytes:
            return f"{self.name} has {size_bytes} bytes; the card says {self.size}"
        if self.sha256 is not None and self.sha256 != sha256:
            return f"{self.name} has the SHA-256 {sha256}; the card says {self.sha256}"
        return None


class CardRollout(Document, frozen=True):
    """A manifest's `rollout`: one stage. The model's first version begins with it; a later one waits for a person."""

    percentage: Annotated[float, Meta(gt=0, le=100)]
    regions: Annotated[tuple[LabelValue, ...], Meta(max_length=256)] = ()
    user_segments: Annotated[tuple[LabelValue, ...], Meta(max_length=256)] = ()

    def plan(self, model_version: str) -> Plan:
        """The same as a plan."""
        stage = Stage(
            name="rollout", target_percent=self.percentage, regions=self.regions, user_segments=self.user_segments
        )
        return Plan(model_version=model_version, stages=(stage,))

    @property
    def everyone(self) -> bool:
        """Whether it means every device at once."""
        return self.percentage >= 100 and not self.regions and not self.user_segments


class Card(Document, frozen=True):
    """A model card. Everything may be left out: publishing fills in what it can."""

    model_id: Name | None = None
    semantic_version: Version | None = None
    version: Version | None = None
    version_parts: VersionParts | None = None
    build_hash: Annotated[str, Meta(max_length=64)] = ""
    training_date: Annotated[str, Meta(max_length=64)] = ""
    training_dataset: Short = ""
    framework: Short = ""
    architecture: Short = ""
    target_hardware: Annotated[tuple[LabelValue, ...], Meta(max_length=limits.TARGET_HARDWARE)] | LabelValue = ()
    metadata: Annotated[dict[str, int | float | str | bool], Meta(max_length=256)] = {}
    compatibility: Compatibility = msgspec.field(default_factory=Compatibility)
    changelog: Annotated[tuple[Text, ...], Meta(max_length=limits.CHANGELOG_LINES)] | Text = ()
    lineage: Lineage = msgspec.field(default_factory=Lineage)
    probe: CardProbe | None = None
    budgets: Budgets = msgspec.field(default_factory=Budgets)
    requires: Annotated[tuple[Requirement, ...], Meta(max_length=16)] = ()
    reference: CardReference | Literal["validation"] | None = None  # "validation": count what it predicts there
    files: Annotated[tuple[CardFile, ...], Meta(max_length=limits.VARIANTS * limits.FILES)] = ()
    variants: Annotated[dict[Name, CardVariant], Meta(max_length=limits.VARIANTS)] = {}
    rollout: CardRollout | None = None
    local_limits: LocalLimits | None = None

    def __post_init__(self) -> None:
        if self.semantic_version is not None:
            _checked("semantic_version", semantic_key, self.semantic_version)
        probes = (self.probe, *(variant.probe for variant in self.variants.values()))
        if self.reference == "validation" and not any(probe and probe.validation for probe in probes):
            raise ValueError("reference: validation: the probe has no validation samples to run the model on")
        if self.version is not None:
            _checked("version", CalendarVersion.parse, self.version)
        if self.version_parts is not None:
            parts = CalendarVersion(**msgspec.structs.asdict(self.version_parts))
            if self.version is None or CalendarVersion.parse(self.version) != parts:
                raise ValueError(f"version_parts: they say {parts}, and version says {self.version}")
        if self.training_date:
            _checked("training_date", _moment, self.training_date)
        for key, value in self.metadata.items():
            if isinstance(value, bool | str):
                raise ValueError(f"metadata.{key}: expected a number, found {value!r}; words go into the changelog")
            _checked(f"metadata.{key}", lambda name: msgspec.convert(name, Label), key)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The release's metrics."""
        return {key: metric_of(value) for key, value in self.metadata.items() if isinstance(value, int | float)}

    @property
    def changes(self) -> tuple[str, ...]:
        """The release's changelog."""
        return _several(self.changelog)

    @property
    def training(self) -> Training:
        """The release's training data."""
        return Training(
            date=self.training_date,
            dataset=self.training_dataset,
            framework=self.framework,
            architecture=self.architecture,
            build_hash=self.build_hash,
            target_hardware=_several(self.target_hardware),
            run=self.lineage.run,
            parent=self.lineage.parent,
        )

    def probe_of(self, variant: str) -> CardProbe | None:
        """The probe of the variant of this name: its own, over the general one."""
        own = self.variants[variant].probe if variant in self.variants else None
        return self.probe if own is None else own.over(self.probe)

    def broken_budgets(self, sizes: Mapping[str, int], metrics: dict[str, float]) -> list[str]:
        """One sentence a budget that is not kept. `sizes`: bytes of each variant, by its name."""
        overruns = self.budgets.broken(size_bytes=max(sizes.values()), metrics=metrics)
        for name, variant in self.variants.items():
            bound, size = variant.budgets.size_bytes_max, sizes.get(name, 0)
            if bound is not None and size > bound:
                overruns.append(f"the variant {name} has {size} bytes, over its budget of {bound}")
        return overruns

    def check_variants(self, names: Collection[str]) -> None:
        """Raises `UntrustedInput` where the card speaks of a variant that is not among those that are published."""
        if unknown := sorted(self.variants.keys() - set(names)):
            raise UntrustedInput(
                f"the card speaks of a variant {unknown[0]!r}; published are {', '.join(sorted(names))} "
                "(--variant name=... gives a name)"
            )

    def restricted(self, spec: VariantSpec) -> tuple[VariantSpec, ...]:
        """`spec` for the devices that the card's compatibility leaves: one, or one a platform.

        Raises `UntrustedInput` where the two ask different things of one label.
        """
        given, own = spec.selector, self.compatibility.selector
        if clash := [key for key, value in own.match_labels.items() if given.match_labels.get(key, value) != value]:
            raise UntrustedInput(
                f"the card and the variant {spec.name!r} ask different things of the label {clash[0]!r}"
            )
        both = Selector(
            match_labels={**given.match_labels, **own.match_labels},
            match_expressions=(*given.match_expressions, *own.match_expressions),
        )
        return restrict(msgspec.structs.replace(spec, selector=both), self.compatibility.minima)


def _several(words: tuple[str, ...] | str) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else words


def read_card(text: str, *, what: str) -> Card:
    """The card in `text` (YAML or JSON). `what` names the file in errors. Raises `UntrustedInput`, with the line."""
    return parse_yaml(Card, text, what=what, bytes_max=limits.CARD_BYTES)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no date; expected the form 2026-03-04 or 2026-03-04T23:00:00Z") from error


def _checked(key: str, check: Callable[[str], object], value: str) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
