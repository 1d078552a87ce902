"""What a probe may have, and what it holds: the bounds of its cage, and the memory that it took."""

from pathlib import Path

from whimbrel import limits
from whimbrel.agent.probes.formats import PROBES
from whimbrel.cage.walls import Bounds
from whimbrel.device.ports import ProbeRequest


def bounds_of(request: ProbeRequest, *, answer: int) -> Bounds:
    """The bounds of one probe. `answer`: the descriptor that its result is written to."""
    return Bounds(
        memory_bytes=_memory_bytes(request),
        cpu_s=limits.PROBE_CPU_S,
        readable=_readable(request),
        listed=(Path(request.path).parent,),  # where an index or a shard would lie
        kept=(answer,),
    )


def resident_bytes(*, peak: bool) -> int | None:
    """Bytes that this process holds in memory now, or held at its peak (proc(5), VmRSS and VmHWM); None if unknown."""
    word = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith(word)), None)
    return int(kibibytes) * limits.KIB if kibibytes else None


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def _readable(request: ProbeRequest) -> list[Path]:
    path = Path(request.path)
    if request.folder:
        return [path, Path(request.folder)]
    beside = sorted(path.parent.glob("*.index.json"))[: limits.FILES]
    try:
        return [path, *beside, *(path.parent / name for name in PROBES[request.format].parts(path))]
    except (OSError, ValueError):  # the check meets the same, and says it
        return [path, *beside]


def _memory_bytes(request: ProbeRequest) -> int:
    allowed = limits.PROBE_MEMORY_BYTES + 3 * max(size_of(Path(request.path)), request.size_bytes)
    if request.probe is not None and request.probe.memory_mib_max is not None:
        # Addresses are not memory: arenas and maps reserve more than they hold. The budget counts what is held.
        allowed = 2 * request.probe.memory_mib_max * limits.MIB + limits.PROBE_ADDRESSES_BYTES
    return allowed
