"""What does an app choose when it opens an agent? `AgentOptions`: one value, in which everything has a default.

1. The settings are kept in the agent's folder. One that is None is as it was the last time; the first time `server`,
   `root` and `models` are needed.
2. The rest is of this process, and is kept nowhere.
"""

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import urllib3

from whimbrel.agent.attestation import Attester
from whimbrel.agent.changes import VersionChange
from whimbrel.agent.disk import Disk
from whimbrel.agent.progress import DownloadProgress
from whimbrel.device.conditions import Situation
from whimbrel.device.ports import Clock, Prober
from whimbrel.errors import UntrustedInput


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Given to `Agent.open`."""

    # --- settings: kept in the folder ---
    server: str | None = None  # an address such as https://models.example.com; "" is none: only bundles come
    root: str | Path | bytes | None = None  # the trust root: a path, or the bytes
    models: Sequence[str] | None = None  # their names
    namespace: str | None = None  # the team or app; "default" at first
    device_id: str | None = None  # random at first
    labels: Mapping[str, str] | None = None  # over those that the agent sees; a policy says which leave the device
    mirrors: Sequence[str] | None = None  # asked for artifacts before the server: `<mirror>/<sha256>`
    proxy: str | None = None  # before the environment's HTTP_PROXY and its like; "" for none
    insecure_http: bool | None = None  # whether a server that is not this machine may be asked without TLS
    ca_file: str | None = None  # certificates (PEM) to trust instead of the machine's own; "" for these
    bandwidth_kib_s: int | None = None  # a cap on downloads; 0: none
    metered_mib_a_day: int | None = None  # of a day, where the network is not known to be unmetered; 0: no bound
    refresh_min_s: float | None = None  # seconds between two looks for news at least, whatever policies say; 0: none
    metered_refresh_min_s: float | None = None  # the same where the network is known to be metered; 300 at first
    quota_mib: int | None = None  # of the folder; 0: what the disk has
    attestation: str | None = None  # the kind of attestation that it enrols with, by an installed attester; "" for none
    sealed_at_rest: bool | None = None  # whether slots keep sealed models sealed, and sessions open them into memory

    # --- of this process ---
    enrol_token: str | None = None  # lets the device tell how it is doing; without one it only listens
    attester: Attester | None = None  # makes the attestation, instead of an installed one
    progress: Callable[[DownloadProgress], object] | None = None  # hears of downloads, at most once a second
    on_change: Callable[[VersionChange], object] | None = None  # hears when another version is active
    situation: Callable[[], Situation] | None = None  # charger, battery, network; on Linux the agent looks by itself
    probes: Prober | None = None  # may be shared by many agents; None: the one of this process
    pool: urllib3.PoolManager | None = None  # may be shared by many agents
    durable_sessions: bool = True  # False saves a disk write a session; a power cut in one is then not told from none
    self_measures: bool = True  # memory, processor time, temperature and battery of sessions are told as metrics

    # --- the machine, for simulations and tests ---
    clock: Clock = time.time
    monotonic: Clock = time.monotonic
    chance: random.Random | None = None
    disk: Disk | None = None

    def __post_init__(self) -> None:
        """Raises `UntrustedInput` for an option of another type than its own; what they say is checked when opened."""
        for name, types, words in _TYPES:
            given = getattr(self, name)
            if given is not None and not isinstance(given, types):
                raise UntrustedInput(f"{name} is {_shown(given)}; expected {words}")
        for name in ("models", "mirrors"):
            for each in getattr(self, name) or ():
                if not isinstance(each, str):
                    raise UntrustedInput(f"{name} has {_shown(each)}; expected a list of text")
        for name, method, words in _DOING:
            given = getattr(self, name)
            if given is not None and not callable(getattr(given, method, None)):
                raise UntrustedInput(f"{name} is {_shown(given)}; expected {words}")


_TEXT = "text"
_TYPES: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("server", (str,), "an address such as https://models.example.com"),
    ("root", (str, os.PathLike, bytes), "the path of root.json, or its bytes"),
    ("models", (list, tuple, str), "a list of names"),  # a name alone is said when it is read
    ("namespace", (str,), _TEXT),
    ("device_id", (str,), _TEXT),
    ("labels", (Mapping,), 'names and texts, such as {"region": "NZ"}'),
    ("mirrors", (list, tuple, str), "a list of addresses"),
    ("proxy", (str,), "an address such as http://proxy:3128"),
    ("insecure_http", (bool,), "True or False"),
    ("sealed_at_rest", (bool,), "True or False"),
    ("ca_file", (str,), "the path of a PEM file"),
    ("attestation", (str,), "the name of a kind, such as android-key"),
    ("enrol_token", (str,), "the text of enrol.token"),
    ("durable_sessions", (bool,), "True or False"),
    ("self_measures", (bool,), "True or False"),
    ("chance", (random.Random,), "a random.Random"),
)
_DOING = (  # what is called
    ("progress", "__call__", "a function of one argument"),
    ("on_change", "__call__", "a function of one argument; a command goes to `whimbrel agent run --on-change`"),
    ("situation", "__call__", "a function that returns a Situation"),
    ("clock", "__call__", "a function that returns seconds"),
    ("monotonic", "__call__", "a function that returns seconds"),
    ("attester", "attest", "what attests, with a method attest(challenge)"),
    ("probes", "probe", "what probes, such as a ProbeServer"),
    ("pool", "request", "a urllib3.PoolManager"),
    ("disk", "read", "a disk"),
)


def _shown(given: object) -> str:
    return f"{repr(given)[:80]} ({type(given).__name__})"
