"""The agent's settings: they are kept in its folder, so that later commands need only the folder."""

import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.agent.transport import check_proxy, check_server
from whimbrel.agent.tuf_client import check_root
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import DeviceId, Name
from whimbrel.trust.enrolment import Labels

_replace = msgspec.structs.replace


class Settings(Document, frozen=True, tag_field="format", tag="whimbrel-agent-1"):
    """The file `agent.json`. The trust root is beside it; secrets are not in it."""

    server: str  # "": none yet, bundles only
    device_id: DeviceId
    models: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=64)]
    namespace: Name = "default"
    labels: Labels = {}
    mirrors: Annotated[tuple[str, ...], msgspec.Meta(max_length=limits.MIRRORS)] = ()  # below each lie artifacts
    proxy: str = ""  # before the environment's
    bandwidth_kib_s: Annotated[int, msgspec.Meta(ge=0)] = 0  # 0: no cap
    metered_mib_a_day: Annotated[int, msgspec.Meta(ge=0)] = 0  # 0: as the policies say
    quota_mib: Annotated[int, msgspec.Meta(ge=0)] = 0  # of the whole folder; 0: what the disk has


def kept(folder: Path, *, disk: Disk) -> Settings | None:
    """What the folder says. Raises `UntrustedInput` for a file that is not ours."""
    content = disk.read(folder / "agent.json")
    return documents.parse(Settings, content, what=str(folder / "agent.json")) if content is not None else None


def settle(
    folder: Path,
    *,
    disk: Disk,
    server: str | None,
    root: Path | bytes | None,
    models: tuple[str, ...] | None,
    namespace: str | None,
    device_id: str | None,
    labels: dict[str, str] | None,
    mirrors: tuple[str, ...] | None = None,
    proxy: str | None = None,
    **numbers: int | None,
) -> tuple[Settings, bytes]:
    """What was given, over what is kept; and the trust root. Both are kept from now on. `numbers`: those of `Settings`.

    Raises `Refused` when something is neither given nor kept, `UntrustedInput` for what cannot be used.
    """
    before = kept(folder, disk=disk)
    if before is None and server is None:
        raise Refused(f"{folder} has no settings yet; the first time, give server, root and models")
    if before is None and models is None:
        raise Refused("no model was named; the first time, name what this device keeps: --model NAME, or models=[NAME]")
    device = f"dev-{secrets.token_hex(8)}"
    earlier = before or Settings(server="", device_id=device, models=tuple(dict.fromkeys(models or ())))
    values = {
        "format": "whimbrel-agent-1",
        "server": earlier.server if server is None else server and check_server(server),
        "device_id": device_id if device_id is not None else earlier.device_id,
        "models": tuple(dict.fromkeys(models)) if models is not None else earlier.models,
        "namespace": namespace if namespace is not None else earlier.namespace,
        "labels": labels if labels is not None else earlier.labels,
        "mirrors": earlier.mirrors if mirrors is None else tuple(dict.fromkeys(check_server(each) for each in mirrors)),
        "proxy": earlier.proxy if proxy is None else check_proxy(proxy),
        **{
            name: given if (given := numbers.get(name)) is not None else getattr(earlier, name)
            for name in ("bandwidth_kib_s", "metered_mib_a_day", "quota_mib")
        },
    }
    settings = documents.convert(Settings, values, what="the agent's settings")
    trusted = _root(folder, root, disk=disk)
    if settings != before:
        disk.write(folder / "agent.json", documents.encode(settings))
    return settings, trusted


def _root(folder: Path, root: Path | bytes | None, *, disk: Disk) -> bytes:
    place = folder / "root.json"
    before = disk.read(place)
    if root is None:
        if before is None:
            raise Refused(f"{folder} has no trust root yet; give the root.json that the server's owner gave you")
        return before
    content = root if isinstance(root, bytes) else _file(root, disk=disk)
    if content != before:
        check_root(content)
        disk.write(place, content)
    return content


def _file(path: Path, *, disk: Disk) -> bytes:
    try:
        content = disk.read(path)
    except OSError as error:
        raise UntrustedInput(f"the root file {path} cannot be read: {error}") from error
    if content is None:
        raise UntrustedInput(f"the root file {path} does not exist")
    if len(content) > limits.DOCUMENT_BYTES:
        raise UntrustedInput(f"the root file {path} has {len(content)} bytes; at most {limits.DOCUMENT_BYTES} are read")
    return content
