"""What do all models of a device share? The ports, the trust, the downloads, and each other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download
from whimbrel.agent.spool import Spool
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.conditions import Situation
from whimbrel.device.ports import Prober

if TYPE_CHECKING:
    from whimbrel.agent.installation import Installation


class Surroundings(msgspec.Struct):
    """What all models of a device share."""

    device_id: str
    labels: dict[str, str]
    home: Path
    quota_bytes: int | None
    disk: Disk
    trust: TrustClient
    download: Download
    prober: Callable[[], Prober]
    spool: Spool
    now: Callable[[], float]
    situation: Callable[[], Situation]
    refresh: Callable[[], None]  # raises Unavailable, UntrustedInput
    flush: Callable[[], None]  # says what waits in the outboxes; best effort
    others: Callable[[], Mapping[str, "Installation"]]  # all models of this device, by name
    telemetry: Callable[[], bool]
    offline: Callable[[], bool]  # a bundle is imported: somebody is here, and no network is used
