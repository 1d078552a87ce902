"""What all models of one device share: plain collaborators. None of them knows the models, or the agent."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from whimbrel.agent.bundle import Switched
from whimbrel.agent.device_api import DeviceApi
from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download
from whimbrel.agent.probes import shared_server
from whimbrel.agent.release_keys import ReleaseKeys
from whimbrel.agent.run_history import RunHistory
from whimbrel.agent.spool import Spool
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.conditions import Situation
from whimbrel.device.ports import Clock, Prober
from whimbrel.policy.policy import Conditions


class DeviceContext(msgspec.Struct, frozen=True):
    """The device: what it is called, its disk, its network, and what it believes. `now`: the time of this pass."""

    device_id: str
    labels: dict[str, str]
    folder: Path  # of the agent
    quota_bytes: int | None
    sealed_at_rest: bool
    disk: Disk
    network: Switched
    trust: TrustClient
    download: Download
    api: DeviceApi
    release_keys: ReleaseKeys
    spool: Spool
    runs: RunHistory
    now: Clock
    situation: Callable[[], Situation]
    probes: Prober | None  # None: the probe server that all agents of this process share

    @property
    def prober(self) -> Prober:
        """Whoever tries versions; a server is started when it is asked for."""
        return self.probes if self.probes is not None else shared_server()

    def situation_for(self, conditions: Conditions) -> Situation:
        """How the device is doing. Looked at only where a policy asks for anything."""
        return self.situation() if conditions != Conditions() else Situation()
