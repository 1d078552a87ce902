"""Which labels does a device have? What the agent sees by itself, and what the app adds.

1. The agent sees `os`, `os_version`, `arch`, `cpu`, `ram_mb`, `hardware`, and `runtime.<module>` for each runtime of a
   format that is installed. What it cannot see has no label. The app's labels win.
2. A version is cut to its dotted number (`6.6.31-rpi` is `6.6.31`), so that `Version` terms can read it.
3. Nothing is imported or run for it. Serial numbers and addresses are never read: a label names a kind of device.
4. Labels stay on the device. Only those that a policy asks for by `report_labels` are told, at enrolment too. A label
   by which any policy divides devices into buckets (`bucket_by`) is never told, whatever asks for it.

Called by the agent when it opens.
"""

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from whimbrel import limits
from whimbrel.model.formats import FORMATS, runtime_label
from whimbrel.policy.policy import Policy, without
from whimbrel.trust.enrolment import is_reserved

_SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}  # sys.platform, and the label
_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}  # platform.machine(), in lower case
_IN_32_BITS = {"x86_64": "i686", "arm64": "armv7l"}  # what a 32-bit Python runs there is built for this
_DOTTED = re.compile(r"\d{1,9}(\.\d{1,9}){0,7}")
_REVISION = re.compile(r"\s+Rev\s+[0-9.]+$")  # of a board: too fine for a class of hardware
# What vendors leave in DMI where a name should be (seen on mainboards).
_NO_NAMES = {
    "",
    "none",
    "default string",
    "system product name",
    "system manufacturer",
    "to be filled by o.e.m.",
    "o.e.m.",
}
_TEXT_BYTES = 64 * limits.KIB  # of a file of the kernel's; /proc/cpuinfo names the first core at its beginning


def labels_of(given: Mapping[str, str]) -> dict[str, str]:
    """The labels of this device: what is seen, and the app's (`given`) over it; none that the server alone gives."""
    return {name: value for name, value in {**seen_labels(), **given}.items() if not is_reserved(name)}


def take_granted(labels: dict[str, str], own: Mapping[str, str], granted: Mapping[str, str]) -> None:
    """Let the labels that the server gives win over the device's `own`, in the dictionary that all parts share."""
    without_any = [name for name in labels if name not in own and name not in granted]
    labels.update({**own, **granted})
    for name in without_any:
        del labels[name]


def labels_to_tell(labels: Mapping[str, str], policies: Iterable[Policy]) -> dict[str, str]:
    """The labels that may leave the device: those that a policy asks for by name."""
    known = tuple(policies)
    asked = {label for policy in known for label in policy.report_labels}
    return {name: value for name, value in public_labels(labels, known).items() if name in asked}


def public_labels(labels: Mapping[str, str], policies: Iterable[Policy]) -> Mapping[str, str]:
    """The labels that may be asked for: without those by which some policy divides devices into buckets."""
    return without(labels, frozenset().union(*(policy.private_labels for policy in policies)))


@cache
def seen_labels() -> dict[str, str]:
    """What is to be seen of this machine and this Python. It does not change while the process runs."""
    return look(Path("/"))


def look(root: Path) -> dict[str, str]:
    """The same, with the kernel's files below `root`."""
    arch = architecture(platform.machine(), is_32_bit=sys.maxsize <= 2**32)
    words = {
        "os": _SYSTEMS.get(sys.platform, sys.platform),
        "os_version": _dotted(_system_version()),
        "arch": arch,
        "cpu": cpu_name(root),
        "ram_mb": _memory_mb(),
        "hardware": hardware_name(root),
        **_runtimes(),
    }
    return {name: _clean(value) for name, value in words.items() if _clean(value)}


def architecture(machine: str, *, is_32_bit: bool) -> str:
    """`x86_64`, `arm64`, `armv7l`, ...: what a runtime in this process must be built for."""
    arch = _MACHINES.get(machine.lower(), machine.lower())
    return _IN_32_BITS.get(arch, arch) if is_32_bit else arch


def cpu_name(root: Path) -> str:
    """The processor as the kernel names it: `AMD EPYC`, or `cortex-a72` from a device tree. "" where it does not."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    first = _text(root / "proc/device-tree/cpus/cpu@0/compatible").split("\0")[0]  # "arm,cortex-a72"
    return first.rpartition(",")[2]


def hardware_name(root: Path) -> str:
    """The board (device tree) or the machine (DMI), without its revision. "" where neither names one."""
    board = _text(root / "proc/device-tree/model").rstrip("\0").strip()
    if board:
        return _REVISION.sub("", board)
    vendor, product = (_named(_text(root / "sys/class/dmi/id" / name)) for name in ("sys_vendor", "product_name"))
    if not product or product.lower().startswith(vendor.lower()):
        return product
    return f"{vendor} {product}"


def _named(text: str) -> str:
    text = text.strip()
    return "" if text.lower() in _NO_NAMES else text


def _system_version() -> str:
    if sys.platform == "darwin":
        return platform.mac_ver()[0]
    return platform.version() if sys.platform == "win32" else platform.release()  # of Linux: the kernel's


def _memory_mb() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return ""
    return str(size // limits.MIB) if size > 0 else ""


def _runtimes() -> dict[str, str]:
    return {
        runtime_label(row.name): _runtime_version(row.runtime_packages)
        for row in FORMATS
        if row.runtime and importlib.util.find_spec(row.runtime)
    }


def _runtime_version(packages: Iterable[str]) -> str:
    for package in packages:
        try:
            return _dotted(version(package))
        except PackageNotFoundError:
            continue
    return ""  # built by hand: the app may say which version that is


def _dotted(text: str) -> str:
    found = _DOTTED.match(text)
    return found[0] if found else ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_TEXT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _clean(text: str) -> str:
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return words[: limits.LABEL_VALUE_CHARS].strip()
