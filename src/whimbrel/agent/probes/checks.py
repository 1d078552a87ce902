"""Which check fits a model's format? Runs in the caged child.

1. A package may bring its own check for a format, through the entry point group `whimbrel.probes`: the entry's name is
   the format, its value a function from `ProbeRequest` to `ProbeResult`. It goes before ours.
2. Golden inputs ask for a runtime: where there is none, the probe fails. A version is never called good unseen.
3. Without golden inputs a format without a runtime is read: magic, header, bounds.
"""

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from whimbrel.agent.probes.formats import PROBES, runtime_of
from whimbrel.device.ports import ProbeRequest, ProbeResult

Check = Callable[[ProbeRequest], ProbeResult]


@cache
def brought() -> dict[str, Check]:
    """The checks of other packages, by format. Called before the first fork, so that a child finds them loaded.

    One that cannot be imported becomes a check that fails and says so.
    """
    found: dict[str, Check] = {}
    for entry in entry_points(group="whimbrel.probes"):
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # noqa: BLE001 (whatever an import of somebody else's code raises)
            found[entry.name] = _broken(f"the probe {entry.value} for {entry.name} cannot be loaded: {error}")
    return found


def _broken(reason: str) -> Check:
    return lambda _: ProbeResult(passed=False, reason=reason)


def check(request: ProbeRequest) -> ProbeResult:
    """Try the model. Raises whatever a loader raises: the caller calls that a failed probe."""
    path = Path(request.path)
    if request.format in brought():
        return brought()[request.format](request)
    probe, runtime = PROBES[request.format], runtime_of(request.format)
    if runtime is not None:
        from whimbrel.agent.probes import golden

        if probe.structure_first:
            probe.structure(path)
        return golden.judge(runtime(path), request)
    if request.probe is not None and (request.probe.inputs or request.probe.validation):
        return ProbeResult(
            passed=False,
            reason=f"the release has golden inputs, and no runtime for {request.format} is installed to run them",
        )
    probe.structure(path)
    if probe.structure_by_library is not None:
        probe.structure_by_library(path)
    return ProbeResult(passed=True, how="structure")
