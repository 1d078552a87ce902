"""Bytes of signed documents for python-tuf: over the agent's own network, with limits, gzip and ETags.

A 200 that brings no JSON object comes from somebody on the way, and says nothing about the server's metadata.
"""

from collections.abc import Iterator

from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from whimbrel import limits
from whimbrel.agent.answers import check_document
from whimbrel.agent.backoff import check_patience
from whimbrel.device.ports import Answer, Network
from whimbrel.errors import InvariantBroken, Unavailable, UntrustedInput


class MetadataFetcher(FetcherInterface):
    """Bytes for the Updater. What the trust client has just been told (`prime`) is not asked for again."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.primed: dict[str, tuple[int, bytes, str]] = {}
        self.etag = ""
        self.now = 0.0

    def prime(self, url: str, status: int, body: bytes, etag: str = "") -> None:
        self.primed[url] = (status, body, etag)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        is_primed = url in self.primed
        status, body, etag = self.primed.pop(url) if is_primed else self._ask(url, max_length)
        if status != 200:
            raise DownloadHTTPError(f"{url} answered {status}", status)
        if len(body) > max_length:
            raise DownloadLengthMismatchError(f"{url} has more than {max_length} bytes")
        if url.endswith("/timestamp.json"):
            self.etag = etag
        return body

    def download_target(self, url: str, target: TargetFile) -> bytes:
        """A signed document. What was not signed and is no JSON object comes from somebody on the way."""
        answer = self._answer(url, target.length)
        if answer.status != 200:
            raise DownloadHTTPError(f"{url} answered {answer.status}", answer.status)
        if not fits(target, answer.body):
            _check(url, answer)
        return answer.body

    def _ask(self, url: str, max_length: int) -> tuple[int, bytes, str]:
        answer = self._answer(url, max_length)
        _check(url, answer)
        return answer.status, answer.body, answer.headers.get("etag", "")

    def _answer(self, url: str, max_length: int) -> Answer:
        try:
            answer = self._network.ask("GET", url, bytes_max=max(max_length, limits.ANSWER_BYTES))
        except Unavailable as error:
            raise DownloadError(str(error)) from error
        except UntrustedInput as error:
            raise DownloadLengthMismatchError(str(error)) from error
        check_patience(url, answer, now=self.now)
        return answer

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise InvariantBroken(f"{url}: the Updater is not asked to download files")


def _check(url: str, answer: Answer) -> None:
    try:
        check_document(url, answer)
    except Unavailable as error:
        raise DownloadError(str(error)) from error


def fits(target: TargetFile, content: bytes) -> bool:
    """Whether these bytes are the target: its length and all of its hashes."""
    try:
        target.verify_length_and_hashes(content)
    except RepositoryError:
        return False
    return True
