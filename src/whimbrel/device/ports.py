"""What the device's shell needs of the world: small protocols; a modelled disk, network or probe can stand in."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from whimbrel.model.formats import Format
from whimbrel.model.release import Probe, Signature

Clock = Callable[[], float]  # seconds since 1970, UTC


Place = TypeVar("Place", contravariant=True)  # noqa: PLC0105 (what the body names files by: a mind opens none)


class Hold(Protocol):
    """A lock that is held; it goes when its process dies."""

    def release(self) -> None:
        """Let go; a second time does nothing."""


class Disk(Protocol[Place]):
    """Files. Every method that fails raises `OSError`. Nothing but `write`, `make_folder` and `sync` is durable."""

    def boot(self) -> str:
        """Names the time since the machine was switched on; empty where that is not known."""

    def read(self, path: Place) -> bytes | None:
        """The whole file, or None where there is none."""

    def write(self, path: Place, content: bytes, *, mode: int = 0o644) -> None:
        """Durably and atomically; folders on the way are made."""

    def replace(self, path: Place, content: bytes) -> None:
        """Atomically, not durably: for what may be lost when the power goes."""

    def size(self, path: Place) -> int | None:
        """Bytes of the file, or None where there is none."""

    def stamp(self, path: Place) -> object:
        """Another value after the file was changed, by whomever; None where there is none."""

    def append(self, path: Place, content: bytes) -> None:
        """At the end of the file, which is made where there is none; not durable before `sync`."""

    def sync(self, path: Place) -> None:
        """Make a file, or the names in a folder, durable."""

    def sha256(self, path: Place) -> str:
        """Of a file's bytes, in hexadecimal."""

    def move(self, source: Place, target: Place) -> None:
        """Rename within the disk; not durable before `sync` of the folder."""

    def remove(self, path: Place) -> None:
        """A file or a whole folder; nothing where there is none."""

    def make_folder(self, path: Place) -> None:
        """And those above it; their names are durable."""

    def names(self, folder: Place) -> list[str]:
        """What a folder holds, sorted; empty where no folder is."""

    def files_below(self, folder: Place) -> list[str]:
        """Relative POSIX paths of all files at any depth, sorted. Anything that is neither file nor folder raises."""

    def hold(self, path: Place, *, make: bool = True, wait: bool = False) -> Hold | None:
        """The lock at `path`; None when somebody else has it (with `wait`: when they let go).

        `make`: where there is no file, an empty one is made; else `FileNotFoundError`.
        """

    def is_held(self, path: Place) -> bool:
        """Whether somebody holds the lock at `path`."""

    def lend(self, *given: Place, made: Place | None = None) -> AbstractContextManager[tuple[Any, ...]]:
        """Real paths of `given`, and last of `made`, for a library that opens files by itself.

        What it leaves at `made` is on the disk when the block ends, and not durable before `sync`.
        """


@runtime_checkable
class MeasuredDisk(Protocol[Place]):
    """A disk that knows how much room it has."""

    def free_bytes(self, folder: Place) -> int:
        """What may still be written below `folder`."""


class Answer(msgspec.Struct, frozen=True):
    """What a server said. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Stream(Protocol):
    """An answer whose body is read in pieces."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> dict[str, str]: ...

    def chunks(self) -> Iterator[bytes]:
        """Pieces of the body as they come. Raises `Unavailable` when the connection breaks."""


class Network(Protocol):
    """HTTP. Raises `Unavailable` where no whole answer comes."""

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        bytes_max: int,
    ) -> Answer:
        """One request and its whole answer. Raises `UntrustedInput` for a body above `bytes_max`."""

    def stream(self, url: str, *, headers: dict[str, str]) -> AbstractContextManager[Stream]:
        """One GET whose body is read in pieces."""


class ProbeRequest(msgspec.Struct, frozen=True):
    """What to try: the model's entry point (a file or an unpacked folder), and what must come out.

    The variant's other files lie beside `path` under their own names. `size_bytes`: of all of them; 0: of what `path`
    names alone. `folder`: one that holds the variant's files and nothing else, which the model may read wholly; "":
    it may read `path`, and the files that it names.
    """

    path: str
    format: Format
    signature: Signature | None = None
    probe: Probe | None = None
    size_bytes: int = 0
    folder: str = ""


class ProbeResult(msgspec.Struct, frozen=True):
    """`how`: "ran" (the runtime answered as it should), "smoke" (it answered made-up inputs sanely) or "structure" (the
    file was read: there is no runtime here, or no input that could be made up).

    `memory_mib`: the most that it held in memory beyond what the empty probe did. `offline`: it had no network.
    """

    passed: bool
    reason: str = ""
    how: str = ""
    latency_ms: float | None = None
    memory_mib: float | None = None
    accuracy: float | None = None
    over_budget: bool = False  # it works, and is too slow or too large for this device
    offline: bool = False


class Prober(Protocol):
    """Tries a model in a cage. Never raises for a bad model; raises `Unavailable` when no probe can be made at all."""

    def probe(self, request: ProbeRequest) -> ProbeResult: ...
