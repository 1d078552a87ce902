"""The agent's settings: they are kept in its folder, so that later commands need only the folder."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from whimbrel import limits
from whimbrel.agent.attestation import check_attester
from whimbrel.agent.disk import Disk
from whimbrel.agent.folder import PRIVATE_FILE
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.transport import check_authorities, check_confidential, check_proxy, check_server
from whimbrel.agent.tuf_client import check_root
from whimbrel.errors import Refused, UntrustedInput, reason_of
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import END, DeviceId, Name
from whimbrel.model.patterns import matching
from whimbrel.trust.enrolment import Labels


class Settings(Document, frozen=True, tag_field="format", tag="whimbrel-agent-1"):
    """The file `agent.json`. The trust root is beside it, and the credential. Its owner alone reads it."""

    server: str  # "": none yet, bundles only
    device_id: DeviceId
    models: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=limits.DEVICE_MODELS)]
    namespace: Name = "default"
    labels: Labels = {}
    mirrors: Annotated[tuple[str, ...], msgspec.Meta(max_length=limits.MIRRORS)] = ()  # below each lie artifacts
    proxy: str = ""  # before the environment's
    insecure_http: bool = False  # whether the server may be asked without TLS, over a network
    ca_file: str = ""  # certificates that TLS rests on; "": those of the machine
    bandwidth_kib_s: Annotated[int, msgspec.Meta(ge=0)] = 0  # 0: no cap
    metered_mib_a_day: Annotated[int, msgspec.Meta(ge=0)] = 0  # 0: as the policies say
    refresh_min_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 0.0  # least seconds between two looks for news
    metered_refresh_min_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 300.0  # the same on a metered network
    quota_mib: Annotated[int, msgspec.Meta(ge=0)] = 0  # of the whole folder; 0: what the disk has
    attestation: Annotated[str, matching("^[a-z0-9_-]{0,64}" + END, "the name of a kind, such as android-key")] = (
        ""  # the kind of attestation that the device enrols with; "": none
    )
    sealed_at_rest: bool = False  # whether slots keep sealed models sealed


def kept(folder: Path, *, disk: Disk) -> Settings | None:
    """What the folder says. Raises `UntrustedInput` for a file that is not ours."""
    content = disk.read(folder / "agent.json")
    return documents.parse(Settings, content, what=str(folder / "agent.json")) if content is not None else None


def settle(folder: Path, options: AgentOptions, *, disk: Disk) -> tuple[Settings, bytes]:
    """What was given, over what is kept; and the trust root. Both are kept from now on.

    Raises `Refused` when something is neither given nor kept, `UntrustedInput` for what cannot be used.
    """
    before = kept(folder, disk=disk)
    given = _given(options)
    if before is None:
        _check_first(folder, options, disk=disk)
        given = {"device_id": f"dev-{secrets.token_hex(8)}", **given}
    earlier = msgspec.structs.asdict(before) if before is not None else {}
    values = {**earlier, **given, "format": "whimbrel-agent-1"}
    settings = documents.convert(Settings, values, what="the agent's settings")
    if settings.server:
        check_confidential(settings.server, insecure_http=settings.insecure_http)
    trusted = _root(folder, options.root, disk=disk)
    if settings != before:
        disk.write(folder / "agent.json", documents.encode(settings), mode=PRIVATE_FILE)  # a proxy may have a password
    return settings, trusted


def _given(options: AgentOptions) -> dict[str, object]:
    """The settings among the options. Raises `UntrustedInput`."""
    given = {name: getattr(options, name) for name in Settings.__struct_fields__}
    return {name: _READ.get(name, _as_it_is)(value) for name, value in given.items() if value is not None}


def _check_first(folder: Path, options: AgentOptions, *, disk: Disk) -> None:
    missing = [name for name in ("server", "root", "models") if getattr(options, name) is None]
    if "root" in missing and disk.read(folder / "root.json") is not None:
        missing.remove("root")  # it came with the device's image
    if missing:
        raise Refused(
            f"{folder} has no settings yet; the first time, give server, root and models "
            f"(missing: {', '.join(missing)})"
        )


def _as_it_is(given: object) -> object:
    return given


def _server(given: str) -> str:
    return given and check_server(given)


def _names(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise UntrustedInput(f"models is {given!r}; expected a list of names such as [{given!r}]")
    return tuple(dict.fromkeys(given))


def _mirrors(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise UntrustedInput(f"mirrors is {given!r}; expected a list of addresses such as [{given!r}]")
    return tuple(dict.fromkeys(check_server(each) for each in given))


_READ: dict[str, Callable[[Any], object]] = {  # how a setting is read that is not taken as it is
    "server": _server,
    "models": _names,
    "labels": dict,
    "mirrors": _mirrors,
    "proxy": check_proxy,
    "ca_file": check_authorities,
    "attestation": check_attester,
}


def _root(folder: Path, root: str | Path | bytes | None, *, disk: Disk) -> bytes:
    place = folder / "root.json"
    before = disk.read(place)
    if root is None:
        if before is None:
            raise Refused(f"{folder} has no trust root yet; give the root.json that the server's owner gave you")
        return before
    content = root if isinstance(root, bytes) else _file(Path(root), disk=disk)
    if content != before:
        check_root(content)
        disk.write(place, content)
    return content


def _file(path: Path, *, disk: Disk) -> bytes:
    try:
        content = disk.read(path)
    except OSError as error:
        raise UntrustedInput(f"the root file {path} cannot be read: {reason_of(error)}") from error
    if content is None:
        raise UntrustedInput(f"the root file {path} does not exist")
    if len(content) > limits.DOCUMENT_BYTES:
        raise UntrustedInput(f"the root file {path} has {len(content)} bytes; at most {limits.DOCUMENT_BYTES} are read")
    return content
