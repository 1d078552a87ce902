"""Try the files of a new version here, before anything of it is stored: they must be whole, and must work.

1. A variant's files are all that a device gets: weights in other files, and shards, must be among them.
2. Each model is opened by the probe that devices run, in the same cage, where its runtime is installed here: golden
   values are tried, or made-up inputs. Without the runtime the file's structure is checked, and this is said.
3. An objection ends the publication. With --unchecked objections are told, signed into the release, and passed over.

Called by `whimbrel publish`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.agent.labels import seen_labels
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.checks import runs_here
from whimbrel.agent.probes.formats import PROBES
from whimbrel.cli.output import waiting
from whimbrel.device.ports import ProbeRequest
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.flows.publishing.check_files import missing_files, precision_objection
from whimbrel.model.formats import BY_NAME, Format, Without, runtime_label
from whimbrel.model.release import Variant
from whimbrel.stores.inspection import Inspection, inspect, recognise


class Objections:
    """What speaks against publishing. The first ends it, unless the publisher passes over them: then all are kept."""

    def __init__(self, *, passed_over: bool) -> None:
        self._passed_over = passed_over
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Raises `UntrustedInput`, or keeps the sentence. An empty one is no objection."""
        sentence = "".join(each if each.isprintable() else "?" for each in sentence).rstrip(". ")
        if not sentence:
            return
        if not self._passed_over:
            raise UntrustedInput(f"{sentence}. Nothing was published; --unchecked publishes it as it is")
        if len(self.sentences) < limits.OBJECTIONS:
            self.sentences.append(sentence[: limits.OBJECTION_CHARS])


class TriedModel(msgspec.Struct, frozen=True):
    """How a model was tried here. `how`: "ran" (golden values), "smoke" (made-up inputs), "structure", or "not"."""

    file: str
    how: str
    note: str = ""  # why it did not run
    latency_ms: float | None = None
    memory_mib: float | None = None

    def __str__(self) -> str:
        words = {
            "ran": "tried here with the probe's inputs",
            "smoke": "tried here with made-up inputs",
            "structure": "not run here, its structure was checked",
            "not": "not tried here",
        }[self.how]
        if self.latency_ms is not None:
            words += f": {self.latency_ms:.3g} ms an inference"
        if self.how in {"ran", "smoke"} and self.memory_mib is not None:
            words += f", {self.memory_mib:.0f} MiB of memory"
        return f"{words}: {self.note}" if self.note else words


def inspect_model(path: Path, objections: Objections, *, beside_bytes: int = 0) -> Inspection:
    """What is in the file or folder. `beside_bytes`: of the model's other files.

    Raises `UntrustedInput` where it is no model, or one that cannot be read.
    """
    try:
        return inspect(path, beside_bytes=beside_bytes)
    except UntrustedInput as error:
        kind = recognise(path)  # what is no model at all is not published, whoever says so
        objections.add(str(error))
        return Inspection(format=kind, note="it was not read")


def check_files(variants: Sequence[Variant], inspections: Mapping[str, Inspection], objections: Objections) -> None:
    """Whether each variant is whole, and of the precision that it says. `inspections`: by its name."""
    for variant in variants:
        entry = variant.files[0]
        inspection = inspections[variant.name]
        objections.add(missing_files(entry.name, inspection, [file.name for file in variant.files]))
        if wrong := precision_objection(given=variant.precision, of_file=inspection.precision):
            objections.add(f"{entry.name}: {wrong}")


def try_models(
    variants: Sequence[Variant],
    places: Mapping[str, Path],
    inspections: Mapping[str, Inspection],
    objections: Objections,
) -> dict[str, list[TriedModel]]:
    """Probe every model once for each probe that a variant asks for; by the variant's name.

    `places`: where a variant's first file or unpacked folder lies, and `inspections`: what is in it, by its name.
    """
    tried: list[tuple[ProbeRequest, TriedModel]] = []
    by_variant: dict[str, list[TriedModel]] = {}
    server = ProbeServer()
    try:
        for variant in variants:
            file = variant.files[0]
            request = ProbeRequest(str(places[variant.name].resolve()), file.format, variant.signature, variant.probe)
            model = next((each for other, each in tried if other == request), None)
            if model is None:
                with waiting(f"trying {file.name}"):
                    model = _try(server, request, variant, inspections[variant.name], objections)
                tried.append((request, model))
            by_variant[variant.name] = [model]
    finally:
        server.close()
    return by_variant


def _try(
    server: ProbeServer, request: ProbeRequest, variant: Variant, inspection: Inspection, objections: Objections
) -> TriedModel:
    file = variant.files[0]
    note = ""
    if not runs_here(request.format):
        note = _why_not(request.format)
        request = msgspec.structs.replace(request, probe=None)  # golden values need a runtime
    try:
        result = server.probe(request)
    except Unavailable as error:
        return TriedModel(file.name, "not", note=str(error))
    if not result.passed:
        runtime = _runtime(request.format)
        if inspection.too_old is not None and not inspection.too_old.matches(seen_labels()):
            needs = "is of a newer form (opset, IR version) than the runtime that is installed here knows"
            objections.add(f"{file.name} {needs} ({runtime}); install a newer one to have it tried")
        else:
            reason = " ".join(result.reason.split())
            with_it = f" (with {runtime})" if runtime else ""
            objections.add(f"{file.name} fails the probe that devices run{with_it}: {reason}")
        return TriedModel(file.name, "not", note="its probe failed")
    if result.how == "structure" and not note:
        asked = variant.probe is None or variant.probe.smoke
        note = (
            "no inputs can be made up for it; the card may bring golden values"
            if asked
            else "the card says smoke: false"
        )
    return TriedModel(file.name, result.how or "ran", note, latency_ms=result.latency_ms, memory_mib=result.memory_mib)


def _why_not(kind: Format) -> str:
    importing = PROBES[kind].runtime
    return importing.because if isinstance(importing, Without) else f"{BY_NAME[kind].runtime} is not installed"


def _runtime(kind: Format) -> str:
    version = seen_labels().get(runtime_label(kind))
    return f"{BY_NAME[kind].runtime} {version}" if version else ""
