"""The reference that drift is measured against: how a model's predictions for its validation samples are spread."""

from collections import Counter
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.probes.formats import PROBES
from whimbrel.agent.probes.golden import Model, classes_of
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import Format, Without
from whimbrel.model.release import Reference, Validation


def reference_of(path: Path, kind: Format, validation: Validation) -> Reference:
    """The shares of the classes, with half a sample added to each: a class that few samples miss may still happen.

    Raises `UntrustedInput` for a model that cannot be run on them, and for one with too many classes.
    """
    try:
        predicted = classes_of(_load(path, kind), validation)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UntrustedInput(f"{path.name} cannot be run on its validation samples: {error}") from error
    count = max(*predicted, *validation.labels) + 1
    if count >= limits.REFERENCE_BINS:
        raise UntrustedInput(
            f"{path.name} has {count} classes or more, and a reference at most {limits.REFERENCE_BINS - 1}; record a "
            "coarser prediction, and give its classes and shares"
        )
    counts = Counter(predicted)
    return Reference(
        kind="classes",
        bins=tuple(range(count)),
        shares=tuple((counts[each] + 0.5) / (len(predicted) + 0.5 * count) for each in range(count)),
    )


def _load(path: Path, kind: Format) -> Model:
    importing = PROBES[kind].runtime
    if isinstance(importing, Without):
        raise UntrustedInput(f"{path.name} cannot be run on its validation samples: {importing.because}")
    return importing()(path)
