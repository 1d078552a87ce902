"""A listener's certificate: TLS 1.3 alone, read again when the files have changed and a person says so (SIGHUP).

1. A certificate is taken wholly or not at all: files that are not understood, or do not belong together, change
   nothing, and the log says why. Nor does a certificate that is over, or not good yet, as long as the one in use is
   good: a script that renews may copy yesterday's file. A server that starts takes such a one, and warns.
2. Connections that are open keep what they began with. New ones get the new certificate.
"""

import logging
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from whimbrel import limits
from whimbrel.durable import trouble
from whimbrel.errors import UntrustedInput, WhimbrelError
from whimbrel.model.documents import Document
from whimbrel.server.logs import fields

log = logging.getLogger(__name__)

_EXPIRES_SOON = timedelta(days=14)  # certificates that live 90 days are renewed 30 days before their end


class TlsFiles(Document, frozen=True):
    """Paths of PEM files: the certificate with those between it and its authority, and its private key."""

    certificate: str
    key: str


class Certificate:
    """The certificate of one listener. `clock`: POSIX seconds.

    Raises `UntrustedInput` or `Unavailable` where its files cannot be used.
    """

    def __init__(self, files: TlsFiles, *, clock: Callable[[], float]) -> None:
        self._files, self._clock = files, clock
        self.context, self._leaf = self._read()
        self._warn()

    def read_again(self) -> bool:
        """Take what the files hold now. Whether that was possible; if not, the certificate of before stays."""
        try:
            context, leaf = self._read()
            if (problem := self._problem(leaf)) and not self._problem(self._leaf):
                raise UntrustedInput(f"{self._files.certificate} {problem}, and the one in use is good")
        except WhimbrelError as error:
            log.error("the certificate of before stays in use: %s", error)
            return False
        self.context, self._leaf = context, leaf
        self._warn()
        return True

    def _read(self) -> tuple[ssl.SSLContext, x509.Certificate]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["http/1.1"])
        certificate, key = Path(self._files.certificate), Path(self._files.key)
        try:
            leaf = x509.load_pem_x509_certificates(_content(certificate))[0]
            _content(key)  # so that an error names the file
            context.load_cert_chain(certificate, key, password=_refuse_password)
        except ssl.SSLError as error:
            raise UntrustedInput(
                f"{certificate} and {key} cannot be used together ({error.reason or error}); expected a certificate, "
                "with those between it and its authority, and its unencrypted private key, as PEM"
            ) from error
        except OSError as error:
            raise trouble(error, doing="reading the certificate") from error
        except (ValueError, IndexError) as error:
            raise UntrustedInput(f"{certificate} is no certificate in PEM form: {error}") from error
        return context, leaf

    def _problem(self, leaf: x509.Certificate) -> str | None:
        """Why clients refuse a certificate now; None where they take it."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        if leaf.not_valid_after_utc < now:
            return f"expired at {leaf.not_valid_after_utc.isoformat()}"
        if leaf.not_valid_before_utc > now:
            return f"is not good before {leaf.not_valid_before_utc.isoformat()}"
        return None

    def _warn(self) -> None:
        certificate, ends = self._files.certificate, self._leaf.not_valid_after_utc
        log.info("a certificate is in use", extra=fields(file=certificate, expires=ends.isoformat()))
        problem = self._problem(self._leaf)
        if problem is None and ends - datetime.fromtimestamp(self._clock(), UTC) < _EXPIRES_SOON:
            problem = f"expires at {ends.isoformat()}"
        if problem is not None:
            log.warning("%s %s; put a new one there, and send SIGHUP to this server", certificate, problem)


def _content(path: Path) -> bytes:
    """A file of PEM. What is no file, such as a named pipe, could keep the server waiting for ever.

    Raises `OSError`, `UntrustedInput`.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > limits.TLS_FILE_BYTES:
        raise UntrustedInput(
            f"{path} is no file of at most {limits.TLS_FILE_BYTES} bytes; expected a certificate or a key, as PEM"
        )
    return path.read_bytes()


def _refuse_password() -> str:
    raise UntrustedInput("the private key is encrypted; a server that starts by itself cannot ask for its password")
