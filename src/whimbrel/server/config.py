"""The settings and paths of a repository. `whimbrel.toml` lies in its folder; every setting has a default.

database = "sqlite:///whimbrel.db"     # or postgresql://user@host/name; a relative path is beside this file
artifacts = "files"                    # a folder, or s3://bucket/prefix, gs://..., az://...
inbox = "table"                        # or nats://host:4222
inbox_stream = "whimbrel-inbox"        # its JetStream stream: one a database
namespace = "default"
evidence = "proven"                    # or "all": devices that a shared token lets in move rollouts at once
sealing_key = "keys/online/sealing.key"  # what opens the keys of sealed releases; may lie on a disk of its own
audit_anchor_hours = 24                # between two anchors of the audit log, for receivers of `audit_anchor`
second_person_for_keys = false         # or true: a change of keys over the server waits for another person

How people sign in with a provider stands in the same file (`oidc_settings`), and so do `[attestation.KIND]` and
`[client_certificates]`, which the files beside this one of these names tell of, and the receivers of alerts
(`receivers`), which alone are read again while a server runs (`CurrentReceivers`); what the other settings name is open
by then.
"""

import logging
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.durable import write_durably
from whimbrel.errors import NotFound, UntrustedInput, WhimbrelError, reason_of
from whimbrel.flows.alerts import Event
from whimbrel.flows.reports.proven import EvidenceRule
from whimbrel.model.documents import Document, convert
from whimbrel.model.ids import Name
from whimbrel.model.patterns import matching
from whimbrel.server.client_certificates import ClientCertificates
from whimbrel.server.oidc_settings import OidcSettings
from whimbrel.server.receivers import Receiver

log = logging.getLogger(__name__)

FILE = "whimbrel.toml"
_CONFIG_BYTES = 64 * 1024
_WRITTEN = ("database", "artifacts", "inbox", "inbox_stream", "namespace")  # by `init`


class Config(Document, frozen=True):
    """The settings in `whimbrel.toml`."""

    database: Annotated[str, Meta(min_length=1)] = "sqlite:///whimbrel.db"
    artifacts: Annotated[str, Meta(min_length=1)] = "files"
    inbox: Annotated[
        str, matching("^(table|nats://.+|tls://.+)$", "table, or a URL that begins with nats:// or tls://")
    ] = "table"
    inbox_stream: Annotated[str, matching("^[A-Za-z0-9_-]{1,64}$", "letters, digits, _ and -, at most 64")] = (
        "whimbrel-inbox"  # of NATS
    )
    namespace: Name = "default"
    evidence: EvidenceRule = "proven"
    sealing_key: Annotated[str, Meta(min_length=1)] = "keys/online/sealing.key"
    second_person_for_keys: bool = False
    audit_anchor_hours: Annotated[float, Meta(ge=1.0, le=limits.AUDIT_ANCHOR_HOURS)] = 24.0
    receivers: Annotated[tuple[Receiver, ...], Meta(max_length=limits.RECEIVERS)] = ()
    oidc: OidcSettings | None = None

    attestation: Annotated[dict[Name, dict[str, Any]], Meta(max_length=16)] = {}  # settings by kind, see `attestation`
    client_certificates: ClientCertificates | None = None

    def __post_init__(self) -> None:
        names = [receiver.name for receiver in self.receivers]
        if len(set(names)) != len(names):
            raise ValueError(f"two receivers share a name: {', '.join(names)}")

    @property
    def has_password(self) -> bool:
        """Whether a URL in it has a password, so that the file is a secret itself."""
        return any("@" in url and urlsplit(url).password for url in (self.database, self.artifacts, self.inbox))


class Folder(msgspec.Struct, frozen=True):
    """A repository's folder, and the paths in it."""

    path: Path
    config: Config

    @classmethod
    def open(cls, path: Path) -> "Folder":
        """Raises `NotFound` where `path` holds no repository, `UntrustedInput` for settings that are not understood."""
        file = path / FILE
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(
                f"{path} is no Whimbrel repository (no {FILE}); make one with: whimbrel init {shlex.quote(str(path))}"
            ) from None
        if len(content) > _CONFIG_BYTES:
            raise UntrustedInput(f"{file} has {len(content)} bytes; expected a short file of settings")
        try:
            settings = tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UntrustedInput(f"{file} is not TOML: {reason_of(error)}") from error
        return cls(path, convert(Config, settings, what=str(file)))

    @classmethod
    def make(cls, path: Path, config: Config) -> "Folder":
        """Write the settings file of a new repository."""
        lines = [f"{name} = {_toml(getattr(config, name))}\n" for name in _WRITTEN]
        mode = 0o600 if config.has_password else 0o644
        write_durably(path / FILE, "".join(["# Settings of this repository.\n", *lines]).encode(), mode=mode)
        return cls(path, config)

    @property
    def database_url(self) -> str:
        """The database's URL, a relative SQLite path made absolute."""
        prefix = "sqlite:///"
        url = self.config.database
        if url.startswith(prefix) and not url.startswith("sqlite:////") and not url.endswith(":memory:"):
            return f"{prefix}{(self.path / url.removeprefix(prefix)).resolve()}"
        return url

    @property
    def artifacts_folder(self) -> Path | None:
        """Where artifacts and signed files lie on this machine. None where they lie elsewhere."""
        return None if "://" in self.config.artifacts else (self.path / self.config.artifacts).resolve()

    @property
    def offline_keys(self) -> Path:
        """Keys that sign versions. Take this folder away: `serve` does not need it."""
        return self.path / "keys" / "offline"

    @property
    def online_keys(self) -> Path:
        """Keys that the server needs."""
        return self.path / "keys" / "online"

    @property
    def sealing_key(self) -> Path:
        """The file of the key that opens the keys of sealed releases."""
        return (self.path / self.config.sealing_key).resolve()

    @property
    def admin_token(self) -> Path:
        """The file with the admin token."""
        return self.path / "admin.token"

    @property
    def enrol_token(self) -> Path:
        """The file with the first enrolment token."""
        return self.path / "enrol.token"

    @property
    def root(self) -> Path:
        """The first root metadata: what devices are built with."""
        return self.path / "root.json"


class CurrentReceivers:
    """The receivers of alerts as `whimbrel.toml` has them now. A server asks before every round of alerts.

    A file that is not understood changes nothing: the receivers of before stay in use, and `problem` says why.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._read_at = self._stamp()
        self._receivers = _by_name(folder.config)
        self.problem: str | None = None

    def get(self) -> Mapping[str, Receiver]:
        """The receivers by name. The file is read again where it has changed since the last time."""
        stamp = self._stamp()
        if stamp != self._read_at:
            self._read_at = stamp
            self._read()
        return self._receivers

    def asking_for(self, event: Event) -> list[str]:
        """The names of the receivers that ask for an event of whatever it is about. The file is not read for it."""
        return [name for name, receiver in self._receivers.items() if event in receiver.on]

    def _read(self) -> None:
        try:
            config = Folder.open(self._folder.path).config
        except (WhimbrelError, OSError) as error:
            self.problem = (
                f"{reason_of(error)}; the receivers of before stay in use: {', '.join(self._receivers) or 'none'}"
            )
            log.warning("%s", self.problem)
            return
        self.problem, self._receivers = None, _by_name(config)
        log.info("%s has changed; its receivers are now: %s", FILE, ", ".join(self._receivers) or "none")
        running = self._folder.config
        if changed := [name for name in _WRITTEN if getattr(config, name) != getattr(running, name)]:
            log.warning("%s of %s has changed, too, and is used from the next start on", ", ".join(changed), FILE)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = (self._folder.path / FILE).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _by_name(config: Config) -> dict[str, Receiver]:
    return {receiver.name: receiver for receiver in config.receivers}


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
