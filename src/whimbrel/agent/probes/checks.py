"""The check of one model, by its format. Runs in the caged child.

1. A package may bring its own check for a format, through the entry point group `whimbrel.probes`: the entry's name is
   the format, its value a function from `ProbeRequest` to `ProbeResult`. It is used instead of ours.
2. Golden inputs need a runtime: where there is none, the probe fails. No version is called good without having run.
3. Without golden inputs the runtime gets made-up ones (`smoke.py`).
4. Where a format has no runtime here, and the release has no golden inputs, the file's structure is checked: magic,
   header, bounds.
"""

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from whimbrel.agent.probes.formats import PROBES, has_runtime, runtime_of
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.formats import Format

Check = Callable[[ProbeRequest], ProbeResult]

_GROUP = "whimbrel.probes"


def runs_here(kind: Format) -> bool:
    """Whether golden values of this format can be tried here: with its runtime, or by a check of another package."""
    return has_runtime(kind) or any(entry.name == kind for entry in entry_points(group=_GROUP))


@cache
def package_checks() -> dict[str, Check]:
    """The checks of other packages, by format. Called before the first fork, so that a child finds them loaded.

    A check that cannot be imported is replaced by one that fails and says so.
    """
    checks: dict[str, Check] = {}
    for entry in entry_points(group=_GROUP):
        try:
            checks[entry.name] = entry.load()
        except Exception as error:  # noqa: BLE001 (whatever an import of somebody else's code raises)
            checks[entry.name] = _broken(f"the probe {entry.value} for {entry.name} cannot be loaded: {error}")
    return checks


def _broken(reason: str) -> Check:
    return lambda _: ProbeResult(passed=False, reason=reason)


def check(request: ProbeRequest, keep: Callable[[ProbeResult], None]) -> ProbeResult:
    """Try the model. Raises whatever a loader raises, which the caller takes for a failed probe.

    `keep` takes the result that holds if the process ends before there is another.
    """
    path = Path(request.path)
    if request.format in package_checks():
        return package_checks()[request.format](request)
    probe, runtime = PROBES[request.format], runtime_of(request.format)
    if runtime is not None:
        from whimbrel.agent.probes import golden

        if probe.structure_first:
            probe.structure(path)
        return golden.judge(runtime(path), request, keep)
    if request.probe is not None and (request.probe.inputs or request.probe.validation):
        return ProbeResult(
            passed=False,
            reason=f"the release has golden inputs, and no runtime for {request.format} is installed to run them",
        )
    probe.structure(path)
    if probe.structure_by_library is not None:
        probe.structure_by_library(path)
    return ProbeResult(passed=True, how="structure")
