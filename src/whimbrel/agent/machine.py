"""Is this machine fit for an agent? What `whimbrel doctor` looks at, one finding for each thing.

A *problem* keeps an agent from working; a *warning* is something that it does without. Every finding says what was
found, what it means, and what to do.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

import msgspec

from whimbrel import agefile, limits
from whimbrel.agent.assembly import can_patch
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.folder import PRIVATE_FILE, PRIVATE_FILES, owner_problem
from whimbrel.agent.labels import seen_labels
from whimbrel.agent.open_in_memory import memory_problem
from whimbrel.agent.probes.formats import PROBES, has_runtime
from whimbrel.agent.settings import kept
from whimbrel.agent.transport import HttpNetwork, Proxies, check_server
from whimbrel.cage import check
from whimbrel.device.ports import Answer
from whimbrel.durable import try_to_write
from whimbrel.errors import WhimbrelError, reason_of
from whimbrel.model.formats import BY_NAME, Without, runtime_label

Level = Literal["ok", "warning", "problem"]
_BUILT = 1_767_225_600.0  # 2026-01-01: this program is no older, so a clock that says less is wrong


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `to_do`: "" where nothing is to do."""

    checked: str
    level: Level
    found: str
    means: str = ""
    to_do: str = ""


def examine(folder: Path | None, server: str | None, *, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Look at everything, quick things first. `server`: asked where given, else the one that the folder names."""
    yield from _cage()
    yield _clock(now())
    yield from _runtimes()
    yield _sealed()
    settings = None
    if folder is not None:
        yield from _folder(folder)
        try:
            settings = kept(folder, disk=RealDisk())
        except (OSError, WhimbrelError) as error:
            yield Finding("settings", "problem", reason_of(error), "no agent starts here", "mend or remove agent.json")
    address = server or (settings.server if settings is not None else "")
    if address:
        proxies = Proxies(settings.proxy if settings is not None else "")
        authorities = settings.ca_file if settings is not None else ""
        namespace = settings.namespace if settings is not None else "default"
        yield from _server(address, namespace, HttpNetwork(proxies=proxies, ca_file=authorities), now)


def _cage() -> Iterator[Finding]:
    try:
        walls = check.report()
    except WhimbrelError as error:
        yield Finding("cage", "problem", str(error), "no model can be tried here", "run the command that it names")
        return
    for wall in walls:
        found = "holds" if wall.holds else "open"
        yield Finding(f"cage: {wall.name}", "ok" if wall.holds else "warning", found, wall.means, wall.to_do)


def _clock(now: float) -> Finding:
    words = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now >= _BUILT:
        return Finding("clock", "ok", words)
    means = "signed documents look valid that have expired; maintenance windows are at wrong times"
    found = f"{words}, before this program was made"
    return Finding("clock", "warning", found, means, "let the machine have the time (NTP)")


def _runtimes() -> Iterator[Finding]:
    labels = seen_labels()
    for kind, probe in PROBES.items():
        if isinstance(probe.runtime, Without):
            continue
        row = BY_NAME[kind]
        if has_runtime(kind):
            yield Finding(f"runtime: {kind}", "ok", f"{row.runtime} {labels.get(runtime_label(kind), '')}".strip())
        else:
            means = f"{kind} models with golden values cannot be tried here, and are not taken"
            what_to_do = f"install {row.runtime}, if this device is to run {kind} models"
            yield Finding(f"runtime: {kind}", "warning", f"{row.runtime} is not installed", means, what_to_do)
    if can_patch():
        yield Finding("patches", "ok", "can be applied")
    else:
        yield Finding("patches", "warning", "cannot be applied", "versions come whole", "pip install 'whimbrel[delta]'")


def _sealed() -> Finding:
    if not agefile.is_installed():
        means = "versions of sealed models are not taken"
        return Finding("sealed models", "warning", "cannot be opened", means, "pip install 'whimbrel[sealed]'")
    if memory_problem():
        means = "with sealed_at_rest, sealed models are not taken; without it they are opened on the disk"
        return Finding("sealed models", "ok", "can be opened on the disk", means)
    return Finding("sealed models", "ok", "can be opened, also in memory alone (sealed_at_rest)")


def _folder(folder: Path) -> Iterator[Finding]:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    room = f"{free / limits.GIB:.1f} GiB free"
    if free < limits.DOCTOR_FREE_BYTES:
        yield Finding("disk", "warning", room, "a model and its successor may not fit", "free some space")
    else:
        yield Finding("disk", "ok", room)
    try:
        try_to_write(place, doing=f"writing into {place}")
        yield Finding("writing", "ok", f"{place} can be written to")
    except WhimbrelError as error:
        yield Finding("writing", "problem", str(error), "an agent keeps nothing here", "change the owner or the folder")
    if place != folder:
        means = "nothing of an agent was looked at; before its first run that is right, and the run makes the folder"
        yield Finding("folder", "warning", f"there is no folder {folder}", means, "see whether --folder is spelt right")
    elif not folder.is_dir():
        yield Finding("folder", "problem", f"{folder} is a file", "no agent starts here", "name the agent's folder")
    else:
        if hasattr(os, "geteuid"):
            yield _owner(folder)
        if not (folder / "agent.json").exists():
            means = "nothing of an agent was looked at"
            yield Finding("settings", "warning", f"no agent ran in {folder}", means, "see whether --folder is right")


def _owner(folder: Path) -> Finding:
    status = folder.stat()
    if problem := owner_problem(folder, owner=status.st_uid, user=os.geteuid()):
        return Finding("folder", "problem", problem, "an agent refuses the folder", "see above")
    paths = [folder / name for name in PRIVATE_FILES if (folder / name).exists()]
    readable = [path.name for path in paths if path.stat().st_mode & ~PRIVATE_FILE & 0o777]
    if readable:
        found, means = f"{', '.join(readable)} can be read by others", "other users can read secrets in it"
        return Finding("folder", "warning", found, means, "start the agent once: it closes them")
    mode = status.st_mode & 0o777
    if mode & 0o007:
        means = "other users of this machine see which models run here"
        return Finding("folder", "warning", f"mode {mode:04o}", means, f"chmod o= {folder}")
    return Finding("folder", "ok", f"mode {mode:04o}, of user {status.st_uid}")


def _server(address: str, namespace: str, network: HttpNetwork, now: Callable[[], float]) -> Iterator[Finding]:
    try:
        url = f"{check_server(address)}/{namespace}/metadata/timestamp.json"
        answer: Answer = network.ask("GET", url, bytes_max=limits.DOCUMENT_BYTES)
    except WhimbrelError as error:
        means = "no news reach this device; what is here runs on"
        yield Finding("server", "problem", str(error), means, "check the address, the network, the proxy and the CA")
        return
    finally:
        network.close()
    if answer.status != 200:
        found, means = f"{url} answers {answer.status}", "it is no Whimbrel server, or has no such namespace"
        yield Finding("server", "problem", found, means, "check --server")
        return
    yield Finding("server", "ok", f"{address} answers")
    try:
        ahead_s = now() - parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return
    found = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if abs(ahead_s) > limits.DOCTOR_CLOCK_S:
        means = "maintenance windows and reports are at wrong times; signed documents may look expired"
        yield Finding("clock against the server", "warning", found, means, "let both machines have the time (NTP)")
    else:
        yield Finding("clock against the server", "ok", found)


def platform_words() -> str:
    """The system, for the first line of a report."""
    return f"{sys.platform}, Python {sys.version.split()[0]}"
