"""The order to try a version in the shadow: any process of an app reads it from the agent's journal.

Only the journal decides: a version is tried in the shadow while its journal says so, and no longer.
"""

import msgspec

from whimbrel.agent.places import Places
from whimbrel.device.journal import Journal, unseal
from whimbrel.device.slots import Held
from whimbrel.device.states import State
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import Format, runnable_format
from whimbrel.policy.shadow import Compare


class Order(msgspec.Struct, frozen=True):
    """Try version `serial` beside version `beside`. Also: where their files are, which share of the calls is
    tried, and which answers count as the same.
    """

    serial: int
    beside: int
    candidate_path: str
    candidate_format: Format
    active_path: str
    active_format: Format
    candidate_folder: str  # that of all its files
    active_folder: str
    sample_ppm: int
    compare: Compare
    absolute: float
    relative: float


class WorkerAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the worker says of one call, or (with nothing set) that it is ready. `failed`: the candidate did.

    `skipped`: the active version failed, so nothing is learnt.
    """

    agreement: float | None = None
    active_ms: float = 0.0
    candidate_ms: float = 0.0
    failed: str = ""
    skipped: str = ""


def read_order(places: Places, active: Held | None) -> Order | None:
    """What is shadowed now; None for nothing. Raises `OSError`."""
    content = places.disk.read(places.journal)
    if content is None or active is None:
        return None
    try:
        journal = unseal(Journal, content, what="the journal")
    except UntrustedInput:
        return None
    candidate = journal.candidate
    if journal.state is not State.SHADOWING or candidate is None or candidate.held is None or candidate.shadow is None:
        return None
    if candidate.held.slot == active.slot:
        return None
    kind = candidate.files[0].format
    shadow = candidate.shadow
    return Order(
        serial=candidate.serial,
        beside=active.serial,
        candidate_path=str(places.entry(candidate.held)),
        candidate_format=kind,
        active_path=str(places.entry(active)),
        active_format=runnable_format(active.entry) or kind,
        candidate_folder=str(places.slot(candidate.held.slot)),
        active_folder=str(places.slot(active.slot)),
        sample_ppm=shadow.how.sample_ppm,
        compare=shadow.how.compare,
        absolute=shadow.absolute_tolerance,
        relative=max(shadow.relative_tolerance, shadow.how.tolerance),
    )
