"""What may this device believe, now? The signed documents, by the client workflow of TUF 1.0 (section 5).

1. python-tuf's `Updater` does the verification; we bring the bytes, with limits, gzip and ETags.
2. Where the next root does not exist and the timestamp did not change (304), and nothing that is cached has expired,
   nothing changed: no Updater is run, and a refresh costs two small answers.
3. A document that is not understood, names another model, or has a lower sequence than one seen before is refused; the
   one before stays.
4. The time for expiry is the greatest of the clock, what the newest timestamp teaches (when it was signed), and the
   build date: a clock that was set back makes nothing young that has expired.
5. What an online key wrote moves no device beyond a bound (ADR 78). A timestamp teaches no time at which another role
   of the top level has expired, a newer one corrects what it taught, and sequences do not leap; what a key wrote is
   forgotten when the role gets another key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from tuf.api.exceptions import (
    DownloadError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.api.serialization import DeserializationError

from whimbrel import limits
from whimbrel.agent.answers import check_document
from whimbrel.agent.backoff import Busy, check_patience
from whimbrel.agent.disk import Disk
from whimbrel.agent.floors import objection_to_line
from whimbrel.agent.metadata_fetcher import MetadataFetcher, fits
from whimbrel.agent.trust_memory import Memory, Sequenced
from whimbrel.agent.trust_problems import metadata_problem, problem_of, signature_words, unknown_model
from whimbrel.agent.tuf_internals import CONFIG, DiskUpdater, file_name
from whimbrel.device.ports import Network
from whimbrel.errors import InvariantBroken, NotFound, Unavailable, UntrustedInput
from whimbrel.model import documents
from whimbrel.model.release import Line, Release
from whimbrel.model.ways import DeltaIndex
from whimbrel.policy.policy import Policy
from whimbrel.trust import roles

BUILD_DATE = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # no device that runs this code lives before it

_Document = TypeVar("_Document", Policy, Line)


class TrustClient:
    """The verified documents of some models. Not thread-safe: it belongs to whoever holds the agent's lock."""

    def __init__(
        self, folder: Path, *, url: str, root: bytes, models: tuple[str, ...], disk: Disk, network: Network
    ) -> None:
        self._folder = folder
        self._documents = folder / "documents"
        self._url = url
        self._root = root
        self._models = models
        self._disk = disk
        self._network = network
        self._fetcher = MetadataFetcher(network)
        self._updater: DiskUpdater | None = None
        self.policies: dict[str, Policy] = {}
        self.lines: dict[str, Line] = {}
        self.problems: dict[str, str] = {}
        self.unproven: dict[str, str] = {}  # models whose line may not be the newest, and what is missing
        self._asked = models
        self._as_of: float | None = None  # the time to judge by, while a bundle is imported
        self.memory = self._remembered()

    def _remembered(self) -> Memory:
        content = self._disk.read(self._folder / "memory.json")
        try:
            memory = documents.parse(Memory, content, what="memory.json") if content else Memory()
        except UntrustedInput:
            memory = Memory()
        try:
            content = self._disk.read(self._folder / "refreshed.json")
            at = documents.parse(float, content, what="refreshed.json") if content else 0.0
            memory = msgspec.structs.replace(memory, refreshed_at=max(memory.refreshed_at, at))
        except UntrustedInput:
            pass  # torn by a power cut: the next refresh is due at once
        for model in self._models:
            try:
                policy = self._disk.read(self._document(roles.policy_path(model)))
                line = self._disk.read(self._document(roles.line_path(model)))
                if policy and line:
                    self.policies[model] = documents.parse(Policy, policy, what="the kept policy")
                    self.lines[model] = documents.parse(Line, line, what="the kept line")
            except UntrustedInput:
                self.policies.pop(model, None)
        if set(self.policies) != set(self._models):
            memory = msgspec.structs.replace(memory, complete=False)
        return memory

    @contextmanager
    def importing(self, models: tuple[str, ...], *, as_of: float) -> Iterator[None]:
        """What is asked for until the block ends is in a bundle of these models, and judged as of then."""
        self._asked, self._as_of = models, as_of
        try:
            yield
        finally:
            self._asked, self._as_of = self._models, None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its files are."""
        return self._folder, self._folder / "metadata", self._documents

    def trusted_time(self, now: float) -> float:
        """`now`, unless something signed proves that it is later."""
        return max(self._untaught_time(now), self.memory.signed_at)

    def _untaught_time(self, now: float) -> float:
        return max(now if self._as_of is None else self._as_of, BUILD_DATE)

    def staleness_s(self, now: float) -> float:
        """How long ago the metadata expired that decisions are made of; 0 where it has not."""
        time = max(now, self.memory.signed_at, BUILD_DATE)
        return max(0.0, time - self.memory.expires) if self.memory.expires else 0.0

    def refresh(self, now: float) -> bool:
        """Ask the server what is new; whether any document may have changed.

        Raises `Unavailable`, `UntrustedInput` (the metadata cannot be trusted: nothing changes).
        """
        self._updater = None
        if self._unchanged(now):
            confirmed = self.memory.confirmed | dict.fromkeys(self._whole(), now)
            self._remember(refreshed_at=now, bundled=(), confirmed=confirmed)
            return False
        self._run_updater(now)
        return True

    def confirmed_at(self, model: str) -> float:
        """When the policy and line of `model` were known to be the newest; metadata alone says nothing of that."""
        return self.memory.confirmed.get(model, 0.0)

    def _whole(self) -> list[str]:
        return [model for model in self._asked if model in self.policies and model not in self.problems]

    def release(self, model: str, serial: int, now: float) -> Release:
        """The release document of a serial, verified. Raises `Unavailable`, `UntrustedInput`, `NotFound`."""
        path = roles.release_path(model, serial)
        kept = self._disk.read(self._document(path))
        if kept is not None:
            try:
                return _release(kept, model, serial)
            except UntrustedInput:
                self._disk.remove(self._document(path))
        if self._updater is None:
            self._run_updater(now)
        content = self._target(path)
        if content is None:
            raise NotFound(f"the repository has no release {serial} of {model}")
        release = _release(content, model, serial)
        self._disk.write(self._document(path), content)
        return release

    def kept_release(self, model: str, serial: int) -> Release | None:
        """A release that is here already, without a look at the network; None where there is none."""
        kept = self._disk.read(self._document(roles.release_path(model, serial)))
        try:
            return _release(kept, model, serial) if kept is not None else None
        except UntrustedInput:
            return None

    def deltas(self, model: str, serial: int, now: float) -> DeltaIndex | None:
        """The newest index of ways to a release's artifacts; None where there is none.

        It is advice, so whatever is wrong with it means that there is none. Raises `Unavailable` without a network.
        """
        if self._updater is None:
            self._run_updater(now)
        try:
            content = self._target(roles.deltas_path(model, serial))
            index = documents.parse(DeltaIndex, content, what=f"the delta index of {model}") if content else None
        except UntrustedInput:
            return None
        return index if index is not None and (index.model, index.serial) == (model, serial) else None

    def keep_releases(self, wanted: set[tuple[str, int]]) -> None:
        """Forget the release documents that are neither active, nor behind, nor on their way."""
        names = {file_name(roles.release_path(model, serial)) for model, serial in wanted}
        for name in self._disk.names(self._documents):
            parts = name.split("%2F")
            if len(parts) == 3 and parts[1] in self._models and parts[2] != "line.json" and name not in names:
                self._disk.remove(self._documents / name)

    def rest(self) -> None:
        """Let go of the parsed metadata until the next refresh: a process may hold hundreds of agents."""
        self._updater = None

    # --- the cheap path ---

    def _unchanged(self, now: float) -> bool:
        self._fetcher.primed.clear()
        memory = self.memory
        if self._as_of is not None:
            return False
        if not (memory.complete and memory.etag and self.trusted_time(now) < memory.expires):
            return False
        root_url = f"{self._url}/metadata/{memory.root_version + 1}.root.json"
        timestamp_url = f"{self._url}/metadata/timestamp.json"
        root = self._network.ask("GET", root_url, bytes_max=CONFIG.root_max_length)
        check_patience(root_url, root, now=now)
        check_document(root_url, root)
        if root.status not in {403, 404}:
            self._fetcher.prime(root_url, root.status, root.body)
            return False
        self._fetcher.prime(root_url, root.status, b"")
        timestamp = self._network.ask(
            "GET",
            timestamp_url,
            headers={"If-None-Match": memory.etag},
            bytes_max=CONFIG.timestamp_max_length,
        )
        if timestamp.status == 304:
            return True
        check_patience(timestamp_url, timestamp, now=now)
        if timestamp.status != 200:
            raise Unavailable(f"{timestamp_url} answered {timestamp.status}; expected 200 or 304")
        check_document(timestamp_url, timestamp)
        self._fetcher.prime(timestamp_url, 200, timestamp.body, etag=timestamp.headers.get("etag", ""))
        return False

    # --- the whole workflow ---

    def _run_updater(self, now: float) -> None:
        cache = self._folder / "metadata"
        self._disk.make_folder(self._documents)
        self._fetcher.etag, self._fetcher.now = "", now
        try:
            updater = DiskUpdater(
                cache, f"{self._url}/metadata/", disk=self._disk, fetcher=self._fetcher, shipped_root=self._root
            )
            updater.set_time(self._untaught_time(now))
            updater.refresh()
            self._learn_time(updater, now)
        except ExpiredMetadataError as error:
            raise UntrustedInput(
                f"the signed metadata cannot be trusted: {error}; this device takes it to be "
                f"{_day(self.trusted_time(now))}: "
                "where that is wrong set its clock, else the server signs nothing new"
            ) from error
        except (DownloadError, RepositoryError, OSError, ValueError) as error:
            raise metadata_problem(error, url=self._url) from error
        self._updater = updater
        self.problems = {model: said for model, said in self.problems.items() if model not in self._asked}
        for model in self._asked:
            self._take(model)
        self._remember(
            etag=self._fetcher.etag,
            root_version=updater.root_version,
            expires=updater.expires,
            complete=not self.problems and not self.unproven,
            refreshed_at=now,
            confirmed=self.memory.confirmed | dict.fromkeys(self._whole(), now),
            bundled=() if self._as_of is None else tuple(sorted({*self.memory.bundled, *self._whole()})),
        )

    def _learn_time(self, updater: DiskUpdater, now: float) -> None:
        """What a timestamp says of the time. Raises `ExpiredMetadataError`, `RepositoryError` (it lives too long).

        A newer one is judged by the clock, and corrects what an older one taught. The same one, sent for ever, is not.
        """
        others_expire, life_s = updater.others_expire, roles.TIMESTAMP_LIFE.total_seconds()
        longest = max(others_expire, self._untaught_time(now) + life_s + limits.CLOCK_TOLERANCE_S)
        if updater.timestamp_expires > longest:
            self._disk.remove(self._folder / "metadata" / "timestamp.json")  # or it stands in the next one's way
            raise RepositoryError(
                f"timestamp.json expires at {_day(updater.timestamp_expires)}, expected at most {_day(longest)}"
            )
        if updater.timestamp != self.memory.timestamp:
            signed_at = min(updater.timestamp_expires, others_expire) - life_s
            self._remember(signed_at=signed_at, timestamp=updater.timestamp, complete=False)
        time = self.trusted_time(now)
        if updater.expires <= time:
            raise ExpiredMetadataError("a role that it lists is expired")
        updater.set_time(time)

    def _take(self, model: str) -> None:
        try:
            # The publisher's word holds at once, also where the policy that came with it is not here yet.
            self.lines[model] = self._sequenced(Line, roles.line_path(model), model, self.lines.get(model))
            policy = self._sequenced(Policy, roles.policy_path(model), model, self.policies.get(model))
        except UntrustedInput as error:
            self.problems[model] = f"refused: {error}"
        except Busy:
            raise
        except (Unavailable, NotFound) as error:
            self.problems[model] = f"not yet: {error}"
        else:
            self.policies[model] = policy
            self._prove_line(model)

    def _prove_line(self, model: str) -> None:
        self.unproven.pop(model, None)
        if self._updater is not None and self._updater.keys_of(roles.floor_role(model)):
            objection = objection_to_line(self.lines[model], model, target=self._target)
            if objection:
                self.unproven[model] = objection

    def _sequenced(self, kind: type[_Document], path: str, model: str, before: _Document | None) -> _Document:
        word: Sequenced = "policy" if kind is Policy else "line"
        content = self._target(path)
        if content is None:
            known = self._updater.models if self._updater is not None else ()
            if model in known:
                raise NotFound(f"the server has published no {word} of {model} yet")
            raise NotFound(unknown_model(model, known=known))
        document = documents.parse(kind, content, what=path)
        if document.model != model:
            raise UntrustedInput(f"{path} is about {document.model!r}; expected {model!r}")
        keys = self._keys(model, word)
        last = self.memory.greatest(model, word, keys=keys)
        if document.sequence < last:
            raise UntrustedInput(f"{path} has sequence {document.sequence}, and {last} was seen before")
        if last and document.sequence > last + limits.SEQUENCE_LEAP:
            raise UntrustedInput(
                f"{path} has sequence {document.sequence}, and {last} was seen before; expected at most "
                f"{limits.SEQUENCE_LEAP} more"
            )
        if document != before:
            self._disk.write(self._document(path), content)
        self._remember(seen=self.memory.with_sequence(model, word, document.sequence, keys=keys))
        return document

    def _keys(self, model: str, word: Sequenced) -> str:
        role = roles.policy_role(model) if word == "policy" else roles.publisher_role(model)
        return self._updater.keys_of(role) if self._updater is not None else ""

    def _target(self, path: str) -> bytes | None:
        if self._updater is None:
            raise InvariantBroken("a target is asked for before the metadata")
        try:
            target = self._updater.get_targetinfo(path)
            if target is None:
                return None
            content = self._disk.read(self._document(path))
            if content is None or not fits(target, content):
                content = self._download(target)
        except (DownloadError, RepositoryError, OSError, ValueError) as error:
            raise problem_of(error, path) from error
        return content

    def _download(self, target: TargetFile) -> bytes:
        digest = target.hashes.get("sha256")
        if digest is None or target.length > limits.DOCUMENT_BYTES:
            raise UntrustedInput(
                f"{target.path} has {target.length} bytes and hashes {sorted(target.hashes)}; "
                f"expected a SHA-256 and at most {limits.DOCUMENT_BYTES} bytes"
            )
        folder, _, name = target.path.rpartition("/")
        content = self._fetcher.download_target(f"{self._url}/targets/{folder}/{digest}.{name}", target)
        target.verify_length_and_hashes(content)
        return content

    def _document(self, path: str) -> Path:
        return self._documents / file_name(path)

    def _remember(self, **changes: object) -> None:
        memory = msgspec.structs.replace(self.memory, **changes)
        before = self.memory
        if msgspec.structs.replace(memory, refreshed_at=before.refreshed_at, confirmed=before.confirmed) != before:
            self._disk.write(self._folder / "memory.json", documents.encode(memory))
        else:  # at every refresh, so not durable; and a file of its own, so that what was seen is not lost with it
            self._disk.replace(self._folder / "refreshed.json", documents.encode(memory.refreshed_at))
        self.memory = memory


def _day(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return f"{time:.0f} s after 1970"


def _release(content: bytes, model: str, serial: int) -> Release:
    release = documents.parse(Release, content, what=f"release {serial} of {model}")
    if (release.model, release.serial) != (model, serial):
        raise UntrustedInput(
            f"the release is about serial {release.serial} of {release.model!r}; expected serial {serial} of {model!r}"
        )
    return release


def check_root(content: bytes) -> bytes:
    """`content`, when it is root metadata that verifies itself. Raises `UntrustedInput`."""
    try:
        root = Metadata[Root].from_bytes(content)
        if root.signed.type != "root":
            raise ValueError(f"it is {root.signed.type} metadata")
        root.verify_delegate("root", root)
    except DeserializationError as error:
        raise UntrustedInput(
            "the root file cannot be used: it is no signed metadata (JSON); expected the root.json that the server's "
            "owner gave you"
        ) from error
    except (RepositoryError, ValueError, AttributeError) as error:
        raise UntrustedInput(
            f"the root file cannot be used: {signature_words(error)}; expected the root.json that the server's owner "
            "gave you, unchanged"
        ) from error
    return content
